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

package webhooks

import (
	"testing"
)

func TestMachineInterfaces(t *testing.T) {
	const (
		list    = "spec.interfaces: Invalid value: "
		one     = "spec.interfaces[0]: Invalid value: "
		second  = "spec.interfaces[1]: Invalid value: "
		cluster = list + "exactly one interface must have the source Cluster, because nodes reach each other by the node network: add or remove one"
		pools   = "addressing IPAM needs addressesFromPools, and no other addressing takes it: set both or none"
		pool    = "addressesFromPools: [{apiGroup: ipam.cluster.x-k8s.io, kind: InClusterIPPool, name: nodes}]"
	)
	for _, tt := range []struct {
		name, interfaces string
		want             []string
	}{
		{name: "only the node network", interfaces: "[{name: nodes, source: Cluster}]"},
		{name: "its address from a pool", interfaces: "[{name: nodes, source: Cluster, addressing: IPAM, " + pool + "}]"},
		{name: "a libvirt network", interfaces: "[{name: nodes, source: Cluster}, {name: storage, source: Network, network: {name: storage, portGroup: fast}, mtu: 9000, queues: 2, macAddress: '52:54:00:12:34:56'}]"},
		{name: "a bridge", interfaces: "[{name: lan, source: Bridge, bridge: {name: br0}, addressing: DHCP, nameservers: [192.168.1.1, '2001:db8::53']}, {name: nodes, source: Cluster, defaultRoute: Use}]"},
		{name: "a VLAN of Open vSwitch", interfaces: "[{name: nodes, source: Cluster}, {name: dmz, source: Bridge, bridge: {name: ovs0, type: OpenVSwitch, vlan: 42}, addressing: None}]"},

		{name: "none at all", interfaces: "[]", want: []string{"spec.interfaces: Invalid value: 0: spec.interfaces in body should have at least 1 items", cluster}},
		{name: "no node network", interfaces: "[{name: lan, source: Bridge, bridge: {name: br0}}]", want: []string{cluster}},
		{name: "two in the node network", interfaces: "[{name: nodes, source: Cluster}, {name: nodes2, source: Cluster}]", want: []string{cluster}},
		{name: "one name for two", interfaces: "[{name: nodes, source: Cluster}, {name: nodes, source: Bridge, bridge: {name: br0}}]", want: []string{`spec.interfaces[1]: Duplicate value: {"name":"nodes"}`}},
		{
			name: "two ways to the world", interfaces: "[{name: nodes, source: Cluster, defaultRoute: Use}, {name: lan, source: Bridge, bridge: {name: br0}, defaultRoute: Use}]",
			want: []string{list + "only one interface can have the default route: set defaultRoute Use on one of them"},
		},
		{
			name:       "one MAC address for two",
			interfaces: "[{name: nodes, source: Cluster}, {name: a, source: Bridge, bridge: {name: br0}, macAddress: '52:54:00:12:34:56'}, {name: b, source: Bridge, bridge: {name: br0}, macAddress: '52:54:00:12:34:56'}]",
			want:       []string{list + "no two interfaces can have the same macAddress: change or remove one"},
		},
		{
			name: "a network without a name", interfaces: "[{name: nodes, source: Cluster}, {name: lan, source: Network}]",
			want: []string{second + "source Network needs network, with the name of a libvirt network, and no other source takes it"},
		},
		{
			name: "a network where a bridge is meant", interfaces: "[{name: nodes, source: Cluster}, {name: lan, source: Bridge, network: {name: lan}}]",
			want: []string{
				second + "source Bridge needs bridge, with the name of a bridge of the host, and no other source takes it",
				second + "source Network needs network, with the name of a libvirt network, and no other source takes it",
			},
		},
		{
			name: "a MAC address in the node network", interfaces: "[{name: nodes, source: Cluster, macAddress: '52:54:00:12:34:56'}]",
			want: []string{one + "macAddress, mtu and nameservers don't go with source Cluster, where they follow from the machine and from spec.network of the LibvirtCluster: remove them"},
		},
		{
			name: "no address in the node network", interfaces: "[{name: nodes, source: Cluster, addressing: None}]",
			want: []string{one + "an interface with source Cluster always has an address: remove addressing, or set it to IPAM with addressesFromPools"},
		},
		{name: "a pool, and no word of it", interfaces: "[{name: nodes, source: Cluster, " + pool + "}]", want: []string{one + pools}},
		{name: "word of a pool, and none", interfaces: "[{name: nodes, source: Cluster, addressing: IPAM}]", want: []string{one + pools}},
		{
			name: "a way to the world without an address", interfaces: "[{name: nodes, source: Cluster}, {name: lan, source: Bridge, bridge: {name: br0}, addressing: None, defaultRoute: Use}]",
			want: []string{second + "an interface without addresses can't have the default route: set addressing to DHCP or IPAM, or remove defaultRoute"},
		},
		{
			name: "name servers without an address", interfaces: "[{name: nodes, source: Cluster}, {name: lan, source: Bridge, bridge: {name: br0}, addressing: None, nameservers: [192.168.1.1]}]",
			want: []string{second + "nameservers are of no use without addresses: remove them, or set addressing to DHCP or IPAM"},
		},
		{
			name: "a name for a name server", interfaces: "[{name: nodes, source: Cluster}, {name: lan, source: Bridge, bridge: {name: br0}, nameservers: [dns.lan]}]",
			want: []string{"spec.interfaces[1].nameservers: Invalid value: nameservers must be IP addresses, for example 192.168.1.1"},
		},
		{
			name: "a VLAN of a Linux bridge", interfaces: "[{name: nodes, source: Cluster}, {name: lan, source: Bridge, bridge: {name: br0, vlan: 42}}]",
			want: []string{"spec.interfaces[1].bridge: Invalid value: vlan needs an Open vSwitch bridge: set type to OpenVSwitch; for a Linux bridge, make a bridge over the VLAN on the host (for example br42 over eno1.42) and name that"},
		},
		{
			name: "the bridge of a managed network", interfaces: "[{name: nodes, source: Cluster}, {name: lan, source: Bridge, bridge: {name: capl-0123456789}}]",
			want: []string{`spec.interfaces[1].bridge.name: Invalid value: "capl-0123456789": a bridge whose name begins with capl- belongs to the managed network of a cluster: use source Cluster for the machine's own, or source Network with the name of the other`},
		},
		{
			name: "a MAC address that libvirt keeps", interfaces: "[{name: nodes, source: Cluster}, {name: lan, source: Bridge, bridge: {name: br0}, macAddress: 'fe:54:00:12:34:56'}]",
			want: []string{`spec.interfaces[1].macAddress: Invalid value: "fe:54:00:12:34:56": macAddress must not begin with fe, which libvirt keeps for the host's side: use one that begins with 52:54:00`},
		},
		{
			name: "a MAC address of a group", interfaces: "[{name: nodes, source: Cluster}, {name: lan, source: Bridge, bridge: {name: br0}, macAddress: '01:00:5e:12:34:56'}]",
			want: []string{`spec.interfaces[1].macAddress: Invalid value: "01:00:5e:12:34:56": spec.interfaces[1].macAddress in body should match '^[0-9a-f][02468ace](:[0-9a-f]{2}){5}$'`},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			check(t, api.Create(t.Context(), machine(t, set("spec.interfaces", tt.interfaces))), tt.want...)
		})
	}
}

func TestMachineInterfacesStay(t *testing.T) {
	const (
		fixed  = "<nil>: Invalid value: spec.interfaces can't be changed on an existing machine: make a new LibvirtMachineTemplate and name it in the MachineDeployment or the control plane, which rolls out new machines"
		two    = "[{name: nodes, source: Cluster}, {name: lan, source: Bridge, bridge: {name: br0}}]"
		second = "[{name: nodes, source: Cluster}, {name: lan, source: Bridge, bridge: {name: br1}}]"
	)
	for _, tt := range []struct {
		name          string
		before, after edit
		want          []string
	}{
		{name: "metadata", before: set("spec.interfaces", two), after: annotate("example.org/note")},
		{name: "interfaces where none were", before: annotate("example.org/note"), after: set("spec.interfaces", two), want: []string{fixed}},
		{name: "no interfaces any more", before: set("spec.interfaces", two), after: unset("spec.interfaces"), want: []string{fixed}},
		{name: "another bridge", before: set("spec.interfaces", two), after: set("spec.interfaces", second), want: []string{fixed}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			created := machine(t, tt.before)
			check(t, api.Create(t.Context(), created))
			check(t, api.Update(t.Context(), change(created, tt.after)), tt.want...)
		})
	}
}
