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

package network

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"libvirt.org/go/libvirtxml"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
)

// newExistingPlan plans the addresses of an existing network: machines get those of its nodeRange. The error names the
// field and the remedy.
func newExistingPlan(spec infrav1.ClusterNetwork) (Plan, error) {
	prefix, err := parsePrefix("cidr", spec.CIDR, minBitsExisting)
	if err != nil {
		return Plan{}, err
	}
	plan := Plan{Prefix: prefix}
	if plan.Gateway, err = netip.ParseAddr(spec.Gateway); err != nil || !plan.hasHost(plan.Gateway) {
		return Plan{}, &FieldError{"gateway", spec.Gateway, fmt.Sprintf(
			"is not an address of cidr %s: use that of the network's router", prefix)}
	}
	if plan.Nodes, err = parseRange(spec.NodeRange); err != nil {
		return Plan{}, &FieldError{"nodeRange", spec.NodeRange, err.Error()}
	}
	if spec.IngressCIDR != "" {
		if plan.Ingress, err = parsePrefix("ingressCIDR", spec.IngressCIDR, minBits); err != nil {
			return Plan{}, err
		}
	}
	switch {
	case !plan.hasHost(plan.Nodes.First) || !plan.hasHost(plan.Nodes.Last):
		return Plan{}, &FieldError{"nodeRange", spec.NodeRange, fmt.Sprintf("lies outside cidr: use addresses of %s",
			Range{prefix.Addr().Next(), broadcast(prefix).Prev()})}
	case plan.Nodes.Contains(plan.Gateway):
		return Plan{}, &FieldError{"nodeRange", spec.NodeRange, fmt.Sprintf(
			"contains the gateway %s: end before it, or begin after it", plan.Gateway)}
	case plan.Ingress.IsValid() && plan.Nodes.Overlaps(rangeOf(plan.Ingress)):
		return Plan{}, &FieldError{"ingressCIDR", spec.IngressCIDR, fmt.Sprintf(
			"overlaps nodeRange %s: choose a range beside it, so that no node gets an address of a Service", plan.Nodes)}
	case plan.Ingress.IsValid() && plan.Ingress.Contains(plan.Gateway):
		return Plan{}, &FieldError{"ingressCIDR", spec.IngressCIDR, fmt.Sprintf(
			"contains the gateway %s: choose a range without it", plan.Gateway)}
	}
	for i, value := range spec.Nameservers {
		addr, err := netip.ParseAddr(value)
		if err != nil || addr.Zone() != "" {
			return Plan{}, &FieldError{fmt.Sprintf("nameservers[%d]", i), value, "is not an IP address: use one like 192.168.1.1"}
		}
		plan.Nameservers = append(plan.Nameservers, addr)
	}
	return plan, nil
}

// hasHost tells whether a machine of the network can have an address.
func (p Plan) hasHost(addr netip.Addr) bool {
	return p.Prefix.Contains(addr) && addr != p.Prefix.Addr() && addr != broadcast(p.Prefix)
}

// parseRange reads a range of the form first-last. The error says what is wrong and the remedy.
func parseRange(value string) (Range, error) {
	first, last, ok := strings.Cut(value, "-")
	from, err := netip.ParseAddr(first)
	to, err2 := netip.ParseAddr(last)
	if !ok || err != nil || err2 != nil || !from.Is4() || !to.Is4() {
		return Range{}, errors.New("is not a range of IPv4 addresses: use a form like 192.168.1.100-192.168.1.149")
	}
	if to.Less(from) {
		return Range{}, fmt.Errorf("ends before it begins: use %s-%s", to, from)
	}
	return Range{from, to}, nil
}

func rangeOf(prefix netip.Prefix) Range {
	return Range{prefix.Addr(), broadcast(prefix)}
}

// checkEndpointExisting is CheckEndpoint in an existing network, where any address may be virtual that isn't somebody's.
func (p Plan) checkEndpointExisting(host string, addr netip.Addr, err error) error {
	remedy := "use an address of " + p.Virtual()
	switch {
	case err != nil || !addr.Is4():
		return fmt.Errorf("%q is not an IPv4 address: %s", host, remedy)
	case p.Nodes.Contains(addr):
		return fmt.Errorf("%s lies in the range that nodes get addresses from, spec.network.nodeRange %s: use an address outside it", host, p.Nodes)
	case addr == p.Gateway:
		return fmt.Errorf("%s is the gateway of the node network: %s", host, remedy)
	case p.Ingress.IsValid() && p.Ingress.Contains(addr):
		return fmt.Errorf("%s lies in the range of LoadBalancer Services, spec.network.ingressCIDR %s: %s", host, p.Ingress, remedy)
	case p.hasHost(addr):
		return nil
	case p.Prefix.Contains(addr):
		return fmt.Errorf("%s is the network's own or its broadcast address: %s", host, remedy)
	default:
		return fmt.Errorf("%s is outside the node network %s: %s", host, p.Prefix, remedy)
	}
}

// CheckExisting tells what in an existing libvirt network, given its XML, stands in the way of the addresses that a
// cluster takes there: those of its nodes, of its Services and its control-plane endpoint. The error is a *FieldError,
// whose field is a path within the spec of the cluster.
func CheckExisting(plan Plan, endpoint, document string) error {
	var net libvirtxml.Network
	if err := net.Unmarshal(document); err != nil {
		return fmt.Errorf("reading the network: %w", err)
	}
	own := map[string]Range{"network.nodeRange": plan.Nodes}
	if plan.Ingress.IsValid() {
		own["network.ingressCIDR"] = rangeOf(plan.Ingress)
	}
	if addr, err := netip.ParseAddr(endpoint); err == nil {
		own["controlPlaneEndpoint.host"] = Range{addr, addr}
	}
	for _, field := range slices.Sorted(maps.Keys(own)) {
		if detail := takenIn(net, own[field]); detail != "" {
			return &FieldError{field, own[field].String(), detail}
		}
	}
	return nil
}

// takenIn says who has an address of a range in a libvirt network, and the remedy. It is empty when nobody has.
func takenIn(net libvirtxml.Network, own Range) string {
	for _, ip := range net.IPs {
		if addr, err := netip.ParseAddr(ip.Address); err == nil && own.Contains(addr) {
			return fmt.Sprintf("contains %s, the host's own address in network %s: choose another", addr, net.Name)
		}
		if ip.DHCP == nil {
			continue
		}
		for _, dhcp := range ip.DHCP.Ranges {
			if given, err := parseRange(dhcp.Start + "-" + dhcp.End); err == nil && own.Overlaps(given) {
				return fmt.Sprintf("overlaps %s, which DHCP gives out in network %s: choose another, or change that range with virsh net-edit %s",
					given, net.Name, net.Name)
			}
		}
		for _, host := range ip.DHCP.Hosts {
			if addr, err := netip.ParseAddr(host.IP); err == nil && own.Contains(addr) {
				return fmt.Sprintf("contains %s, which DHCP reserves for %s in network %s: choose another, or remove the reservation",
					addr, cmp.Or(host.MAC, host.Name, host.ID), net.Name)
			}
		}
	}
	return ""
}
