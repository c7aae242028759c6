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
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netns"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/cluster-api/util/conditions"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/gateway"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/lab/privatehost"
)

// agentOn runs a host's agent, this program, until the test ends. It returns the directory of its keys.
func agentOn(t *testing.T, lab *privatehost.Host) string {
	t.Helper()
	state, run := filepath.Join(t.TempDir(), "state"), t.TempDir()
	log, err := os.Create(filepath.Join(t.TempDir(), "agent.log"))
	must(t, err)
	// The agents share a machine, and their sockets mustn't.
	command := lab.Command(context.Background(), "unshare", "--mount", "sh", "-ec", `mount --bind "$0" /run; exec "$@"`, run,
		os.Args[0], "run", "--uri", lab.URI(), "--state-dir", state)
	command.Env = append(command.Env, asAgent+"=1")
	command.Stdout, command.Stderr = log, log
	must(t, command.Start())
	t.Cleanup(func() {
		_ = command.Process.Signal(syscall.SIGTERM)
		_ = command.Wait()
		if text, err := os.ReadFile(log.Name()); t.Failed() && err == nil {
			t.Logf("The agent of %s said:\n%s", lab.Name(), text)
		}
		log.Close()
	})
	return state
}

// onNet runs a shell command in the network of a private host.
func onNet(t *testing.T, lab *privatehost.Host, script string) {
	t.Helper()
	if output, err := lab.Command(t.Context(), "sh", "-ec", script).CombinedOutput(); err != nil {
		t.Fatalf("Running %q: %v: %s", script, err, output)
	}
}

// tellCallers listens in the network of a private host, until the test ends, and tells who connects from which address they
// come.
func tellCallers(t *testing.T, lab *privatehost.Host, address string) {
	t.Helper()
	type result struct {
		listener net.Listener
		err      error
	}
	made := make(chan result)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		ns, err := netns.GetFromPath(lab.Netns())
		if err == nil {
			err = netns.Set(ns)
		}
		if err != nil {
			made <- result{err: err}
			return
		}
		listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp4", address)
		made <- result{listener, err}
	}()
	r := <-made
	must(t, r.err)
	t.Cleanup(func() { r.listener.Close() })
	go func() {
		for {
			conn, err := r.listener.Accept()
			if err != nil {
				return
			}
			caller, _, _ := strings.Cut(conn.RemoteAddr().String(), ":")
			_, _ = conn.Write([]byte(caller))
			conn.Close()
		}
	}()
}

// TestSitesWithTheirAgents has a cluster on two sites, with real agents that make the links.
func TestSitesWithTheirAgents(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	one, two := newLab(t), newLab(t)
	pid := strings.Split(two.Netns(), "/")[2]
	onNet(t, one, "ip link add internet type veth peer name internet netns "+pid)
	for address, lab := range map[string]*privatehost.Host{"203.0.113.1": one, "203.0.113.2": two} {
		onNet(t, lab, "ip addr add "+address+"/24 dev internet; ip link set internet up; echo 1 >/proc/sys/net/ipv4/ip_forward; "+
			"nf=/proc/sys/net/bridge/bridge-nf-call-iptables; [ ! -e $nf ] || echo 0 >$nf")
	}
	kvm1 := s.readyHost("kvm1", one.URI(), reachable("203.0.113.1"))
	kvm2 := s.readyHost("kvm2", two.URI(), reachable("")) // as if behind NAT
	state := agentOn(t, one)
	agentOn(t, two)
	began := time.Now()
	green := s.createCluster("green", "10.20.0.0/25", linkSites)
	s.expectCondition(green, infrav1.ClusterSitesLinkedCondition, metav1.ConditionTrue, infrav1.ClusterSitesLinkedReason)
	t.Logf("The sites were linked %s after the cluster was created", time.Since(began).Round(time.Millisecond))
	s.expectReady(green)
	tellCallers(t, two, "10.20.1.1:8080")
	reaches := func(what string) {
		t.Helper()
		eventually(t, what, func() error {
			output, err := one.Command(t.Context(), "timeout", "3", "bash", "-c", "cat </dev/tcp/10.20.1.1/8080").CombinedOutput()
			if err != nil || string(output) != "10.20.0.1" {
				return fmt.Errorf("got %q, %w", output, err)
			}
			return nil
		})
	}
	reaches("the first site reaches the second")

	// Another cluster's networks share the interfaces, and the keys.
	blue := s.createCluster("blue", "10.21.0.0/25", linkSites, func(c *infrav1.LibvirtCluster) {
		c.Spec.Network.IngressCIDR, c.Spec.Network.Subnets[0].CIDR = "10.21.0.128/25", "10.21.1.0/25"
	})
	s.expectReady(blue)

	// Another key.
	s.refresh(kvm1)
	before, began := kvm1.Status.WireGuard.PublicKey, time.Now()
	rotate := one.Command(t.Context(), os.Args[0], "rotate-key", "--state-dir", state)
	rotate.Env = append(rotate.Env, asAgent+"=1")
	if output, err := rotate.CombinedOutput(); err != nil {
		t.Fatalf("Rotating the key: %v: %s", err, output)
	}
	eventually(t, "kvm1 has another key", func() error {
		s.refresh(kvm1)
		if now := kvm1.Status.WireGuard; now.PublicKey == before || now.NextPublicKey != "" {
			return fmt.Errorf("it has %+v", now)
		}
		return nil
	})
	t.Logf("Going over to another key took %s", time.Since(began).Round(time.Millisecond))
	s.expectLink("kvm2 knows the new key of kvm1 only", "kvm2", green, func(link gateway.Link) error {
		if len(link.Peers) != 1 || link.Peers[0].Key.String() != kvm1.Status.WireGuard.PublicKey || link.Peers[0].Next.String() == before {
			return errors.New("it doesn't")
		}
		return nil
	})
	reaches("the first site reaches the second by the new key")
	s.expectReady(green)
	s.expectReady(blue)

	// A host is away, but for its link.
	must(t, two.StopDaemon(t.Context(), syscall.SIGKILL))
	eventually(t, "kvm2 isn't ready", func() error {
		if s.refresh(kvm2); conditions.IsTrue(kvm2, infrav1.ReadyCondition) {
			return errors.New(describe(kvm2))
		}
		return nil
	})
	touch(s, green)
	staysSo(t, "kvm1 keeps kvm2", func() error {
		wanted, err := s.wantedOn("kvm1", green)
		if err == nil && len(wanted.Link.Peers) != 1 {
			err = fmt.Errorf("it wants %+v", *wanted.Link)
		}
		return err
	})
	reaches("the first site reaches the second, whose libvirtd is away")
	must(t, two.StartDaemon(t.Context()))
	s.expectReady(kvm2)
	s.expectReady(green)

	// It leaves.
	change(s, kvm2, func(h *infrav1.LibvirtHost) { delete(h.Labels, "use") })
	eventually(t, "nothing of kvm2 is left on kvm1", func() error {
		document, err := s.kvm("kvm1").NetworkXML(t.Context(), gateway.StatusNetworkUUID)
		if err != nil {
			return err
		}
		status, err := gateway.ReadStatus(document)
		if err != nil || status.Link == nil || len(status.Link.Peers) > 0 {
			return fmt.Errorf("the agent tells %+v, %w", status.Link, err)
		}
		return nil
	})
	s.expectReady(green)
	if s.refresh(green); !slices.Equal(green.Status.Hosts, []string{"kvm1"}) {
		t.Errorf("The cluster is on %v", green.Status.Hosts)
	}
}
