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
	"fmt"
	"net/netip"
	"strings"

	"libvirt.org/go/libvirtxml"

	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/gateway"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/owner"
)

// DefaultMTU of a node network, in bytes.
const DefaultMTU = 1500

// Definition is what the XML of a cluster's network on a host is made from.
type Definition struct {
	UUID  string
	Name  string
	MTU   int32
	Plan  Plan
	Owner owner.Owner
	// Gateway is what the host's agent is told to let in. Without it, libvirt does NAT and lets nobody in.
	Gateway *gateway.Wanted
}

// Forward modes of libvirt. With open, libvirt makes no rules of its own that would reject what is let in.
const (
	forwardNAT  = "nat"
	forwardOpen = "open"
)

// Name of a cluster's network, as virsh shows it. A namespace has no dot, so two clusters never share a name.
func Name(namespace, cluster string) string {
	return namespace + "." + cluster
}

// Bridge is the name of the host's interface in a network, at most 15 characters, from the network's UUID.
func Bridge(networkUUID string) string {
	return "capl-" + strings.ReplaceAll(networkUUID, "-", "")[:10]
}

// RenderNetwork is the XML of a cluster's network: NAT towards the outside, by libvirt or by the host's agent, addresses by
// reservation only, and a second address for the host in the ingress range, without which it would never ask for an address
// there by ARP.
func RenderNetwork(d Definition) (string, error) {
	metadata, mode := d.Owner.Render(), forwardNAT
	if d.Gateway != nil {
		wanted, err := d.Gateway.Render()
		if err != nil {
			return "", fmt.Errorf("rendering network %s: %w", d.Name, err)
		}
		metadata, mode = metadata+wanted, forwardOpen
	}
	mtu := d.MTU
	if mtu == 0 {
		mtu = DefaultMTU
	}
	net := libvirtxml.Network{
		UUID:     d.UUID,
		Name:     d.Name,
		Metadata: &libvirtxml.NetworkMetadata{XML: metadata},
		Forward:  &libvirtxml.NetworkForward{Mode: mode},
		Bridge:   &libvirtxml.NetworkBridge{Name: Bridge(d.UUID), STP: "off", Delay: "0"},
		MTU:      &libvirtxml.NetworkMTU{Size: uint(mtu)},
		IPs: []libvirtxml.NetworkIP{{
			Address: d.Plan.Gateway.String(),
			Prefix:  uint(d.Plan.Prefix.Bits()),
			DHCP:    &libvirtxml.NetworkDHCP{},
		}},
	}
	if d.Plan.Ingress.IsValid() {
		net.IPs = append(net.IPs, libvirtxml.NetworkIP{
			Address: d.Plan.IngressGateway.String(),
			Prefix:  uint(d.Plan.Ingress.Bits()),
		})
	}
	document, err := net.Marshal()
	if err != nil {
		return "", fmt.Errorf("rendering network %s: %w", d.Name, err)
	}
	return document, nil
}

// CheckConflicts tells what stands in the way of a network on a host, given the XML of all networks that are there. The
// network itself, by UUID, never does. The error names the other network and what they share.
func CheckConflicts(d Definition, others []string) error {
	for _, document := range others {
		var other libvirtxml.Network
		if err := other.Unmarshal(document); err != nil {
			return fmt.Errorf("reading the host's networks: %w", err)
		}
		if other.UUID == d.UUID {
			if by, ok := owner.Of(document); !ok || by != d.Owner {
				return fmt.Errorf("network %s has our UUID %s and isn't ours", other.Name, d.UUID)
			}
			continue
		}
		if other.Name == d.Name {
			return fmt.Errorf("a network named %s is already there, with the UUID %s", other.Name, other.UUID)
		}
		if other.Bridge != nil && other.Bridge.Name == Bridge(d.UUID) {
			return fmt.Errorf("network %s already uses the bridge %s", other.Name, other.Bridge.Name)
		}
		for _, prefix := range prefixes(other) {
			for _, ours := range []netip.Prefix{d.Plan.Prefix, d.Plan.Ingress} {
				if ours.IsValid() && ours.Overlaps(prefix) {
					return fmt.Errorf("%s overlaps %s of network %s", ours, prefix, other.Name)
				}
			}
		}
	}
	return nil
}

// Serves tells whether a managed network, given its XML, has the range of the plan.
func Serves(document string, plan Plan) (bool, error) {
	var net libvirtxml.Network
	if err := net.Unmarshal(document); err != nil {
		return false, fmt.Errorf("reading the network: %w", err)
	}
	found := prefixes(net)
	return len(found) > 0 && found[0].Masked() == plan.Prefix, nil
}

// prefixes are the IPv4 ranges of a network's addresses.
func prefixes(net libvirtxml.Network) []netip.Prefix {
	var found []netip.Prefix
	for _, ip := range net.IPs {
		addr, err := netip.ParseAddr(ip.Address)
		if err != nil || !addr.Is4() {
			continue
		}
		bits := int(ip.Prefix)
		if ip.Netmask != "" {
			if mask, err := netip.ParseAddr(ip.Netmask); err == nil && mask.Is4() {
				bits = ones(mask)
			}
		}
		if prefix, err := addr.Prefix(bits); err == nil {
			found = append(found, prefix)
		}
	}
	return found
}

func ones(mask netip.Addr) int {
	n := 0
	for bits := number(mask); bits&(1<<31) != 0; bits <<= 1 {
		n++
	}
	return n
}
