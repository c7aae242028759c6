//go:build guests

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
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/host"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/hosttest"
)

// TestGuestWithSeveralInterfaces boots a real guest with an address of each kind: that in the managed node network, one by
// DHCP in a network of somebody else's, and two from pools. The world is reached by one way only.
func TestGuestWithSeveralInterfaces(t *testing.T) {
	t.Parallel()
	image := serve(t, guestImage(t))
	lab := hosttest.Libvirtd(t)
	s := newScene(t)
	s.startIPAM(map[string]ipPool{
		"four": {addresses: []string{"192.168.7.10/24"}, gateway: "192.168.7.1"},
		"six":  {addresses: []string{"2001:db8:7::10/64"}, gateway: "2001:db8:7::1"},
	})
	s.readyHost("kvm1", lab.URI())
	addBridge(t, lab, "br9")
	must(t, s.kvm("kvm1").EnsureNetwork(t.Context(), storageNetwork("storage", foreignUUID, 0)))
	s.readyCluster("guest", "10.98.0.0/25")
	m := s.createMachine("guest", "guest-1", guestOf(image), interfaces(inNetwork("storage"), fromPools(onBridge("br9"), "four", "six")),
		func(p *machineParts) {
			p.secret.Data["value"] = []byte("#cloud-config\nruncmd:\n- echo ways $(ip -4 route get 203.0.113.1 | head -1) and $(ip -6 route show default | wc -l) >/dev/console\n")
		})
	s.expectReady(m)
	uuid, kvm := uuidOf(m), s.kvm("kvm1")
	want := []string{m.Spec.Address, "192.168.7.10", "2001:db8:7::10"}

	began := time.Now()
	leased := ""
	if err := within(bootPatience, func() error {
		addresses, err := kvm.InterfaceAddresses(t.Context(), uuid, host.AddressFromAgent)
		if err != nil {
			return err
		}
		var seen []string
		for _, address := range addresses {
			seen = append(seen, address.IP)
			if addr, err := netip.ParseAddr(address.IP); err == nil && netip.MustParsePrefix("10.77.0.0/24").Contains(addr) {
				leased = address.IP
			}
		}
		for _, ip := range want {
			if !slices.Contains(seen, ip) {
				return fmt.Errorf("the guest has %v and not %s", seen, ip)
			}
		}
		if leased == "" {
			return fmt.Errorf("the guest has %v and nothing by DHCP", seen)
		}
		return nil
	}); err != nil {
		t.Fatalf("The guest doesn't answer: %v", err)
	}
	t.Logf("The guest answered with %v and %s after %s", want, leased, time.Since(began).Round(time.Second))

	eventually(t, "all addresses are reported", func() error {
		if s.refresh(m); !slices.Equal(slices.Sorted(slices.Values(internalIPs(m))), slices.Sorted(slices.Values(append([]string{leased}, want...)))) {
			return fmt.Errorf("the machine reports %v", internalIPs(m))
		}
		return nil
	})
	line := "ways 203.0.113.1 via 10.98.0.1 dev"
	console := lab.Path("/var/log/libvirt/qemu/" + m.Status.Domain.Name + "-console.log")
	if err := within(bootPatience, func() error {
		for written := range strings.Lines(string(file(t, console))) {
			if _, ways, ok := strings.Cut(written, "ways "); ok {
				if !strings.Contains(written, line) || !strings.HasSuffix(strings.TrimSpace(written), "and 0") {
					t.Fatalf("The guest's ways to the world are %q, want %q and no other", ways, line)
				}
				return nil
			}
		}
		return errors.New("the console has no such line")
	}); err != nil {
		t.Fatalf("The guest doesn't tell its ways to the world: %v", err)
	}
	s.delete(m)
	s.expectGone(m)
	s.expectNoClaims()
}
