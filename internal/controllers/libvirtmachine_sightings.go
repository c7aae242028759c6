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
	"maps"
	"net/netip"
	"slices"
	"time"

	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	ctrl "sigs.k8s.io/controller-runtime"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/host"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/network"
)

// There is no event for a DHCP lease. A guest is looked at soon after its start, then at growing intervals until each of
// its interfaces has an address, and seldom from then on.
const (
	firstSighting   = 5 * time.Second
	slowestSighting = 5 * time.Minute
	// freshSighting is how long addresses that were seen are believed.
	freshSighting = 10 * time.Minute
)

// glimpse is what was seen of the addresses that a guest got by DHCP in networks that aren't the cluster's.
type glimpse struct {
	// addresses by MAC address. Those of an interface that nobody knows about for the moment stay.
	addresses map[string][]netip.Addr
	complete  bool
	looks     int
	// next is when to look again.
	next time.Time
}

// sightAddresses reports the addresses that a running guest got by DHCP, and returns when to look again; zero when the
// resync is soon enough. A machine without such interfaces costs nothing.
func (r *LibvirtMachineReconciler) sightAddresses(ctx context.Context, s *machineScope) time.Duration {
	macs := dhcpInterfaces(s)
	if len(macs) == 0 || s.domain == nil {
		return 0
	}
	if s.domain.State != host.Running && s.domain.State != host.Blocked {
		r.sightings.forget(s.uuid)
		return 0
	}
	seen, _ := r.sightings.get(s.uuid, 0)
	if rest := time.Until(seen.next); rest > 0 {
		if seen.complete {
			return 0
		}
		return rest
	}
	if seen.looks == 0 && !s.runs {
		// It was started just now and has nothing to show yet.
		r.sightings.set(s.uuid, 0, glimpse{looks: 1, next: time.Now().Add(firstSighting)})
		return firstSighting
	}
	addresses := maps.Clone(seen.addresses)
	if addresses == nil {
		addresses = map[string][]netip.Addr{}
	}
	maps.Copy(addresses, sight(ctx, s, macs))
	seen.addresses = addresses
	interval := min(firstSighting<<min(seen.looks, 10), slowestSighting)
	if seen.complete = len(addresses) == len(macs); seen.complete {
		interval = freshSighting
	}
	seen.looks++
	seen.next = time.Now().Add(interval)
	r.sightings.set(s.uuid, 0, seen)
	r.setAddresses(s)
	if seen.complete {
		return 0
	}
	return interval
}

// dhcpInterfaces are the MAC addresses of the interfaces whose addresses only DHCP knows.
func dhcpInterfaces(s *machineScope) []string {
	var macs []string
	for _, i := range s.libvirtMachine.Spec.Interfaces {
		if network.Addressing(i) == infrav1.InterfaceAddressingDHCP {
			macs = append(macs, network.InterfaceMAC(s.uuid, i))
		}
	}
	return macs
}

// sight asks for the addresses of interfaces by MAC address: the DHCP servers of the host first, then the guest's agent, and
// the host's ARP table last. Each knows some of them, and that one doesn't answer means nothing.
func sight(ctx context.Context, s *machineScope, macs []string) map[string][]netip.Addr {
	found := map[string][]netip.Addr{}
	virtual := virtualPrefixes(s)
	for _, source := range []host.AddressSource{host.AddressFromLease, host.AddressFromAgent, host.AddressFromARP} {
		if len(found) == len(macs) {
			break
		}
		answers, err := s.host.InterfaceAddresses(ctx, s.uuid, source)
		if err != nil {
			ctrl.LoggerFrom(ctx).V(4).Info("Did not see addresses of domain", "host", s.libvirtHost.Name, "domainUUID", s.uuid, "source", source, "err", err.Error())
			continue
		}
		here := map[string][]netip.Addr{}
		for _, answer := range answers {
			addr, err := netip.ParseAddr(answer.IP)
			if err != nil || !slices.Contains(macs, answer.MAC) || len(found[answer.MAC]) > 0 ||
				!network.Seen(addr, answer.Prefix, virtual) || slices.Contains(here[answer.MAC], addr) {
				continue
			}
			here[answer.MAC] = append(here[answer.MAC], addr)
		}
		maps.Copy(found, here)
	}
	return found
}

// virtualPrefixes are the addresses that a guest may carry and that aren't its own: those of the cluster's endpoint, Pods
// and Services.
func virtualPrefixes(s *machineScope) []netip.Prefix {
	values := slices.Concat(s.cluster.Spec.ClusterNetwork.Pods.CIDRBlocks, s.cluster.Spec.ClusterNetwork.Services.CIDRBlocks)
	if ingress := s.libvirtCluster.Spec.Network.IngressCIDR; ingress != "" {
		values = append(values, ingress)
	}
	var virtual []netip.Prefix
	for _, value := range values {
		if prefix, err := netip.ParsePrefix(value); err == nil {
			virtual = append(virtual, prefix)
		}
	}
	if addr, err := netip.ParseAddr(s.libvirtCluster.Spec.ControlPlaneEndpoint.Host); err == nil {
		virtual = append(virtual, netip.PrefixFrom(addr, addr.BitLen()))
	}
	return virtual
}

// maxAddresses is how many addresses of a machine are reported, names included.
const maxAddresses = 32

// setAddresses reports the addresses of a machine, that in the node network first, and the names it goes by. Until its
// guest was looked at by this process, what was reported before stands.
func (r *LibvirtMachineReconciler) setAddresses(s *machineScope) {
	own, others := s.libvirtMachine.Spec.Address, []string{}
	for _, addr := range otherAddresses(s) {
		others = append(others, addr.String())
	}
	if len(dhcpInterfaces(s)) > 0 {
		seen, ok := r.sightings.get(s.uuid, 0)
		for _, mac := range dhcpInterfaces(s) {
			for _, addr := range seen.addresses[mac] {
				others = append(others, addr.String())
			}
		}
		if !ok {
			for _, address := range s.libvirtMachine.Status.Addresses {
				if address.Type == clusterv1.MachineInternalIP {
					others = append(others, address.Address)
				}
			}
		}
	}
	reported := []clusterv1.MachineAddress{{Type: clusterv1.MachineInternalIP, Address: own}}
	for k, ip := range others {
		if ip != own && !slices.Contains(others[:k], ip) && len(reported) < maxAddresses-2 {
			reported = append(reported, clusterv1.MachineAddress{Type: clusterv1.MachineInternalIP, Address: ip})
		}
	}
	reported = append(reported,
		clusterv1.MachineAddress{Type: clusterv1.MachineHostName, Address: hostname(s)},
		clusterv1.MachineAddress{Type: clusterv1.MachineInternalDNS, Address: hostname(s)})
	s.libvirtMachine.Status.Addresses = reported
}
