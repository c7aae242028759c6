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
	"errors"
	"net/netip"
	"testing"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
)

// lan is an existing network of several hosts.
func lan(edits ...func(*infrav1.ClusterNetwork)) infrav1.ClusterNetwork {
	spec := infrav1.ClusterNetwork{
		ManagementPolicy: infrav1.NetworkExisting,
		Bridge:           "br0",
		CIDR:             "192.168.1.0/24",
		NodeRange:        "192.168.1.100-192.168.1.149",
		Gateway:          "192.168.1.1",
		Nameservers:      []string{"192.168.1.1"},
	}
	for _, edit := range edits {
		edit(&spec)
	}
	return spec
}

func TestExistingPlan(t *testing.T) {
	plans, err := NewPlans(lan(func(n *infrav1.ClusterNetwork) { n.IngressCIDR = "192.168.1.192/27" }))
	if err != nil {
		t.Fatal(err)
	}
	plan := plans.For("anywhere")
	if plan.Prefix.String() != "192.168.1.0/24" || plan.Gateway.String() != "192.168.1.1" || plan.Ingress.String() != "192.168.1.192/27" {
		t.Errorf("got %+v", plan)
	}
	if plan.Nodes.String() != "192.168.1.100-192.168.1.149" || plan.Nodes.Size() != 50 {
		t.Errorf("the nodes get %s", plan.Nodes)
	}
	if first, err := plan.PickAddress(func(a netip.Addr) bool { return a.String() == "192.168.1.100" }); err != nil || first.String() != "192.168.1.101" {
		t.Errorf("got %s, %v", first, err)
	}
	// A large LAN, of which the cluster uses a small part.
	if _, err := NewPlans(lan(func(n *infrav1.ClusterNetwork) {
		n.CIDR, n.Gateway, n.NodeRange = "10.0.0.0/8", "10.255.255.254", "10.1.0.0-10.1.0.255"
	})); err != nil {
		t.Error(err)
	}
}

func TestExistingPlanRefuses(t *testing.T) {
	type edit = func(*infrav1.ClusterNetwork)
	for _, tt := range []struct {
		name                 string
		edit                 edit
		field, value, detail string
	}{
		{
			"a range that isn't one", func(n *infrav1.ClusterNetwork) { n.CIDR = "192.168.1.7/24" },
			"cidr", "192.168.1.7/24", "has host bits set: use 192.168.1.0/24",
		},
		{
			"all the internet", func(n *infrav1.ClusterNetwork) { n.CIDR = "128.0.0.0/1" },
			"cidr", "128.0.0.0/1", "has a prefix length of 1: use one from /8 to /29",
		},
		{
			"a gateway that is none", func(n *infrav1.ClusterNetwork) { n.Gateway = "router.lan" },
			"gateway", "router.lan", "is not an address of cidr 192.168.1.0/24: use that of the network's router",
		},
		{
			"a gateway elsewhere", func(n *infrav1.ClusterNetwork) { n.Gateway = "192.168.2.1" },
			"gateway", "192.168.2.1", "is not an address of cidr 192.168.1.0/24: use that of the network's router",
		},
		{
			"the broadcast address for a gateway", func(n *infrav1.ClusterNetwork) { n.Gateway = "192.168.1.255" },
			"gateway", "192.168.1.255", "is not an address of cidr 192.168.1.0/24: use that of the network's router",
		},
		{
			"one address for a range", func(n *infrav1.ClusterNetwork) { n.NodeRange = "192.168.1.100" },
			"nodeRange", "192.168.1.100", "is not a range of IPv4 addresses: use a form like 192.168.1.100-192.168.1.149",
		},
		{
			"half a range", func(n *infrav1.ClusterNetwork) { n.NodeRange = "192.168.1.100-" },
			"nodeRange", "192.168.1.100-", "is not a range of IPv4 addresses: use a form like 192.168.1.100-192.168.1.149",
		},
		{
			"IPv6", func(n *infrav1.ClusterNetwork) { n.NodeRange = "2001:db8::1-2001:db8::9" },
			"nodeRange", "2001:db8::1-2001:db8::9", "is not a range of IPv4 addresses: use a form like 192.168.1.100-192.168.1.149",
		},
		{
			"backwards", func(n *infrav1.ClusterNetwork) { n.NodeRange = "192.168.1.149-192.168.1.100" },
			"nodeRange", "192.168.1.149-192.168.1.100", "ends before it begins: use 192.168.1.100-192.168.1.149",
		},
		{
			"beyond the network", func(n *infrav1.ClusterNetwork) { n.NodeRange = "192.168.1.100-192.168.2.10" },
			"nodeRange", "192.168.1.100-192.168.2.10", "lies outside cidr: use addresses of 192.168.1.1-192.168.1.254",
		},
		{
			"up to the broadcast address", func(n *infrav1.ClusterNetwork) { n.NodeRange = "192.168.1.100-192.168.1.255" },
			"nodeRange", "192.168.1.100-192.168.1.255", "lies outside cidr: use addresses of 192.168.1.1-192.168.1.254",
		},
		{
			"from the network's own address", func(n *infrav1.ClusterNetwork) { n.NodeRange = "192.168.1.0-192.168.1.149" },
			"nodeRange", "192.168.1.0-192.168.1.149", "lies outside cidr: use addresses of 192.168.1.1-192.168.1.254",
		},
		{
			"the gateway among the nodes", func(n *infrav1.ClusterNetwork) { n.NodeRange = "192.168.1.1-192.168.1.149" },
			"nodeRange", "192.168.1.1-192.168.1.149", "contains the gateway 192.168.1.1: end before it, or begin after it",
		},
		{
			"Services among the nodes", func(n *infrav1.ClusterNetwork) { n.IngressCIDR = "192.168.1.144/28" },
			"ingressCIDR", "192.168.1.144/28", "overlaps nodeRange 192.168.1.100-192.168.1.149: choose a range beside it, so that no node gets an address of a Service",
		},
		{
			"the gateway among the Services", func(n *infrav1.ClusterNetwork) { n.IngressCIDR = "192.168.1.0/28" },
			"ingressCIDR", "192.168.1.0/28", "contains the gateway 192.168.1.1: choose a range without it",
		},
		{
			"Services nowhere", func(n *infrav1.ClusterNetwork) { n.IngressCIDR = "everywhere" },
			"ingressCIDR", "everywhere", "is not an IPv4 range: use a form like 10.100.0.0/25",
		},
		{
			"a name for a nameserver", func(n *infrav1.ClusterNetwork) { n.Nameservers = []string{"192.168.1.1", "dns.lan"} },
			"nameservers[1]", "dns.lan", "is not an IP address: use one like 192.168.1.1",
		},
		{
			"a nameserver on some link", func(n *infrav1.ClusterNetwork) { n.Nameservers = []string{"fe80::1%eth0"} },
			"nameservers[0]", "fe80::1%eth0", "is not an IP address: use one like 192.168.1.1",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := NewPlans(lan(tt.edit))
			expectFieldError(t, err, FieldError{tt.field, tt.value, tt.detail})
		})
	}
}

func expectFieldError(t *testing.T, err error, want FieldError) {
	t.Helper()
	var wrong *FieldError
	if !errors.As(err, &wrong) {
		t.Fatalf("got %v, want a FieldError", err)
	}
	if *wrong != want {
		t.Errorf("got\n%+v, want\n%+v", *wrong, want)
	}
}

func TestCheckEndpointOfAnExistingNetwork(t *testing.T) {
	plans, err := NewPlans(lan(func(n *infrav1.ClusterNetwork) { n.IngressCIDR = "192.168.1.192/27" }))
	if err != nil {
		t.Fatal(err)
	}
	const use = ": use an address of 192.168.1.0/24 that nobody has, outside nodeRange 192.168.1.100-192.168.1.149"
	for host, want := range map[string]string{
		"192.168.1.2":     "",
		"192.168.1.99":    "",
		"192.168.1.150":   "",
		"192.168.1.100":   "192.168.1.100 lies in the range that nodes get addresses from, spec.network.nodeRange 192.168.1.100-192.168.1.149: use an address outside it",
		"192.168.1.1":     "192.168.1.1 is the gateway of the node network" + use,
		"192.168.1.200":   "192.168.1.200 lies in the range of LoadBalancer Services, spec.network.ingressCIDR 192.168.1.192/27" + use,
		"192.168.1.255":   "192.168.1.255 is the network's own or its broadcast address" + use,
		"192.168.2.2":     "192.168.2.2 is outside the node network 192.168.1.0/24" + use,
		"api.example.org": `"api.example.org" is not an IPv4 address` + use,
	} {
		got := ""
		if err := plans.Main.CheckEndpoint(host); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%q: got\n%q, want\n%q", host, got, want)
		}
	}
}

func TestCheckExisting(t *testing.T) {
	plans, err := NewPlans(lan(func(n *infrav1.ClusterNetwork) { n.IngressCIDR = "192.168.1.192/27" }))
	if err != nil {
		t.Fatal(err)
	}
	document := func(inner string) string {
		return "<network><name>lan</name><forward mode='bridge'/>" + inner + "</network>"
	}
	nodes := func(detail string) error {
		return &FieldError{"network.nodeRange", "192.168.1.100-192.168.1.149", detail}
	}
	for _, tt := range []struct {
		name, inner string
		want        error
	}{
		{"a bridge", "<bridge name='br0'/>", nil},
		{"a host of its own", "<ip address='192.168.1.2' prefix='24'/>", nil},
		{"DHCP beside the range", "<ip address='192.168.1.2' prefix='24'><dhcp><range start='192.168.1.150' end='192.168.1.191'/></dhcp></ip>", nil},
		{"DHCP of IPv6", "<ip family='ipv6' address='2001:db8::1' prefix='64'><dhcp><range start='2001:db8::2' end='2001:db8::9'/></dhcp></ip>", nil},
		{
			"DHCP over the endpoint", "<ip address='192.168.1.2' prefix='24'><dhcp><range start='192.168.1.50' end='192.168.1.99'/></dhcp></ip>",
			&FieldError{"controlPlaneEndpoint.host", "192.168.1.99", "overlaps 192.168.1.50-192.168.1.99, which DHCP gives out in network lan: choose another, or change that range with virsh net-edit lan"},
		},
		{
			"DHCP among the Services", "<ip address='192.168.1.2' prefix='24'><dhcp><range start='192.168.1.150' end='192.168.1.254'/></dhcp></ip>",
			&FieldError{"network.ingressCIDR", "192.168.1.192-192.168.1.223", "overlaps 192.168.1.150-192.168.1.254, which DHCP gives out in network lan: choose another, or change that range with virsh net-edit lan"},
		},
		{
			"DHCP in the range", "<ip address='192.168.1.2' prefix='24'><dhcp><range start='192.168.1.149' end='192.168.1.180'/></dhcp></ip>",
			nodes("overlaps 192.168.1.149-192.168.1.180, which DHCP gives out in network lan: choose another, or change that range with virsh net-edit lan"),
		},
		{
			"the second range of DHCP", "<ip address='192.168.1.2' prefix='24'><dhcp><range start='192.168.1.2' end='192.168.1.9'/><range start='192.168.1.100' end='192.168.1.110'/></dhcp></ip>",
			nodes("overlaps 192.168.1.100-192.168.1.110, which DHCP gives out in network lan: choose another, or change that range with virsh net-edit lan"),
		},
		{
			"a reservation in the range", "<ip address='192.168.1.2' prefix='24'><dhcp><host mac='52:54:00:00:00:01' ip='192.168.1.120'/></dhcp></ip>",
			nodes("contains 192.168.1.120, which DHCP reserves for 52:54:00:00:00:01 in network lan: choose another, or remove the reservation"),
		},
		{
			"the host in the range", "<ip address='192.168.1.130' prefix='24'/>",
			nodes("contains 192.168.1.130, the host's own address in network lan: choose another"),
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := CheckExisting(plans.Main, "192.168.1.99", document(tt.inner))
			if tt.want == nil {
				if err != nil {
					t.Error(err)
				}
				return
			}
			expectFieldError(t, err, *tt.want.(*FieldError))
		})
	}
	if err := CheckExisting(plans.Main, "192.168.1.99", "<network"); err == nil {
		t.Error("what isn't XML is fit")
	}
}
