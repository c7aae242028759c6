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

	"sigs.k8s.io/yaml"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/gateway"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/owner"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/xmltest"
)

const ourUUID = "3e2c9f80-5b5d-4bb0-8f43-5b0e0a2f7c11"

func definition(t *testing.T, ingress string, mtu int32) Definition {
	t.Helper()
	return Definition{
		UUID:  ourUUID,
		Name:  Name("home", "web"),
		MTU:   mtu,
		Plan:  mustPlan(t, "10.100.0.0/25", ingress),
		Owner: owner.Owner{Kind: "LibvirtCluster", Namespace: "home", Name: "web", Cluster: "web"},
	}
}

func TestRenderNetwork(t *testing.T) {
	for name, d := range map[string]Definition{
		"network.xml":         definition(t, "", 0),
		"network-ingress.xml": definition(t, "10.100.0.128/25", 1420),
	} {
		t.Run(name, func(t *testing.T) {
			document, err := RenderNetwork(d)
			if err != nil {
				t.Fatal(err)
			}
			xmltest.Golden(t, name, document)
			xmltest.Accepts(t, document, "net-define", "--validate")
			if got, ok := owner.Of(document); !ok || got != d.Owner {
				t.Errorf("the document's owner is %v, %t", got, ok)
			}
		})
	}
}

func TestRenderGuestConfig(t *testing.T) {
	const mac = "52:75:b3:02:f0:dc"
	xmltest.Golden(t, "network-config.yaml", string(RenderGuestConfig([]GuestInterface{NodeInterface(mac, 0, netip.Addr{}, Plan{})})))
	xmltest.Golden(t, "network-config-mtu.yaml", string(RenderGuestConfig([]GuestInterface{NodeInterface(mac, 1420, netip.Addr{}, Plan{})})))
	_, networkd := RenderNetworkd(NodeInterface(mac, 1420, netip.Addr{}, Plan{}))
	xmltest.Golden(t, "networkd.network", string(networkd))
	plans, err := NewPlans(lan(func(n *infrav1.ClusterNetwork) { n.Nameservers = []string{"192.168.1.1", "2001:db8::53"} }))
	if err != nil {
		t.Fatal(err)
	}
	guest := NodeInterface(mac, 1420, netip.MustParseAddr("192.168.1.100"), plans.Main)
	static := RenderGuestConfig([]GuestInterface{guest})
	xmltest.Golden(t, "network-config-static.yaml", string(static))
	_, networkd = RenderNetworkd(guest)
	xmltest.Golden(t, "networkd-static.network", string(networkd))
	var parsed struct {
		Ethernets map[string]struct {
			Addresses   []string
			Nameservers struct{ Addresses []string }
		}
	}
	if err := yaml.Unmarshal(static, &parsed); err != nil {
		t.Fatal(err)
	}
	got := parsed.Ethernets["cluster"]
	if !slices.Equal(got.Addresses, []string{"192.168.1.100/24"}) || !slices.Equal(got.Nameservers.Addresses, []string{"192.168.1.1", "2001:db8::53"}) {
		t.Errorf("got %+v of\n%s", got, static)
	}
}

func TestServes(t *testing.T) {
	document, err := RenderNetwork(definition(t, "10.100.0.128/25", 0))
	if err != nil {
		t.Fatal(err)
	}
	for cidr, want := range map[string]bool{"10.100.0.0/25": true, "10.100.0.0/24": false, "10.100.1.0/25": false, "10.100.0.128/25": false} {
		if got, err := Serves(document, mustPlan(t, cidr, "")); err != nil || got != want {
			t.Errorf("%s: got %t, %v", cidr, got, err)
		}
	}
	if _, err := Serves("<network", mustPlan(t, "10.100.0.0/25", "")); err == nil {
		t.Error("what isn't XML serves")
	}
}

func TestBridge(t *testing.T) {
	if got, want := Bridge(ourUUID), "capl-3e2c9f805b"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	// Linux allows 15 characters.
	if got := Bridge(ourUUID); len(got) > 15 {
		t.Errorf("%s is too long for an interface", got)
	}
}

func TestCheckConflicts(t *testing.T) {
	ours := definition(t, "10.100.0.128/25", 0)
	own, err := RenderNetwork(ours)
	if err != nil {
		t.Fatal(err)
	}
	agents, err := gateway.RenderStatusNetwork(gateway.Status{Networks: []gateway.NetworkStatus{{UUID: ourUUID}}})
	if err != nil {
		t.Fatal(err)
	}
	foreign := func(inner string) string {
		return "<network><name>foreign</name><uuid>11111111-1111-4111-8111-111111111111</uuid>" + inner + "</network>"
	}
	for _, tt := range []struct {
		name   string
		others []string
		want   string
	}{
		{"nothing there", nil, ""},
		{"our own network", []string{own}, ""},
		{"the status of the host's agent", []string{agents, own}, ""},
		{"a range beside ours", []string{foreign(`<ip address="10.100.1.1" netmask="255.255.255.0"/>`)}, ""},
		{"an IPv6 network", []string{foreign(`<ip family="ipv6" address="2001:db8::1" prefix="64"/>`)}, ""},
		{"a network without addresses", []string{foreign(`<forward mode="bridge"/><bridge name="br0"/>`)}, ""},
		{
			"a range within ours, by netmask", []string{foreign(`<ip address="10.100.0.17" netmask="255.255.255.240"/>`)},
			"10.100.0.0/25 overlaps 10.100.0.16/28 of network foreign",
		},
		{
			"a range around ours, by prefix", []string{foreign(`<ip address="10.1.2.3" prefix="8"/>`)},
			"10.100.0.0/25 overlaps 10.0.0.0/8 of network foreign",
		},
		{
			"a range in our ingress range", []string{foreign(`<ip address="10.100.0.201" netmask="255.255.255.248"/>`)},
			"10.100.0.128/25 overlaps 10.100.0.200/29 of network foreign",
		},
		{
			"a second address of a network",
			[]string{foreign(`<ip address="192.168.1.1" prefix="24"/><ip address="10.100.0.1" prefix="24"/>`)},
			"10.100.0.0/25 overlaps 10.100.0.0/24 of network foreign",
		},
		{
			"the second of two networks",
			[]string{own, foreign(`<ip address="10.100.0.1" prefix="24"/>`)},
			"10.100.0.0/25 overlaps 10.100.0.0/24 of network foreign",
		},
		{
			"our bridge", []string{foreign(`<bridge name="capl-3e2c9f805b"/>`)},
			"network foreign already uses the bridge capl-3e2c9f805b",
		},
		{
			"our name", []string{strings.Replace(own, ourUUID, "22222222-2222-4222-8222-222222222222", 1)},
			"a network named home.web is already there, with the UUID 22222222-2222-4222-8222-222222222222",
		},
		{
			"our UUID, another owner", []string{strings.Replace(own, `cluster="web"`, `cluster="other"`, 1)},
			fmt.Sprintf("network home.web has our UUID %s and isn't ours", ourUUID),
		},
		{
			"our UUID, no owner", []string{"<network><name>x</name><uuid>" + ourUUID + "</uuid></network>"},
			fmt.Sprintf("network x has our UUID %s and isn't ours", ourUUID),
		},
		{"no XML", []string{"<network"}, "reading the host's networks: "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := CheckConflicts(ours, tt.others)
			if tt.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if err == nil || !strings.HasPrefix(err.Error(), tt.want) {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
}
