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
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"libvirt.org/go/libvirt"
	"libvirt.org/go/libvirtxml"
)

// Reservation is an address that a network's DHCP server keeps for a MAC address.
type Reservation struct {
	MAC, IP, Name string
}

const liveAndConfig = libvirt.NETWORK_UPDATE_AFFECT_LIVE | libvirt.NETWORK_UPDATE_AFFECT_CONFIG

// Reserve returns the network's reservation for a MAC address. If there is none it asks pick for an address, telling
// which are taken, and adds it both to the running network and to its definition. Calls for one network wait for each
// other. ErrInactive: the network does not run.
func (h *Host) Reserve(ctx context.Context, networkUUID, mac, name string, pick func(taken []Reservation) (ip string, err error)) (Reservation, error) {
	s, err := h.current()
	if err != nil {
		return Reservation{}, err
	}
	unlock, err := s.control.lock(ctx, &h.locks, "network "+networkUUID)
	if err != nil {
		return Reservation{}, err
	}
	defer unlock()
	wanted, err := s.reserve(ctx, networkUUID, Reservation{MAC: strings.ToLower(mac), Name: name}, pick)
	if err != nil {
		return Reservation{}, fmt.Errorf("reserving an address for %s in network %s: %w", mac, networkUUID, err)
	}
	return wanted, nil
}

func (s *session) reserve(ctx context.Context, uuid string, wanted Reservation, pick func([]Reservation) (string, error)) (Reservation, error) {
	for repaired := false; ; repaired = true {
		taken, err := s.taken(ctx, uuid)
		if err != nil {
			return Reservation{}, err
		}
		if k := slices.IndexFunc(taken, func(r Reservation) bool { return r.MAC == wanted.MAC }); k >= 0 {
			return taken[k], nil
		}
		if wanted.IP, err = pick(taken); err != nil {
			s.reserved.drop(uuid) // what is in the way may be gone the next time
			return Reservation{}, err
		}
		err = s.updateReservation(ctx, uuid, libvirt.NETWORK_UPDATE_COMMAND_ADD_LAST, wanted, liveAndConfig)
		if err == nil {
			s.reserved.put(uuid, append(slices.Clone(taken), wanted))
			return wanted, nil
		}
		s.reserved.drop(uuid)
		if code(err) != libvirt.ERR_OPERATION_INVALID || repaired {
			return Reservation{}, err
		}
		// Either the network is stopped or its definition holds something that the running network does not.
		if err := s.reconcileReservations(ctx, uuid); err != nil {
			return Reservation{}, err
		}
	}
}

// taken returns the reservations of the running network: as remembered since they were last read, so that a machine
// more doesn't cost a reading more. Others change them only by redefining the network, which is an event, or behind
// libvirt's back, which shows as a refused update.
func (s *session) taken(ctx context.Context, uuid string) ([]Reservation, error) {
	if known, ok := s.reserved.get(uuid); ok {
		return known, nil
	}
	_, parsed, err := s.networkXML(ctx, uuid, 0)
	if err != nil {
		return nil, err
	}
	known := reservations(parsed)
	s.reserved.put(uuid, known)
	return known, nil
}

// reserved remembers the reservations of networks by UUID. The slices are never changed.
type reserved struct {
	mu        sync.Mutex
	byNetwork map[string][]Reservation
}

func (r *reserved) get(uuid string) ([]Reservation, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	known, ok := r.byNetwork[uuid]
	return known, ok
}

func (r *reserved) put(uuid string, known []Reservation) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.byNetwork == nil {
		r.byNetwork = map[string][]Reservation{}
	}
	r.byNetwork[uuid] = known
}

func (r *reserved) drop(uuid string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.byNetwork, uuid)
}

// Release gives a reservation back. One that is not there, or whose network is gone, is fine.
func (h *Host) Release(ctx context.Context, networkUUID, mac string) error {
	s, err := h.current()
	if err != nil {
		return err
	}
	unlock, err := s.control.lock(ctx, &h.locks, "network "+networkUUID)
	if err != nil {
		return err
	}
	defer unlock()
	if err := s.unreserve(ctx, networkUUID, strings.ToLower(mac)); err != nil && !errors.Is(err, ErrNotFound) {
		return fmt.Errorf("releasing the address of %s in network %s: %w", mac, networkUUID, err)
	}
	return nil
}

func (s *session) unreserve(ctx context.Context, uuid, mac string) error {
	known, _ := s.reserved.get(uuid)
	gone := ""
	if k := slices.IndexFunc(known, func(r Reservation) bool { return r.MAC == mac }); k >= 0 {
		gone = known[k].IP
	}
	err := s.updateReservation(ctx, uuid, libvirt.NETWORK_UPDATE_COMMAND_DELETE, Reservation{MAC: mac}, liveAndConfig)
	s.leases.keep(uuid, mac, gone)
	if err == nil {
		if known, ok := s.reserved.get(uuid); ok {
			s.reserved.put(uuid, slices.DeleteFunc(slices.Clone(known), func(r Reservation) bool { return r.MAC == mac }))
		}
		return nil
	}
	s.reserved.drop(uuid)
	if code(err) != libvirt.ERR_OPERATION_INVALID {
		return err
	}
	// It is missing in one of the two, or in both, or the network is stopped.
	for _, side := range []struct {
		read   libvirt.NetworkXMLFlags
		update libvirt.NetworkUpdateFlags
	}{{0, libvirt.NETWORK_UPDATE_AFFECT_CURRENT}, {libvirt.NETWORK_XML_INACTIVE, libvirt.NETWORK_UPDATE_AFFECT_CONFIG}} {
		_, parsed, err := s.networkXML(ctx, uuid, side.read)
		if err != nil {
			return err
		}
		for _, r := range reservations(parsed) {
			if r.MAC != mac {
				continue
			}
			if err := s.updateReservation(ctx, uuid, libvirt.NETWORK_UPDATE_COMMAND_DELETE, r, side.update); err != nil {
				return err
			}
		}
	}
	return nil
}

// ForgetReservations has the reservations of a network read anew the next time. That somebody took one away is no event.
func (h *Host) ForgetReservations(networkUUID string) {
	if s, err := h.current(); err == nil {
		s.reserved.drop(networkUUID)
	}
}

// Reservations returns the reservations of a network.
func (h *Host) Reservations(ctx context.Context, networkUUID string) ([]Reservation, error) {
	s, err := h.current()
	if err != nil {
		return nil, err
	}
	_, parsed, err := s.networkXML(ctx, networkUUID, 0)
	if err != nil {
		return nil, fmt.Errorf("reading the reservations of network %s: %w", networkUUID, err)
	}
	return reservations(parsed), nil
}

func (s *session) updateReservation(ctx context.Context, uuid string, command libvirt.NetworkUpdateCommand, r Reservation, flags libvirt.NetworkUpdateFlags) error {
	host, err := xml.Marshal(struct {
		XMLName xml.Name `xml:"host"`
		MAC     string   `xml:"mac,attr,omitempty"`
		Name    string   `xml:"name,attr,omitempty"`
		IP      string   `xml:"ip,attr,omitempty"`
	}{MAC: r.MAC, Name: r.Name, IP: r.IP})
	if err != nil {
		return fmt.Errorf("writing a reservation: %w", err)
	}
	return doOnNetwork(ctx, s, uuid, "networkUpdate", func(net *libvirt.Network) error {
		s.control.calls.add("connectSupportsFeature") // libvirt asks each time for the order of the next call's arguments
		return net.Update(command, libvirt.NETWORK_SECTION_IP_DHCP_HOST, -1, string(host), flags)
	})
}

// reconcileReservations makes the running network and its definition agree. It is ErrInactive if the network is stopped.
func (s *session) reconcileReservations(ctx context.Context, uuid string) error {
	active, err := onNetwork(ctx, s, uuid, "networkIsActive", (*libvirt.Network).IsActive)
	if err != nil {
		return err
	}
	if !active {
		return fmt.Errorf("%w: start the network first", ErrInactive)
	}
	_, live, err := s.networkXML(ctx, uuid, 0)
	if err != nil {
		return err
	}
	_, config, err := s.networkXML(ctx, uuid, libvirt.NETWORK_XML_INACTIVE)
	if err != nil {
		return err
	}
	for _, f := range divergence(reservations(live), reservations(config)) {
		if err := s.updateReservation(ctx, uuid, f.command, f.reservation, f.flags); err != nil {
			return fmt.Errorf("repairing the reservations: %w", err)
		}
	}
	return nil
}

// fix is one update that brings the running network and its definition together.
type fix struct {
	command     libvirt.NetworkUpdateCommand
	reservation Reservation
	flags       libvirt.NetworkUpdateFlags
}

// divergence lists what to do so that both hold the same. Guests use what the running network has, so it wins where the
// two contradict each other.
func divergence(live, config []Reservation) []fix {
	var fixes []fix
	for _, c := range config {
		if slices.Contains(live, c) {
			continue
		}
		if slices.ContainsFunc(live, func(l Reservation) bool { return clash(l, c) }) {
			fixes = append(fixes, fix{libvirt.NETWORK_UPDATE_COMMAND_DELETE, c, libvirt.NETWORK_UPDATE_AFFECT_CONFIG})
		} else {
			fixes = append(fixes, fix{libvirt.NETWORK_UPDATE_COMMAND_ADD_LAST, c, libvirt.NETWORK_UPDATE_AFFECT_LIVE})
		}
	}
	for _, l := range live {
		if !slices.Contains(config, l) {
			fixes = append(fixes, fix{libvirt.NETWORK_UPDATE_COMMAND_ADD_LAST, l, libvirt.NETWORK_UPDATE_AFFECT_CONFIG})
		}
	}
	return fixes
}

// clash reports whether libvirt refuses to hold both reservations.
func clash(a, b Reservation) bool {
	return a.MAC == b.MAC || a.IP == b.IP || (a.Name != "" && a.Name == b.Name)
}

// reservations reads the reservations out of a network's XML.
func reservations(network *libvirtxml.Network) []Reservation {
	var found []Reservation
	for _, ip := range network.IPs {
		if ip.DHCP == nil {
			continue
		}
		for _, host := range ip.DHCP.Hosts {
			found = append(found, Reservation{MAC: strings.ToLower(host.MAC), IP: host.IP, Name: host.Name})
		}
	}
	return found
}

// keepReservations carries the reservations of an existing network over to its new definition, as far as they don't
// contradict it, and reports whether there were any to carry.
func keepReservations(wanted, existing *libvirtxml.Network) bool {
	var dhcp *libvirtxml.NetworkDHCP
	for k := range wanted.IPs {
		if dhcp = wanted.IPs[k].DHCP; dhcp != nil {
			break
		}
	}
	if dhcp == nil {
		return false
	}
	kept := false
	for _, r := range reservations(existing) {
		if slices.ContainsFunc(reservations(wanted), func(w Reservation) bool { return clash(w, r) }) {
			continue
		}
		dhcp.Hosts = append(dhcp.Hosts, libvirtxml.NetworkDHCPHost{MAC: r.MAC, IP: r.IP, Name: r.Name})
		kept = true
	}
	return kept
}
