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
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"time"

	"libvirt.org/go/libvirt"
)

// leaseTime is for how long a guest that asks libvirt's DHCP server gets its address.
const leaseTime = time.Hour

// Lease is an address that a network's DHCP server gave to a guest.
type Lease struct {
	MAC   string
	Until time.Time
}

// Leases returns the leases of a network that haven't run out, by address. The server keeps them for guests that are
// gone, and gives their addresses to nobody else meanwhile, whatever is reserved. They are read once in the life of a
// connection; of later ones those are known that Release took the reservation away from.
func (h *Host) Leases(ctx context.Context, networkUUID string) (map[string]Lease, error) {
	s, err := h.current()
	if err != nil {
		return nil, err
	}
	if known, ok := s.leases.get(networkUUID); ok {
		return known, nil
	}
	found, err := onNetwork(ctx, s, networkUUID, "networkGetDHCPLeases", (*libvirt.Network).GetDHCPLeases)
	if err != nil && !errors.Is(err, ErrUnsupported) {
		return nil, fmt.Errorf("reading the DHCP leases of network %s: %w", networkUUID, err)
	}
	read := map[string]Lease{}
	for _, l := range found {
		read[l.IPaddr] = Lease{MAC: strings.ToLower(l.Mac), Until: l.ExpiryTime}
	}
	s.leases.put(networkUUID, read)
	known, _ := s.leases.get(networkUUID)
	return known, nil
}

// leases remembers the leases of networks by UUID and address.
type leases struct {
	mu        sync.Mutex
	byNetwork map[string]map[string]Lease
}

// get returns those that haven't run out.
func (l *leases) get(uuid string) (map[string]Lease, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	known, ok := l.byNetwork[uuid]
	maps.DeleteFunc(known, func(_ string, lease Lease) bool { return time.Now().After(lease.Until) })
	return maps.Clone(known), ok
}

func (l *leases) put(uuid string, read map[string]Lease) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.byNetwork == nil {
		l.byNetwork = map[string]map[string]Lease{}
	}
	l.byNetwork[uuid] = read
}

// keep notes that a guest which may have a lease is gone. Without its address they are read anew.
func (l *leases) keep(uuid, mac, ip string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	known, ok := l.byNetwork[uuid]
	switch {
	case ok && ip != "":
		known[ip] = Lease{MAC: mac, Until: time.Now().Add(leaseTime)}
	case ok:
		delete(l.byNetwork, uuid)
	}
}
