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

package host

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/hosttest"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/lab/privatehost"
)

// maxRecovery is how long a host may be back without being used.
const maxRecovery = 2 * time.Second

// watchful is the default timing, but for outages that are noticed soon.
func watchful(p *Pool) {
	p.timing.ping, p.timing.pingDeadline, p.timing.silence = 200*time.Millisecond, 2*time.Second, 500*time.Millisecond
}

// outage is how long hosts are away: so long that the pauses between tries are as long as they get, and that a dial that
// hangs is given up.
const outage = 35 * time.Second

// TestLibvirtdBack has hosts go away and come back. A daemon that hangs behind TLS is a peer that accepts connections and
// says nothing.
func TestLibvirtdBack(t *testing.T) {
	signal := func(sig syscall.Signal) func(*testing.T, *privatehost.Host) {
		return func(t *testing.T, lab *privatehost.Host) {
			t.Helper()
			must(t, lab.SignalDaemon(sig))
		}
	}
	for _, tt := range []struct {
		name       string
		reach      func(*testing.T, *privatehost.Host) Config
		away, back func(*testing.T, *privatehost.Host)
	}{
		{"the daemon hung", overSocket, signal(syscall.SIGSTOP), signal(syscall.SIGCONT)},
		{"the daemon was restarted", overSocket, stopDaemon, startDaemon},
		{"the daemon was restarted behind SSH", overSSH, stopDaemon, startDaemon},
		{"the daemon hung behind SSH", overSSH, signal(syscall.SIGSTOP), signal(syscall.SIGCONT)},
		{"the network was cut under SSH", overSSH, link("down"), link("up")},
		{"the daemon was restarted behind TLS", overTLS, stopDaemon, startDaemon},
		{"the daemon hung behind TLS", overTLS, signal(syscall.SIGSTOP), signal(syscall.SIGCONT)},
		{"the network was cut under TLS", overTLS, link("down"), link("up")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			lab := hosttest.Libvirtd(t, hosttest.ListenTLS)
			cfg := tt.reach(t, lab)
			p, events := newPool(t, watchful)
			p.Set(testKey, cfg)
			h := connected(t, p, testKey)
			must(t, h.DefineDomain(testContext(t), domainXML("qemu", 1)))

			tt.away(t, lab)
			events.expect(t, Event{Kind: HostDisconnected})
			_, err := p.Get(testKey)
			t.Logf("Away: %v", err)
			time.Sleep(outage)
			_, err = p.Get(testKey)
			t.Logf("Away for %s: %v", outage, err)
			tt.back(t, lab)
			start := time.Now()
			eventually(t, "the host can be used again", func() error {
				if _, err := p.Get(testKey); err != nil {
					return err
				}
				_, err := h.DomainXML(testContext(t), domainUUID(1))
				return err
			})
			took := time.Since(start)
			t.Logf("It was used %s after it was back", took)
			if took > maxRecovery {
				t.Errorf("that is more than %s", maxRecovery)
			}
		})
	}
}

func overSocket(_ *testing.T, lab *privatehost.Host) Config { return Config{URI: socketURI(lab)} }

func overSSH(t *testing.T, lab *privatehost.Host) Config {
	t.Helper()
	return sshConfig(t, hosttest.SSHD(t, lab))
}

func overTLS(t *testing.T, lab *privatehost.Host) Config {
	t.Helper()
	return tlsConfig(t, hosttest.TLSD(t, lab))
}

// link cuts or mends the host's network, without a word to either end of a connection.
func link(state string) func(*testing.T, *privatehost.Host) {
	return func(t *testing.T, lab *privatehost.Host) {
		t.Helper()
		links, err := lab.Inside(testContext(t), "ip", "-o", "-4", "addr", "show", "to", lab.Addr().String()).Output()
		if err != nil || len(strings.Fields(string(links))) < 2 {
			t.Fatalf("looking for the link: %s, %v", links, err)
		}
		if out, err := lab.Inside(testContext(t), "ip", "link", "set", strings.Fields(string(links))[1], state).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
}
