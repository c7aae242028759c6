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
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
)

// nodeInterface is what the only interface of a machine is called, for want of a name.
const nodeInterface = "cluster"

// GuestInterface is what a guest's network configuration says of one of its interfaces.
type GuestInterface struct {
	// Name of the interface in the configuration, not in the guest.
	Name string
	// MAC address of it.
	MAC string
	// MTU in bytes; zero leaves it alone.
	MTU int32
	// DHCP has the guest ask for an IPv4 address.
	DHCP bool
	// Addresses are what the guest gives itself.
	Addresses []netip.Prefix
	// Gateways are the routers by which the guest reaches the world, one of a family at most.
	Gateways []netip.Addr
	// Nameservers that the guest asks.
	Nameservers []netip.Addr
	// Aside says that the guest reaches the world by another interface: what this network tells of routes and name
	// servers isn't heeded.
	Aside bool
	// Optional says that the guest doesn't wait for this interface while it boots.
	Optional bool
}

// NodeInterface is the interface in the node network, with its MTU in bytes, the default when it is zero. With an address
// the guest gives it to itself, as the plan of the network says; an invalid one leaves it to DHCP.
func NodeInterface(mac string, mtu int32, address netip.Addr, plan Plan) GuestInterface {
	i := GuestInterface{Name: nodeInterface, MAC: mac, MTU: cmp.Or(mtu, DefaultMTU)}
	if !address.IsValid() {
		i.DHCP = true
		return i
	}
	i.Addresses = []netip.Prefix{netip.PrefixFrom(address, plan.Prefix.Bits())}
	i.Gateways = []netip.Addr{plan.Gateway}
	if i.Nameservers = plan.Nameservers; plan.VIPs.First.IsValid() {
		i.Nameservers = []netip.Addr{plan.Gateway} // the host's own, in a managed network
	}
	return i
}

// GuestInterfaces are the interfaces of a guest, given that in the node network and the addresses from pools by the name
// of the interface.
func GuestInterfaces(domainUUID string, interfaces []infrav1.Interface, node GuestInterface, pooled map[string][]StaticAddress) []GuestInterface {
	if len(interfaces) == 0 {
		return []GuestInterface{node}
	}
	guest := make([]GuestInterface, 0, len(interfaces))
	way := DefaultRoute(interfaces)
	for _, i := range interfaces {
		var g GuestInterface
		if i.Source == infrav1.InterfaceSourceCluster {
			g = node
		} else {
			g = GuestInterface{MTU: i.MTU, Optional: i.Name != way, DHCP: Addressing(i) == infrav1.InterfaceAddressingDHCP}
			for _, value := range i.Nameservers {
				if addr, err := netip.ParseAddr(value); err == nil { // as the schema has seen to
					g.Nameservers = append(g.Nameservers, addr)
				}
			}
		}
		g.Name, g.MAC, g.Aside = i.Name, InterfaceMAC(domainUUID, i), i.Name != way
		g.add(pooled[i.Name])
		if g.Aside {
			g.Gateways = nil
		}
		guest = append(guest, g)
	}
	return guest
}

// add gives an interface the addresses of pools. The gateway of a pool comes before that of the plan, and the first of a
// family before others.
func (g *GuestInterface) add(pooled []StaticAddress) {
	var gateways []netip.Addr
	for _, static := range pooled {
		if !slices.ContainsFunc(g.Addresses, func(p netip.Prefix) bool { return p.Addr() == static.Prefix.Addr() }) {
			g.Addresses = append(g.Addresses, static.Prefix)
		}
		if static.Gateway.IsValid() {
			gateways = append(gateways, static.Gateway)
		}
	}
	var chosen []netip.Addr
	for _, gateway := range append(gateways, g.Gateways...) {
		if !slices.ContainsFunc(chosen, func(c netip.Addr) bool { return c.Is4() == gateway.Is4() }) {
			chosen = append(chosen, gateway)
		}
	}
	g.Gateways = chosen
}

// RenderGuestConfig is the network configuration of a guest in cloud-init's version 2 format. Interfaces are matched by
// their MAC addresses and keep the names that the guest gives them. With DHCP the guest identifies itself by that address
// too, because images that share a machine-id would otherwise be one client.
func RenderGuestConfig(interfaces []GuestInterface) []byte {
	var b strings.Builder
	b.WriteString("version: 2\nethernets:\n")
	for _, i := range interfaces {
		fmt.Fprintf(&b, "  %s:\n    match:\n      macaddress: %q\n    dhcp4: %t\n    dhcp6: false\n", i.key(), i.MAC, i.DHCP)
		if i.DHCP {
			b.WriteString("    dhcp-identifier: mac\n")
			if i.Aside {
				b.WriteString("    dhcp4-overrides:\n      use-routes: false\n      use-dns: false\n")
			}
		}
		if i.Aside {
			b.WriteString("    accept-ra: false\n")
		}
		if i.Optional {
			b.WriteString("    optional: true\n")
		}
		if len(i.Addresses) > 0 {
			fmt.Fprintf(&b, "    addresses: [%s]\n", quoted(i.Addresses))
		}
		i.renderRoutes(&b)
		if len(i.Nameservers) > 0 {
			fmt.Fprintf(&b, "    nameservers:\n      addresses: [%s]\n", quoted(i.Nameservers))
		}
		if i.MTU != 0 {
			fmt.Fprintf(&b, "    mtu: %d\n", i.MTU)
		}
	}
	return []byte(b.String())
}

// key is the name as a key of YAML: in quotes, because on, null or 1e3 would be something else.
func (g *GuestInterface) key() string {
	if g.Name == nodeInterface {
		return g.Name
	}
	return strconv.Quote(g.Name)
}

func (g *GuestInterface) renderRoutes(b *strings.Builder) {
	if len(g.Gateways) == 0 {
		return
	}
	b.WriteString("    routes:\n")
	for _, gateway := range g.Gateways {
		if gateway.Is4() {
			fmt.Fprintf(b, "    - to: 0.0.0.0/0\n      via: %s\n", gateway)
		} else {
			fmt.Fprintf(b, "    - to: \"::/0\"\n      via: \"%s\"\n", gateway)
		}
		if !g.onLink(gateway) {
			b.WriteString("      on-link: true\n")
		}
	}
}

// onLink tells whether a gateway is a neighbour by itself: it lies in the network of one of the addresses, or on the link.
func (g *GuestInterface) onLink(gateway netip.Addr) bool {
	return gateway.IsLinkLocalUnicast() || slices.ContainsFunc(g.Addresses, func(p netip.Prefix) bool { return p.Contains(gateway) })
}

// quoted lists what prints itself, each in quotes.
func quoted[T fmt.Stringer](items []T) string {
	list := make([]string, 0, len(items))
	for _, item := range items {
		list = append(list, fmt.Sprintf("%q", item.String()))
	}
	return strings.Join(list, ", ")
}
