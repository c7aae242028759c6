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
	"cmp"
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

// reconcileAddress gives the machine an address before it boots: there is no event for a lease. The address is written to
// spec.address before anything on a host depends on it, because the spec outlives a restart of the manager and a move to
// another management cluster, and no other machine of the cluster gets it, on whatever host. In a managed network it is
// then reserved; in an existing one the guest gives it to itself.
func (r *LibvirtMachineReconciler) reconcileAddress(ctx context.Context, s *machineScope) error {
	spec := s.libvirtCluster.Spec.Network
	plans, err := network.NewPlans(spec)
	if err != nil {
		return fmt.Errorf("planning addresses: spec.network.%w", err)
	}
	s.plan = plans.For(failureDomain(s.libvirtHost))
	remedy := "make a cluster with a larger spec.network.cidr"
	if network.Existing(spec) {
		remedy = "widen spec.network.nodeRange of the LibvirtCluster"
		err = r.claimAddress(ctx, s, nil)
	} else {
		err = r.reserveAddress(ctx, s)
	}
	var wait *waiting
	switch {
	case errors.As(err, &wait):
		return wait
	case errors.Is(err, network.ErrExhausted):
		return &waiting{reason: infrav1.MachineAddressesExhaustedReason, after: conflictInterval, message: fmt.Sprintf(
			"%s: delete machines, or %s", err, remedy)}
	case errors.Is(err, host.ErrNotFound), errors.Is(err, host.ErrInactive):
		return &waiting{reason: infrav1.MachineClusterNotReadyReason, after: conflictInterval, message: fmt.Sprintf(
			"the network of the cluster isn't up on host %s: see the LibvirtCluster", s.libvirtHost.Name)}
	case err != nil:
		return fmt.Errorf("reserving an address: %w", err)
	}
	r.setAddresses(s)
	return nil
}

// reserveAddress reserves the machine's address in the managed network of its host. A reservation that is there already,
// by the MAC address, is the machine's own from an earlier try. It is looked at again when the network changed, because
// somebody may have removed that and with it all reservations.
func (r *LibvirtMachineReconciler) reserveAddress(ctx context.Context, s *machineScope) error {
	uuid := s.libvirtCluster.Spec.Network.UUID
	key := r.ownedKey(s)
	epoch := r.Events.epoch(key.host, uuid)
	if _, reserved := r.reserved.get(key, epoch); reserved && s.libvirtMachine.Spec.Address != "" && s.domain != nil {
		return nil
	}
	reservation, err := s.host.Reserve(ctx, uuid, network.MAC(s.uuid), hostname(s), func(taken []host.Reservation) (string, error) {
		here := map[string]string{}
		for _, reservation := range taken {
			here[reservation.IP] = reservation.MAC
		}
		if err := r.claimAddress(ctx, s, here); err != nil {
			return "", err
		}
		own := s.libvirtMachine.Spec.Address
		if mac, ok := here[own]; ok {
			return "", addressConflict("the cluster's network on host %s reserves spec.address %s for %s: remove that reservation, or delete the Machine",
				s.libvirtHost.Name, own, mac)
		}
		return own, nil
	})
	if err != nil {
		return err
	}
	if s.libvirtMachine.Spec.Address == "" {
		if err := r.adoptAddress(ctx, s, reservation.IP); err != nil {
			return err
		}
	}
	if own := s.libvirtMachine.Spec.Address; reservation.IP != own {
		s.host.ForgetReservations(uuid)
		return addressConflict("the cluster's network on host %s reserves %s for the machine, and not its spec.address %s: remove that reservation, or delete the Machine",
			s.libvirtHost.Name, reservation.IP, own)
	}
	r.reserved.set(key, epoch, struct{}{})
	return nil
}

// adoptAddress takes an address that was reserved for the machine before it chose one, unless it can't be a machine's: then
// somebody else reserved it.
func (r *LibvirtMachineReconciler) adoptAddress(ctx context.Context, s *machineScope, ip string) error {
	others, err := r.addresses(ctx, s)
	if err != nil {
		return err
	}
	conflict := ""
	if addr, err := netip.ParseAddr(ip); err != nil || !s.plan.Nodes.Contains(addr) {
		conflict = fmt.Sprintf("isn't one of the node addresses, %s", s.plan.Nodes)
	} else if others[ip] != "" {
		conflict = "is that of LibvirtMachine " + others[ip]
	}
	if conflict == "" {
		return r.writeAddress(ctx, s, ip)
	}
	s.host.ForgetReservations(s.libvirtCluster.Spec.Network.UUID)
	return addressConflict("the cluster's network on host %s reserves %s for the machine, which %s: remove that reservation",
		s.libvirtHost.Name, ip, conflict)
}

// claimAddress makes sure that the machine has an address that no other machine of the cluster has. Here are the addresses
// that are taken on its host besides. The address of a machine that has its domain isn't questioned.
func (r *LibvirtMachineReconciler) claimAddress(ctx context.Context, s *machineScope, here map[string]string) error {
	own := s.libvirtMachine.Spec.Address
	if own != "" && s.domain != nil {
		return nil
	}
	others, err := r.addresses(ctx, s)
	if err != nil {
		return err
	}
	pooled, isPooled, err := pooledNodeAddress(s)
	switch {
	case err != nil:
		return err
	case isPooled && own != "" && own != pooled:
		return addressConflict("spec.address %s isn't the address %s that the machine got from its pool: delete the Machine to have it made anew", own, pooled)
	case isPooled && others[pooled] != "":
		return addressConflict("the pool gave %s, which is also the address of LibvirtMachine %s: take it out of the pool, or delete one of the two Machines",
			pooled, others[pooled])
	case isPooled && own == "":
		return r.writeAddress(ctx, s, pooled)
	case isPooled:
		return nil
	case own != "":
		return checkAddress(s, own, others)
	}
	leases := map[string]host.Lease{}
	if s.libvirtCluster.Spec.Network.UUID != "" {
		if leases, err = s.host.Leases(ctx, s.libvirtCluster.Spec.Network.UUID); err != nil {
			return err
		}
	}
	own, err = r.claims.pick(s.cluster, s.uuid, s.plan, internalIP(s.libvirtMachine), func(ip string) bool {
		return here[ip] != "" || others[ip] != ""
	}, func(ip string) bool {
		lease, ok := leases[ip]
		return ok && lease.MAC != network.MAC(s.uuid)
	})
	if err != nil {
		return err
	}
	return r.writeAddress(ctx, s, own)
}

// checkAddress tells whether a machine can have the address of its spec, which somebody else may have written.
func checkAddress(s *machineScope, own string, others map[string]string) error {
	if other := others[own]; other != "" {
		return addressConflict("spec.address %s is also that of LibvirtMachine %s: delete one of the two Machines", own, other)
	}
	if addr, err := netip.ParseAddr(own); err != nil || !s.plan.Nodes.Contains(addr) {
		return addressConflict("spec.address %s isn't one of the node addresses on host %s, %s: delete the Machine to have it made anew",
			own, s.libvirtHost.Name, s.plan.Nodes)
	}
	return nil
}

func addressConflict(format string, args ...any) error {
	return &waiting{reason: infrav1.MachineAddressConflictReason, message: fmt.Sprintf(format, args...), after: conflictInterval}
}

// writeAddress writes the machine's address down. The schema refuses a second one, should the cache be behind.
func (r *LibvirtMachineReconciler) writeAddress(ctx context.Context, s *machineScope, ip string) error {
	written := s.libvirtMachine.DeepCopy()
	written.Spec.Address = ip
	if err := r.Client.Patch(ctx, written, client.MergeFrom(s.libvirtMachine)); err != nil {
		return fmt.Errorf("writing spec.address: %w", err)
	}
	s.libvirtMachine.Spec.Address = ip
	return nil
}

// addresses are those of the cluster's other machines, on all its hosts, with the name of the machine that has each.
func (r *LibvirtMachineReconciler) addresses(ctx context.Context, s *machineScope) (map[string]string, error) {
	var list infrav1.LibvirtMachineList
	if err := r.Client.List(ctx, &list, client.InNamespace(s.cluster.Namespace),
		client.MatchingLabels{clusterv1.ClusterNameLabel: s.cluster.Name}); err != nil {
		return nil, fmt.Errorf("listing LibvirtMachines: %w", err)
	}
	taken := map[string]string{}
	for i := range list.Items {
		m := &list.Items[i]
		if ip := cmp.Or(m.Spec.Address, internalIP(m)); ip != "" && m.UID != s.libvirtMachine.UID {
			taken[ip] = m.Name
		}
	}
	return taken, nil
}

// claims are the addresses that were given out by this process and that the cache may not show yet.
type claims struct {
	mu sync.Mutex
	// byCluster maps a Cluster to its addresses, and each of these to the domain's UUID.
	byCluster map[client.ObjectKey]map[string]string
}

// pick chooses an address that neither taken nor a claim of another domain holds, and claims it: the preferred one if it
// is free, or the one that the domain claimed before. One that lingers, because the DHCP server still keeps it for a guest
// that is gone, is chosen when there is no other: the guest waits until the lease runs out.
func (c *claims) pick(cluster *clusterv1.Cluster, domainUUID string, plan network.Plan, preferred string, taken, lingers func(ip string) bool) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := client.ObjectKeyFromObject(cluster)
	claimed := c.byCluster[key]
	free := func(ip string) bool {
		by, ok := claimed[ip]
		return !taken(ip) && (!ok || by == domainUUID)
	}
	chosen := ""
	if preferred != "" && free(preferred) {
		chosen = preferred
	}
	for ip, by := range claimed {
		if chosen == "" && by == domainUUID && free(ip) {
			chosen = ip
		}
	}
	if chosen == "" {
		addr, err := plan.PickAddress(func(addr netip.Addr) bool { return !free(addr.String()) || lingers(addr.String()) })
		if err != nil {
			addr, err = plan.PickAddress(func(addr netip.Addr) bool { return !free(addr.String()) })
		}
		if err != nil {
			return "", err
		}
		chosen = addr.String()
	}
	if claimed == nil {
		claimed = map[string]string{}
		if c.byCluster == nil {
			c.byCluster = map[client.ObjectKey]map[string]string{}
		}
		c.byCluster[key] = claimed
	}
	claimed[chosen] = domainUUID
	return chosen, nil
}

// release gives up the claims of a domain.
func (c *claims) release(cluster *clusterv1.Cluster, domainUUID string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for ip, by := range c.byCluster[client.ObjectKeyFromObject(cluster)] {
		if by == domainUUID {
			delete(c.byCluster[client.ObjectKeyFromObject(cluster)], ip)
		}
	}
}
