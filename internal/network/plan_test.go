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
	"strings"
	"testing"
)

func TestNewPlan(t *testing.T) {
	for _, tt := range []struct {
		cidr, ingress        string
		gateway, vips, nodes string
		size                 int
		ingressGateway       string
	}{
		{cidr: "10.100.0.0/25", gateway: "10.100.0.1", vips: "10.100.0.2-10.100.0.9", nodes: "10.100.0.10-10.100.0.126", size: 117},
		{
			cidr: "10.100.0.0/25", ingress: "10.100.0.128/25",
			gateway: "10.100.0.1", vips: "10.100.0.2-10.100.0.9", nodes: "10.100.0.10-10.100.0.126", size: 117,
			ingressGateway: "10.100.0.129",
		},
		{cidr: "10.0.0.0/16", gateway: "10.0.0.1", vips: "10.0.0.2-10.0.0.9", nodes: "10.0.0.10-10.0.255.254", size: 65525},
		{cidr: "192.168.7.32/27", gateway: "192.168.7.33", vips: "192.168.7.34-192.168.7.41", nodes: "192.168.7.42-192.168.7.62", size: 21},
		{cidr: "192.168.7.32/28", gateway: "192.168.7.33", vips: "192.168.7.34-192.168.7.35", nodes: "192.168.7.36-192.168.7.46", size: 11},
		{cidr: "192.168.7.248/29", gateway: "192.168.7.249", vips: "192.168.7.250-192.168.7.251", nodes: "192.168.7.252-192.168.7.254", size: 3},
		{cidr: "255.255.255.0/24", gateway: "255.255.255.1", vips: "255.255.255.2-255.255.255.9", nodes: "255.255.255.10-255.255.255.254", size: 245},
	} {
		t.Run(tt.cidr+" "+tt.ingress, func(t *testing.T) {
			plan, err := NewPlan(tt.cidr, tt.ingress)
			if err != nil {
				t.Fatal(err)
			}
			if plan.Prefix.String() != tt.cidr {
				t.Errorf("prefix is %s", plan.Prefix)
			}
			if got := plan.Gateway.String(); got != tt.gateway {
				t.Errorf("gateway is %s, want %s", got, tt.gateway)
			}
			if got := plan.VIPs.String(); got != tt.vips {
				t.Errorf("VIPs are %s, want %s", got, tt.vips)
			}
			if got := plan.Nodes.String(); got != tt.nodes {
				t.Errorf("nodes are %s, want %s", got, tt.nodes)
			}
			if got := plan.Nodes.Size(); got != tt.size {
				t.Errorf("there are %d node addresses, want %d", got, tt.size)
			}
			if tt.ingress == "" {
				if plan.Ingress.IsValid() || plan.IngressGateway.IsValid() {
					t.Errorf("there is an ingress range: %s, %s", plan.Ingress, plan.IngressGateway)
				}
				return
			}
			if plan.Ingress.String() != tt.ingress || plan.IngressGateway.String() != tt.ingressGateway {
				t.Errorf("ingress is %s by %s, want %s by %s", plan.Ingress, plan.IngressGateway, tt.ingress, tt.ingressGateway)
			}
		})
	}
}

func TestNewPlanRefuses(t *testing.T) {
	for _, tt := range []struct {
		cidr, ingress string
		field, detail string
	}{
		{"", "", "cidr", "is not an IPv4 range: use a form like 10.100.0.0/25"},
		{"10.100.0.0", "", "cidr", "is not an IPv4 range: use a form like 10.100.0.0/25"},
		{"10.100.0.0/33", "", "cidr", "is not an IPv4 range: use a form like 10.100.0.0/25"},
		{"10.100.0.256/25", "", "cidr", "is not an IPv4 range: use a form like 10.100.0.0/25"},
		{"2001:db8::/64", "", "cidr", "is not an IPv4 range: use a form like 10.100.0.0/25"},
		{"::ffff:10.0.0.0/120", "", "cidr", "is not an IPv4 range: use a form like 10.100.0.0/25"},
		{"10.100.0.1/25", "", "cidr", "has host bits set: use 10.100.0.0/25"},
		{"10.0.0.0/15", "", "cidr", "has a prefix length of 15: use one from /16 to /29"},
		{"10.0.0.0/30", "", "cidr", "has a prefix length of 30: use one from /16 to /29"},
		{"10.100.0.0/25", "10.100.0.200/25", "ingressCIDR", "has host bits set: use 10.100.0.128/25"},
		{"10.100.0.0/25", "10.100.0.128/30", "ingressCIDR", "has a prefix length of 30: use one from /16 to /29"},
		{"10.100.0.0/25", "nowhere", "ingressCIDR", "is not an IPv4 range: use a form like 10.100.0.0/25"},
		{"10.100.0.0/25", "10.100.0.0/24", "ingressCIDR", "overlaps cidr 10.100.0.0/25: choose a range beside it, so that DHCP never gives out an address of a Service"},
		{"10.100.0.0/24", "10.100.0.128/25", "ingressCIDR", "overlaps cidr 10.100.0.0/24: choose a range beside it, so that DHCP never gives out an address of a Service"},
	} {
		t.Run(tt.cidr+" "+tt.ingress, func(t *testing.T) {
			_, err := NewPlan(tt.cidr, tt.ingress)
			var wrong *FieldError
			if !errors.As(err, &wrong) {
				t.Fatalf("got %v, want a FieldError", err)
			}
			value := tt.cidr
			if tt.field == "ingressCIDR" {
				value = tt.ingress
			}
			if want := (FieldError{Field: tt.field, Value: value, Detail: tt.detail}); *wrong != want {
				t.Errorf("got %+v, want %+v", *wrong, want)
			}
		})
	}
}

func TestCheckEndpoint(t *testing.T) {
	plan := mustPlan(t, "10.100.0.0/25", "10.100.0.128/25")
	const use = ": use one of 10.100.0.2-10.100.0.9"
	for host, want := range map[string]string{
		"10.100.0.2":        "",
		"10.100.0.9":        "",
		"10.100.0.1":        "10.100.0.1 is the gateway of the node network" + use,
		"10.100.0.10":       "10.100.0.10 lies in the range that DHCP gives to nodes, 10.100.0.10-10.100.0.126" + use,
		"10.100.0.126":      "10.100.0.126 lies in the range that DHCP gives to nodes, 10.100.0.10-10.100.0.126" + use,
		"10.100.0.0":        "10.100.0.0 is the network's own or its broadcast address" + use,
		"10.100.0.127":      "10.100.0.127 is the network's own or its broadcast address" + use,
		"10.100.0.130":      "10.100.0.130 is outside the node network 10.100.0.0/25" + use,
		"192.0.2.1":         "192.0.2.1 is outside the node network 10.100.0.0/25" + use,
		"api.example.org":   `"api.example.org" is not an IPv4 address` + use,
		"2001:db8::1":       `"2001:db8::1" is not an IPv4 address` + use,
		"::ffff:10.100.0.2": `"::ffff:10.100.0.2" is not an IPv4 address` + use,
		"":                  `"" is not an IPv4 address` + use,
	} {
		got := ""
		if err := plan.CheckEndpoint(host); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%q: got %q, want %q", host, got, want)
		}
	}
}

func TestPickAddress(t *testing.T) {
	plan := mustPlan(t, "192.168.7.248/29", "")
	taken := map[netip.Addr]bool{}
	for _, want := range []string{"192.168.7.252", "192.168.7.253", "192.168.7.254"} {
		got, err := plan.PickAddress(func(addr netip.Addr) bool { return taken[addr] })
		if err != nil {
			t.Fatal(err)
		}
		if got.String() != want {
			t.Errorf("got %s, want %s", got, want)
		}
		taken[got] = true
	}

	_, err := plan.PickAddress(func(addr netip.Addr) bool { return taken[addr] })
	if !errors.Is(err, ErrExhausted) {
		t.Fatalf("got %v, want ErrExhausted", err)
	}
	if want := "every node address is taken: 3 of 3 in 192.168.7.252-192.168.7.254"; err.Error() != want {
		t.Errorf("got %q, want %q", err, want)
	}

	delete(taken, netip.MustParseAddr("192.168.7.253"))
	got, err := plan.PickAddress(func(addr netip.Addr) bool { return taken[addr] })
	if err != nil || got.String() != "192.168.7.253" {
		t.Errorf("got %s, %v, want the address that was given back", got, err)
	}
}

func mustPlan(t *testing.T, cidr, ingress string) Plan {
	t.Helper()
	plan, err := NewPlan(cidr, ingress)
	if err != nil {
		t.Fatal(err)
	}
	return plan
}

func TestFieldErrorNamesFieldAndValue(t *testing.T) {
	_, err := NewPlan("10.100.0.1/25", "")
	if want := "cidr 10.100.0.1/25: has host bits set"; err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("got %v, want %s…", err, want)
	}
}
