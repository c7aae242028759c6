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
	"slices"
	"strings"
	"testing"

	ipamv1 "sigs.k8s.io/cluster-api/api/ipam/v1beta2"
	"sigs.k8s.io/yaml"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/xmltest"
)

const interfacesUUID = "7d3f0a52-62a5-4b3b-9d1f-0c1f5a3c9f10"

func inCluster(edits ...func(*infrav1.Interface)) infrav1.Interface {
	return plugged("nodes", infrav1.InterfaceSourceCluster, edits...)
}

func plugged(name string, source infrav1.InterfaceSource, edits ...func(*infrav1.Interface)) infrav1.Interface {
	i := infrav1.Interface{Name: name, Source: source}
	for _, edit := range edits {
		edit(&i)
	}
	return i
}

func addressing(value infrav1.InterfaceAddressing) func(*infrav1.Interface) {
	return func(i *infrav1.Interface) {
		if i.Addressing = value; value == infrav1.InterfaceAddressingIPAM {
			i.AddressesFromPools = []ipamv1.IPPoolReference{{APIGroup: "ipam.example.org", Kind: "Pool", Name: "pool"}}
		}
	}
}

func route(value infrav1.DefaultRoute) func(*infrav1.Interface) {
	return func(i *infrav1.Interface) { i.DefaultRoute = value }
}

func TestDefaultRoute(t *testing.T) {
	lan := infrav1.InterfaceSourceBridge
	for name, tt := range map[string]struct {
		interfaces []infrav1.Interface
		want       string
	}{
		"none are listed":           {nil, ""},
		"the first":                 {[]infrav1.Interface{inCluster(), plugged("lan", lan)}, "nodes"},
		"the first, another":        {[]infrav1.Interface{plugged("lan", lan), inCluster()}, "lan"},
		"the one that says so":      {[]infrav1.Interface{inCluster(), plugged("lan", lan, route(infrav1.DefaultRouteUse))}, "lan"},
		"the first with an address": {[]infrav1.Interface{plugged("lan", lan, addressing(infrav1.InterfaceAddressingNone)), inCluster()}, "nodes"},
		"nobody wants it":           {[]infrav1.Interface{inCluster(route(infrav1.DefaultRouteIgnore)), plugged("lan", lan)}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			if got := DefaultRoute(tt.interfaces); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestInterfaceMAC(t *testing.T) {
	storage := plugged("storage", infrav1.InterfaceSourceNetwork)
	own := InterfaceMAC(interfacesUUID, storage)
	if own != InterfaceMAC(interfacesUUID, storage) || !strings.HasPrefix(own, "52:") || len(own) != 17 {
		t.Errorf("got %s", own)
	}
	for name, other := range map[string]string{
		"the cluster's":        InterfaceMAC(interfacesUUID, inCluster()),
		"another interface's":  InterfaceMAC(interfacesUUID, plugged("storage2", infrav1.InterfaceSourceNetwork)),
		"of another machine":   InterfaceMAC("11111111-1111-4111-8111-111111111111", storage),
		"that a user wanted":   InterfaceMAC(interfacesUUID, plugged("storage", infrav1.InterfaceSourceNetwork, func(i *infrav1.Interface) { i.MACAddress = "52:54:00:00:00:01" })),
		"of a name swallowed?": InterfaceMAC(interfacesUUID, plugged("storage/7", infrav1.InterfaceSourceNetwork)),
	} {
		if other == own {
			t.Errorf("%s is %s too", name, own)
		}
	}
	if got := InterfaceMAC(interfacesUUID, inCluster()); got != MAC(interfacesUUID) {
		t.Errorf("the address in the cluster network is %s, its reservation is for %s", got, MAC(interfacesUUID))
	}
}

func TestParseStaticAddress(t *testing.T) {
	for _, tt := range []struct {
		address string
		prefix  int32
		gateway string
		want    string
	}{
		{"192.168.7.10", 24, "192.168.7.1", "192.168.7.10/24 via 192.168.7.1"},
		{"192.168.7.10", 24, "", "192.168.7.10/24 via invalid IP"},
		{"2001:db8::A", 64, "fe80::1", "2001:db8::a/64 via fe80::1"},
		{"::ffff:192.168.7.10", 24, "", "192.168.7.10/24 via invalid IP"},
		{"node-1", 24, "", `"node-1" is not an IP address`},
		{"fe80::1%eth0", 64, "", `"fe80::1%eth0" is not an IP address`},
		{"127.0.0.1", 8, "", "127.0.0.1 is not an address that a machine can have"},
		{"fe80::1", 64, "", "fe80::1 is not an address that a machine can have"},
		{"192.168.7.10", 33, "", "192.168.7.10 has a prefix length of 33"},
		{"192.168.7.10", 0, "", "192.168.7.10 has a prefix length of 0"},
		{"192.168.7.10", 24, "2001:db8::1", `192.168.7.10 has the gateway "2001:db8::1", which is not an address of the same family`},
		{"192.168.7.10", 24, "192.168.7.10", "192.168.7.10 is its own gateway"},
	} {
		static, err := ParseStaticAddress(tt.address, tt.prefix, tt.gateway)
		got := static.Prefix.String() + " via " + static.Gateway.String()
		if err != nil {
			got = err.Error()
		}
		if got != tt.want {
			t.Errorf("%s/%d via %q: got %q, want %q", tt.address, tt.prefix, tt.gateway, got, tt.want)
		}
	}
}

func TestSeen(t *testing.T) {
	virtual := []netip.Prefix{netip.MustParsePrefix("10.100.0.2/32"), netip.MustParsePrefix("172.16.0.0/16")}
	for _, tt := range []struct {
		addr string
		bits int
		want bool
	}{
		{"192.168.7.10", 24, true},
		{"192.168.7.10", 0, true}, // as ARP tells
		{"2001:db8::10", 128, true},
		{"192.168.7.99", 32, false}, // a virtual address that the guest carries
		{"10.100.0.2", 25, false},
		{"172.16.3.4", 16, false},
		{"127.0.0.1", 8, false},
		{"fe80::5054:ff:fe00:1", 64, false},
		{"169.254.3.4", 16, false},
	} {
		if got := Seen(netip.MustParseAddr(tt.addr), tt.bits, virtual); got != tt.want {
			t.Errorf("%s/%d: got %t", tt.addr, tt.bits, got)
		}
	}
}

// guestConfig is the part of a network configuration that the tests look at.
type guestConfig struct {
	Ethernets map[string]struct {
		Match     struct{ MACAddress string }
		SetName   string `json:"set-name"`
		DHCP4     bool
		Addresses []string
		Routes    []struct{ To, Via string }
	}
}

func TestRenderSeveralInterfaces(t *testing.T) {
	managed, err := NewPlan("10.100.0.0/25", "")
	if err != nil {
		t.Fatal(err)
	}
	existing, err := NewPlans(lan())
	if err != nil {
		t.Fatal(err)
	}
	static := func(address string, bits int32, gateway string) StaticAddress {
		parsed, err := ParseStaticAddress(address, bits, gateway)
		if err != nil {
			t.Fatal(err)
		}
		return parsed
	}
	network, bridge := infrav1.InterfaceSourceNetwork, infrav1.InterfaceSourceBridge
	for name, tt := range map[string]struct {
		interfaces []infrav1.Interface
		node       GuestInterface
		pooled     map[string][]StaticAddress
		// ways are the routes to the world that the guest is told of.
		ways []string
	}{
		"network-config-several.yaml": {
			interfaces: []infrav1.Interface{
				inCluster(),
				plugged("storage", network, func(i *infrav1.Interface) { i.MTU = 9000 }),
				plugged("on", bridge, addressing(infrav1.InterfaceAddressingNone)),
				plugged("dmz", bridge, addressing(infrav1.InterfaceAddressingIPAM), func(i *infrav1.Interface) { i.Nameservers = []string{"192.168.7.3"} }),
			},
			node:   NodeInterface(MAC(interfacesUUID), 0, netip.MustParseAddr("10.100.0.10"), managed),
			pooled: map[string][]StaticAddress{"dmz": {static("192.168.7.10", 24, "192.168.7.1"), static("2001:db8::10", 64, "2001:db8::1")}},
			ways:   []string{"0.0.0.0/0 via 10.100.0.1"},
		},
		"network-config-way.yaml": {
			interfaces: []infrav1.Interface{
				inCluster(),
				plugged("dmz", bridge, addressing(infrav1.InterfaceAddressingIPAM), route(infrav1.DefaultRouteUse)),
			},
			node: NodeInterface(MAC(interfacesUUID), 1420, netip.MustParseAddr("10.100.0.10"), managed),
			pooled: map[string][]StaticAddress{"dmz": {
				static("192.168.7.10", 24, "192.168.8.1"), static("2001:db8::10", 64, "2001:db8::1"), static("192.168.9.10", 24, "192.168.9.1"),
			}},
			ways: []string{"0.0.0.0/0 via 192.168.8.1", "::/0 via 2001:db8::1"},
		},
		"network-config-pool.yaml": {
			interfaces: []infrav1.Interface{inCluster(addressing(infrav1.InterfaceAddressingIPAM))},
			node:       NodeInterface(MAC(interfacesUUID), 0, netip.MustParseAddr("192.168.1.60"), existing.Main),
			pooled:     map[string][]StaticAddress{"nodes": {static("192.168.1.60", 24, "192.168.1.2"), static("2001:db8:1::60", 64, "fe80::1")}},
			ways:       []string{"0.0.0.0/0 via 192.168.1.2", "::/0 via fe80::1"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			guest := GuestInterfaces(interfacesUUID, tt.interfaces, tt.node, tt.pooled)
			rendered := RenderGuestConfig(guest)
			xmltest.Golden(t, name, string(rendered))
			var networkd strings.Builder
			for _, i := range guest {
				file, content := RenderNetworkd(i)
				fmt.Fprintf(&networkd, "# %s\n%s\n", file, content)
			}
			xmltest.Golden(t, strings.TrimSuffix(name, "yaml")+"network", networkd.String())
			var parsed guestConfig
			if err := yaml.UnmarshalStrict(rendered, &struct {
				Version   int            `json:"version"`
				Ethernets map[string]any `json:"ethernets"`
			}{}); err != nil {
				t.Fatal(err)
			}
			if err := yaml.Unmarshal(rendered, &parsed); err != nil {
				t.Fatal(err)
			}
			var ways []string
			for _, i := range tt.interfaces {
				g, ok := parsed.Ethernets[i.Name]
				if !ok || g.Match.MACAddress != InterfaceMAC(interfacesUUID, i) || g.SetName != "" {
					t.Errorf("%s is %+v", i.Name, g)
				}
				for _, r := range g.Routes {
					ways = append(ways, r.To+" via "+r.Via)
				}
			}
			if !slices.Equal(ways, tt.ways) {
				t.Errorf("the ways are %v, want %v", ways, tt.ways)
			}
		})
	}
}
