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
	"encoding/xml"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"libvirt.org/go/libvirt"
	"libvirt.org/go/libvirtxml"

	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/hosttest"
)

func TestLibvirtdReservations(t *testing.T) {
	lab := hosttest.Libvirtd(t)
	_, h, events := connect(t, socketURI(lab), seldom)
	ctx := testContext(t)
	must(t, h.EnsureNetwork(ctx, networkXML(networkUUID, "nodes", "10.7.0")))
	events.expect(t, Event{Kind: NetworkChanged, UUID: networkUUID})

	// Twenty at once get twenty addresses, for two calls each and libvirt's own.
	before := h.Calls()
	var mu sync.Mutex
	given := map[string]bool{}
	var wg sync.WaitGroup
	mac := func(n int) string { return fmt.Sprintf("52:54:00:00:00:%02x", n) }
	for n := range 20 {
		wg.Go(func() {
			r, err := h.Reserve(ctx, networkUUID, mac(n), fmt.Sprintf("node-%d", n), pickNext)
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			given[r.IP] = true
		})
	}
	wg.Wait()
	if len(given) != 20 {
		t.Errorf("20 machines got %d addresses", len(given))
	}
	if total, list := spent(before, h.Calls()); total != 41 {
		t.Errorf("20 reservations took %d calls: %s", total, list)
	}

	// They are where the running network, its definition and dnsmasq look.
	s, err := h.current()
	must(t, err)
	sides := func() (live, config []Reservation) {
		t.Helper()
		_, running, err := s.networkXML(ctx, networkUUID, 0)
		must(t, err)
		_, definition, err := s.networkXML(ctx, networkUUID, libvirt.NETWORK_XML_INACTIVE)
		must(t, err)
		return reservations(running), reservations(definition)
	}
	live, config := sides()
	if len(live) != 20 || !slices.Equal(live, config) {
		t.Errorf("live %v, definition %v", live, config)
	}
	file, err := os.ReadFile(lab.Path("/var/lib/libvirt/dnsmasq/nodes.hostsfile"))
	if err != nil || strings.Count(string(file), "\n") != 20 {
		t.Errorf("dnsmasq reads %q, %v", file, err)
	}

	// Somebody changes one side only.
	update := func(command libvirt.NetworkUpdateCommand, r Reservation, flags libvirt.NetworkUpdateFlags) {
		t.Helper()
		must(t, s.updateReservation(ctx, networkUUID, command, r, flags))
	}
	update(libvirt.NETWORK_UPDATE_COMMAND_DELETE, live[0], libvirt.NETWORK_UPDATE_AFFECT_LIVE)
	must(t, h.Release(ctx, networkUUID, live[0].MAC))
	update(libvirt.NETWORK_UPDATE_COMMAND_DELETE, live[1], libvirt.NETWORK_UPDATE_AFFECT_CONFIG)
	must(t, h.Release(ctx, networkUUID, live[1].MAC))
	if l, c := sides(); len(l) != 18 || !slices.Equal(l, c) {
		t.Errorf("live %v, definition %v", l, c)
	}
	update(libvirt.NETWORK_UPDATE_COMMAND_DELETE, live[2], libvirt.NETWORK_UPDATE_AFFECT_LIVE)
	again, err := h.Reserve(ctx, networkUUID, live[2].MAC, live[2].Name, pickNext)
	if err != nil || again != live[2] {
		t.Errorf("got %v, %v; want %v back", again, err, live[2])
	}
	l, c := sides()
	if order := func(a, b Reservation) int { return strings.Compare(a.IP, b.IP) }; len(l) != 18 {
		t.Errorf("live %v", l)
	} else if slices.SortFunc(l, order); !slices.Equal(l, slices.SortedFunc(slices.Values(c), order)) {
		t.Errorf("live %v, definition %v", l, c)
	}

	// Defining the network again keeps what was reserved.
	must(t, h.EnsureNetwork(ctx, networkXML(networkUUID, "nodes", "10.7.0")))
	if _, c := sides(); len(c) != 18 {
		t.Errorf("the definition is left with %v", c)
	}

	before = h.Calls()
	must(t, h.Release(ctx, networkUUID, live[3].MAC))
	if total, list := spent(before, h.Calls()); total != 2 {
		t.Errorf("a release took %d calls: %s", total, list)
	}
	must(t, h.Release(ctx, networkUUID, live[3].MAC))

	must(t, doOnNetwork(ctx, s, networkUUID, "networkDestroy", (*libvirt.Network).Destroy))
	if _, err := h.Reserve(ctx, networkUUID, mac(99), "late", pickNext); !errors.Is(err, ErrInactive) {
		t.Errorf("reserving in a stopped network: %v", err)
	}
	must(t, h.Release(ctx, networkUUID, live[4].MAC))
	if left, err := h.Reservations(ctx, networkUUID); err != nil || len(left) != 16 {
		t.Errorf("a stopped network has %v, %v", left, err)
	}
	must(t, h.EnsureNetwork(ctx, networkXML(networkUUID, "nodes", "10.7.0")))
	if _, err := h.Reserve(ctx, networkUUID, mac(99), "late", pickNext); err != nil {
		t.Errorf("once it runs again: %v", err)
	}
	must(t, h.DeleteNetwork(ctx, networkUUID))
}

// TestLibvirtdLeases has a DHCP server keep the addresses of guests that are gone.
func TestLibvirtdLeases(t *testing.T) {
	lab := hosttest.Libvirtd(t)
	_, h, _ := connect(t, socketURI(lab))
	ctx := testContext(t)
	must(t, h.EnsureNetwork(ctx, networkXML(networkUUID, "nodes", "10.7.0")))
	_, parsed, err := func() (string, *libvirtxml.Network, error) {
		s, err := h.current()
		must(t, err)
		return s.networkXML(ctx, networkUUID, 0)
	}()
	must(t, err)
	// What libvirt's helper writes for dnsmasq: one lease that holds, and one that ran out.
	status := fmt.Sprintf(`[{"ip-address": "10.7.0.77", "mac-address": "52:54:00:00:00:77", "expiry-time": %d},
		{"ip-address": "10.7.0.78", "mac-address": "52:54:00:00:00:78", "expiry-time": %d}]`, time.Now().Add(time.Minute).Unix(), time.Now().Add(-time.Minute).Unix())
	must(t, os.WriteFile(lab.Path("/var/lib/libvirt/dnsmasq/"+parsed.Bridge.Name+".status"), []byte(status), 0o644))
	leases, err := h.Leases(ctx, networkUUID)
	if err != nil || len(leases) != 1 || leases["10.7.0.77"].MAC != "52:54:00:00:00:77" {
		t.Errorf("got %v, %v", leases, err)
	}

	before := h.Calls()
	reservation, err := h.Reserve(ctx, networkUUID, "52:54:00:00:00:01", "one", pickNext)
	must(t, err)
	must(t, h.Release(ctx, networkUUID, "52:54:00:00:00:01"))
	leases, err = h.Leases(ctx, networkUUID)
	if err != nil || len(leases) != 2 || leases[reservation.IP].MAC != "52:54:00:00:00:01" || time.Until(leases[reservation.IP].Until) > leaseTime {
		t.Errorf("got %v, %v", leases, err)
	}
	if _, list := spent(before, h.Calls()); strings.Contains(list, "Lease") {
		t.Errorf("the calls were %s", list)
	}
}

func TestLibvirtdNetworkErrors(t *testing.T) {
	_, h, _ := connect(t, socketURI(hosttest.Libvirtd(t)))
	ctx := testContext(t)
	must(t, h.EnsureNetwork(ctx, networkXML(networkUUID, "nodes", "10.7.0")))
	other := "0c5f3bb8-1f0a-4a5b-9d63-000000000002"
	if err := h.EnsureNetwork(ctx, networkXML(other, "nodes", "10.8.0")); !errors.Is(err, ErrExists) {
		t.Errorf("a name that is taken: %v", err)
	}
	// The same range can't be had twice. What is defined and doesn't start is removed again.
	err := h.EnsureNetwork(ctx, networkXML(other, "others", "10.7.0"))
	if err == nil {
		t.Error("two networks with one range")
	}
	t.Logf("libvirt says: %v", err)
	if _, err := h.Network(ctx, other); !errors.Is(err, ErrNotFound) {
		t.Errorf("it is left: %v", err)
	}
	if networks, err := h.Networks(ctx); err != nil || len(networks) != 1 || networks[0].Bridge != "nodes" || !networks[0].Active {
		t.Errorf("got %v, %v", networks, err)
	}
	// One whose guest can't start for want of it is no missing domain.
	var guest libvirtxml.Domain
	must(t, xml.Unmarshal([]byte(domainXML("qemu", 1)), &guest))
	guest.Devices = &libvirtxml.DomainDeviceList{Interfaces: []libvirtxml.DomainInterface{{
		Source: &libvirtxml.DomainInterfaceSource{Network: &libvirtxml.DomainInterfaceSourceNetwork{Network: "missing"}},
	}}}
	definition, err := guest.Marshal()
	must(t, err)
	must(t, h.DefineDomain(ctx, definition))
	err = h.StartDomain(ctx, domainUUID(1))
	if err == nil || errors.Is(err, ErrNotFound) || code(err) != libvirt.ERR_NO_NETWORK {
		t.Errorf("got %v", err)
	}
	must(t, h.DeleteNetwork(ctx, networkUUID))
}

// A network that carries nothing but metadata is defined and defined anew, and never runs.
func TestLibvirtdDefineNetwork(t *testing.T) {
	lab := hosttest.Libvirtd(t)
	_, h, events := connect(t, socketURI(lab), seldom)
	ctx := testContext(t)
	definition := func(uuid, name, text string) string {
		return "<network><name>" + name + "</name><uuid>" + uuid + "</uuid><metadata>" +
			`<x:y xmlns:x="https://example.org/x">` + text + "</x:y></metadata><forward mode='hostdev'/></network>"
	}
	for _, text := range []string{"first", "second"} {
		must(t, h.DefineNetwork(ctx, definition(networkUUID, "carrier", text)))
		events.expect(t, Event{Kind: NetworkChanged, UUID: networkUUID})
		network, err := h.Network(ctx, networkUUID)
		must(t, err)
		if !strings.Contains(network.XML, text) || network.Active || !network.Persistent {
			t.Errorf("after %s it is %+v", text, network)
		}
	}
	const otherUUID = "7a2b7c8e-6f3b-4c1b-9b7e-2d1c7a4e9a12"
	if err := h.DefineNetwork(ctx, definition(otherUUID, "carrier", "")); !errors.Is(err, ErrExists) {
		t.Errorf("with the name of another: %v", err)
	}
	for _, wrong := range []string{"<network", definition("", "carrier", "")} {
		if err := h.DefineNetwork(ctx, wrong); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", wrong, err)
		}
	}
	must(t, h.DeleteNetwork(ctx, networkUUID))
	if err := h.DeleteNetwork(ctx, networkUUID); !errors.Is(err, ErrNotFound) {
		t.Errorf("removed twice: %v", err)
	}
}
