//go:build faults

/*
Copyright 2026 The cluster-api-provider-libvirt Authors.

Licensed under the Apache License, Version 2.0 (the "License");
you may not use this file except in compliance with the License.
You may obtain a copy of the License at

    http://www.apache.org/licenses/LICENSE-2.0

Unless required by applicable law or agreed to in writing, software
distributed under the License is distributed on an "AS IS" BASIS,
WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
See the License for the specific language governing permissions and
limitations under the License.
*/

package controllers

import (
	"context"
	"net/url"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/hosttest"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/lab/privatehost"
)

const (
	// away is how long a host is away: so long that the pauses between tries are as long as they get.
	away = 35 * time.Second
	// maxReturn is how long a machine may take to be ready after its host is back.
	maxReturn = 2 * time.Second
)

// TestMachineIsBackWithItsHost has the hosts of machines away for long, reached in each way there is.
func TestMachineIsBackWithItsHost(t *testing.T) {
	for _, way := range []struct {
		name  string
		reach func(*testing.T, *privatehost.Host) (uri string, credentials map[string][]byte)
		edit  func(*privatehost.Options)
	}{
		{"local", func(_ *testing.T, lab *privatehost.Host) (string, map[string][]byte) { return lab.URI(), nil }, func(*privatehost.Options) {}},
		{"SSH", func(t *testing.T, lab *privatehost.Host) (string, map[string][]byte) {
			t.Helper()
			access := hosttest.SSHD(t, lab)
			return (&url.URL{Scheme: "qemu+libssh2", User: url.User("root"), Host: access.Addr, Path: "/system"}).String(),
				map[string][]byte{"ssh-privatekey": file(t, access.Key), "known_hosts": file(t, access.KnownHosts)}
		}, func(*privatehost.Options) {}},
		{"TLS", func(t *testing.T, lab *privatehost.Host) (string, map[string][]byte) {
			t.Helper()
			access := hosttest.TLSD(t, lab)
			cert, key := access.CA.Issue(t, "manager", false)
			return "qemu+tls://" + access.Addr + "/system", map[string][]byte{"ca.crt": access.CA.Cert, "tls.crt": cert, "tls.key": key}
		}, hosttest.ListenTLS},
	} {
		for _, fault := range []struct {
			name       string
			away, back func(context.Context, *privatehost.Host) error
		}{
			{"the daemon was killed",
				func(ctx context.Context, lab *privatehost.Host) error { return lab.StopDaemon(ctx, syscall.SIGKILL) },
				func(ctx context.Context, lab *privatehost.Host) error { return lab.StartDaemon(ctx) }},
			{"the daemon hung",
				func(_ context.Context, lab *privatehost.Host) error { return lab.SignalDaemon(syscall.SIGSTOP) },
				func(_ context.Context, lab *privatehost.Host) error { return lab.SignalDaemon(syscall.SIGCONT) }},
		} {
			t.Run(way.name+", "+fault.name, func(t *testing.T) {
				t.Parallel()
				s := newScene(t)
				lab := newLab(t, way.edit)
				uri, credentials := way.reach(t, lab)
				if credentials != nil {
					s.create(&corev1.Secret{ObjectMeta: s.meta("kvm1", ""), Data: credentials})
				}
				s.readyHost("kvm1", uri, func(h *infrav1.LibvirtHost) {
					if credentials != nil {
						h.Spec.CredentialsRef.Name = "kvm1"
					}
				})
				s.readyCluster("green", "10.20.0.0/27")
				m := s.readyMachine("green", "green-a", emulated)
				must(t, fault.away(t.Context(), lab))
				s.expectCondition(m, infrav1.ReadyCondition, metav1.ConditionUnknown, infrav1.HostUnreachableReason)
				time.Sleep(away)
				arrivals, stop := s.arrivals()
				defer stop()
				must(t, fault.back(t.Context(), lab)) // which returns when the daemon listens
				began := time.Now()
				select {
				case ready := <-arrivals:
					took := ready.at.Sub(began)
					t.Logf("The machine was ready %s after its host was back", took.Round(time.Millisecond))
					if took > maxReturn {
						t.Errorf("That is more than %s", maxReturn)
					}
				case <-time.After(patience):
					t.Fatalf("The machine isn't ready %s after its host is back", patience)
				}
			})
		}
	}
}
