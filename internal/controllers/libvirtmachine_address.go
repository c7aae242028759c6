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
	"net/netip"
	"sync"

	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/host"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/network"
)

// reconcileAddress reserves the machine's address in the network of its host, before it boots: there is no event for a
// lease. A reservation that is there already, by the MAC address, is the machine's own from an earlier try. It is looked
// at again when the network changed, because somebody may have removed that and with it all reservations.
func (r *LibvirtMachineReconciler) reconcileAddress(ctx context.Context, s *machineScope) error {
	spec := s.libvirtCluster.Spec.Network
	key := r.ownedKey(s)
	epoch := r.Events.epoch(key.host, spec.UUID)
	own := internalIP(s.libvirtMachine)
	if _, reserved := r.reserved.get(key, epoch); reserved && own != "" && s.domain != nil {
		return nil
	}
	plan, err := network.NewPlan(spec.CIDR, spec.IngressCIDR)
	if err != nil {
		return fmt.Errorf("planning addresses: spec.network.%w", err)
	}
	elsewhere, err := r.addresses(ctx, s)
	if err != nil {
		return err
	}
	reservation, err := s.host.Reserve(ctx, spec.UUID, network.MAC(s.uuid), s.machine.Name, func(taken []host.Reservation) (string, error) {
		here := map[string]bool{}
		for _, reservation := range taken {
			here[reservation.IP] = true
		}
		if own != "" && !here[own] && !elsewhere[own] {
			return own, nil
		}
		return r.claims.pick(spec.UUID, s.uuid, plan, func(ip string) bool { return here[ip] || elsewhere[ip] })
	})
	switch {
	case errors.Is(err, network.ErrExhausted):
		return &waiting{reason: infrav1.MachineAddressesExhaustedReason, message: fmt.Sprintf(
			"%s: delete machines, or make a cluster with a larger spec.network.cidr", err), after: conflictInterval}
	case errors.Is(err, host.ErrNotFound), errors.Is(err, host.ErrInactive):
		return &waiting{reason: infrav1.MachineClusterNotReadyReason, after: conflictInterval, message: fmt.Sprintf(
			"the network of the cluster isn't up on host %s: see the LibvirtCluster", s.libvirtHost.Name)}
	case err != nil:
		return fmt.Errorf("reserving an address: %w", err)
	}
	r.reserved.set(key, epoch, struct{}{})
	setAddress(s, reservation.IP)
	return nil
}

// addresses are those of the cluster's machines on all its hosts: the networks of a cluster share one range, so that
// they can be tied together.
func (r *LibvirtMachineReconciler) addresses(ctx context.Context, s *machineScope) (map[string]bool, error) {
	var list infrav1.LibvirtMachineList
	if err := r.Client.List(ctx, &list, client.InNamespace(s.cluster.Namespace),
		client.MatchingLabels{clusterv1.ClusterNameLabel: s.cluster.Name}); err != nil {
		return nil, fmt.Errorf("listing LibvirtMachines: %w", err)
	}
	taken := map[string]bool{}
	for i := range list.Items {
		if list.Items[i].UID == s.libvirtMachine.UID {
			continue
		}
		if ip := internalIP(&list.Items[i]); ip != "" {
			taken[ip] = true
		}
	}
	return taken, nil
}

// claims are the addresses that were given out a moment ago and that the status of their machine may not show yet.
type claims struct {
	mu sync.Mutex
	// byNetwork maps a network's UUID to its addresses, and each of these to the domain's UUID.
	byNetwork map[string]map[string]string
}

// pick chooses an address that neither taken nor an earlier claim of another domain holds, and claims it.
func (c *claims) pick(networkUUID, domainUUID string, plan network.Plan, taken func(ip string) bool) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	claimed := c.byNetwork[networkUUID]
	addr, err := plan.PickAddress(func(addr netip.Addr) bool {
		by, ok := claimed[addr.String()]
		return taken(addr.String()) || (ok && by != domainUUID)
	})
	if err != nil {
		return "", err
	}
	if claimed == nil {
		claimed = map[string]string{}
		if c.byNetwork == nil {
			c.byNetwork = map[string]map[string]string{}
		}
		c.byNetwork[networkUUID] = claimed
	}
	claimed[addr.String()] = domainUUID
	return addr.String(), nil
}

// release gives up the claims of a domain.
func (c *claims) release(networkUUID, domainUUID string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for ip, by := range c.byNetwork[networkUUID] {
		if by == domainUUID {
			delete(c.byNetwork[networkUUID], ip)
		}
	}
}
