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

// Package network plans the node network of a cluster: which address is for what, the MAC address of each machine, the
// XML of the libvirt network and the network configuration of the guest. It is pure: it neither reads nor changes
// anything.
package network

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
)

// Plan says what the addresses of a node network are for.
type Plan struct {
	// Prefix is the node network.
	Prefix netip.Prefix
	// Gateway is the way out: of a managed network, its first address, which the host has.
	Gateway netip.Addr
	// VIPs are set aside for virtual addresses, the control-plane endpoint among them. There are none in an existing
	// network.
	VIPs Range
	// Nodes are given to machines, by DHCP reservation in a managed network, statically in an existing one.
	Nodes Range
	// Ingress is the range of LoadBalancer Services, invalid when there is none.
	Ingress netip.Prefix
	// IngressGateway is the host's address in Ingress: its first. An existing network has none.
	IngressGateway netip.Addr
	// Nameservers are what machines ask for names; none when DHCP tells them.
	Nameservers []netip.Addr
}

// Range is a range of addresses, both ends included.
type Range struct {
	First, Last netip.Addr
}

// Contains tells whether an address is in the range.
func (r Range) Contains(addr netip.Addr) bool {
	return r.First.Compare(addr) <= 0 && addr.Compare(r.Last) <= 0
}

// Size is the number of addresses in the range.
func (r Range) Size() int {
	return int(number(r.Last) - number(r.First) + 1)
}

// Overlaps tells whether two ranges have an address in common.
func (r Range) Overlaps(other Range) bool {
	return r.First.Compare(other.Last) <= 0 && other.First.Compare(r.Last) <= 0
}

// String is the range as messages show it.
func (r Range) String() string {
	if r.First == r.Last {
		return r.First.String()
	}
	return fmt.Sprintf("%s-%s", r.First, r.Last)
}

// The prefix lengths that are served. A network that is there already may be larger than one that we would make.
const (
	minBits         = 16
	minBitsExisting = 8
	maxBits         = 29
)

// NewPlan plans a managed node network from its two ranges in CIDR form; ingressCIDR may be empty. The error names the
// field, cidr or ingressCIDR, and the remedy.
func NewPlan(cidr, ingressCIDR string) (Plan, error) {
	prefix, err := parsePrefix("cidr", cidr, minBits)
	if err != nil {
		return Plan{}, err
	}
	plan := divide(prefix)
	if ingressCIDR == "" {
		return plan, nil
	}
	ingress, err := parsePrefix("ingressCIDR", ingressCIDR, minBits)
	if err != nil {
		return Plan{}, err
	}
	if ingress.Overlaps(prefix) {
		return Plan{}, &FieldError{Field: "ingressCIDR", Value: ingressCIDR, Detail: fmt.Sprintf(
			"overlaps cidr %s: choose a range beside it, so that DHCP never gives out an address of a Service", cidr)}
	}
	plan.Ingress = ingress
	plan.IngressGateway = address(number(ingress.Addr()) + 1)
	return plan, nil
}

// divide says what the addresses of a managed network are for.
func divide(prefix netip.Prefix) Plan {
	vips := 8
	if prefix.Bits() > 27 {
		vips = 2
	}
	first, last := number(prefix.Addr()), number(broadcast(prefix))
	return Plan{
		Prefix:  prefix,
		Gateway: address(first + 1),
		VIPs:    Range{address(first + 2), address(first + 1 + uint32(vips))},
		Nodes:   Range{address(first + 2 + uint32(vips)), address(last - 1)},
	}
}

// FieldError is a value of a ClusterNetwork that can't be used. Field is its path within spec.network.
type FieldError struct {
	Field, Value, Detail string
}

func (e *FieldError) Error() string {
	return fmt.Sprintf("%s %s: %s", e.Field, e.Value, e.Detail)
}

func parsePrefix(field, value string, minBits int) (netip.Prefix, error) {
	prefix, err := netip.ParsePrefix(value)
	if err != nil || !prefix.Addr().Is4() {
		return netip.Prefix{}, &FieldError{field, value, "is not an IPv4 range: use a form like 10.100.0.0/25"}
	}
	if prefix != prefix.Masked() {
		return netip.Prefix{}, &FieldError{field, value, fmt.Sprintf("has host bits set: use %s", prefix.Masked())}
	}
	if prefix.Bits() < minBits || prefix.Bits() > maxBits {
		return netip.Prefix{}, &FieldError{field, value, fmt.Sprintf(
			"has a prefix length of %d: use one from /%d to /%d", prefix.Bits(), minBits, maxBits)}
	}
	return prefix, nil
}

// Virtual says, for messages, which addresses a control-plane endpoint may have.
func (p Plan) Virtual() string {
	if !p.VIPs.First.IsValid() {
		return fmt.Sprintf("%s that nobody has, outside nodeRange %s", p.Prefix, p.Nodes)
	}
	return p.VIPs.String()
}

// CheckEndpoint tells whether a control-plane endpoint can be served from the network. The error says what is wrong
// with the host and the remedy.
func (p Plan) CheckEndpoint(host string) error {
	addr, err := netip.ParseAddr(host)
	if !p.VIPs.First.IsValid() {
		return p.checkEndpointExisting(host, addr, err)
	}
	switch {
	case err != nil || !addr.Is4():
		return fmt.Errorf("%q is not an IPv4 address: use one of %s", host, p.VIPs)
	case p.VIPs.Contains(addr):
		return nil
	case p.Nodes.Contains(addr):
		return fmt.Errorf("%s lies in the range that DHCP gives to nodes, %s: use one of %s", host, p.Nodes, p.VIPs)
	case addr == p.Gateway:
		return fmt.Errorf("%s is the gateway of the node network: use one of %s", host, p.VIPs)
	case p.Prefix.Contains(addr):
		return fmt.Errorf("%s is the network's own or its broadcast address: use one of %s", host, p.VIPs)
	default:
		return fmt.Errorf("%s is outside the node network %s: use one of %s", host, p.Prefix, p.VIPs)
	}
}

// ErrExhausted says that every node address is taken.
var ErrExhausted = errors.New("every node address is taken")

// PickAddress chooses the lowest node address that isn't taken. It returns ErrExhausted when there is none.
func (p Plan) PickAddress(taken func(netip.Addr) bool) (netip.Addr, error) {
	for addr := p.Nodes.First; p.Nodes.Contains(addr); addr = addr.Next() {
		if !taken(addr) {
			return addr, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("%w: %d of %d in %s", ErrExhausted, p.Nodes.Size(), p.Nodes.Size(), p.Nodes)
}

// broadcast is the last address of a network.
func broadcast(prefix netip.Prefix) netip.Addr {
	return address(number(prefix.Addr()) | (1<<(32-prefix.Bits()) - 1))
}

func number(addr netip.Addr) uint32 {
	four := addr.As4()
	return binary.BigEndian.Uint32(four[:])
}

func address(n uint32) netip.Addr {
	var four [4]byte
	binary.BigEndian.PutUint32(four[:], n)
	return netip.AddrFrom4(four)
}
