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
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"
)

// linked has a cluster link its hosts, which no other cluster has.
func linked(object map[string]any) {
	set("spec.hostSelector", "{matchLabels: {site: nowhere-linked}}")(object)
	set("spec.network.subnets", "[{failureDomain: kvm2, cidr: 10.100.1.0/25}]")(object)
	set("spec.network.siteLink", "{type: WireGuard}")(object)
	unset("spec.network.mtu")(object)
}

func TestClusterLinkCreate(t *testing.T) {
	const tooMuch = "bytes that siteLink carries with a pathMTU of 1500: use 1420 or less, or raise siteLink.pathMTU if the path between the hosts allows it"
	for _, tt := range []struct {
		name  string
		edits []edit
		want  []string
	}{
		{name: "a link", edits: []edit{linked}},
		{name: "in so many words", edits: []edit{linked, set("spec.network.forwarding", "HostAgent"), set("spec.network.mtu", "1420"), set("spec.network.siteLink.pathMTU", "1500")}},
		{name: "jumbo frames", edits: []edit{linked, set("spec.network.mtu", "8920"), set("spec.network.siteLink.pathMTU", "9000")}},
		{name: "the web, too", edits: []edit{letsIn, linked}},
		{name: "a cluster that was moved here", edits: []edit{linked, set("spec.network.uuid", networkUUID), set("spec.network.forwarding", "HostAgent")}},

		{
			name: "an MTU that the link can't carry", edits: []edit{linked, set("spec.network.mtu", "1500")},
			want: []string{`spec.network.mtu: Invalid value: "1500": is more than the 1420 ` + tooMuch},
		},
		{
			name: "a path that is too short", edits: []edit{linked, set("spec.network.siteLink.pathMTU", "1359")},
			want: []string{"spec.network.siteLink.pathMTU: Invalid value: 1359: spec.network.siteLink.pathMTU in body should be greater than or equal to 1360"},
		},
		{
			name: "a path that is too long", edits: []edit{linked, set("spec.network.siteLink.pathMTU", "9217")},
			want: []string{"spec.network.siteLink.pathMTU: Invalid value: 9217: spec.network.siteLink.pathMTU in body should be less than or equal to 9216"},
		},
		{name: "a link of no type", edits: []edit{linked, set("spec.network.siteLink", "{pathMTU: 1500}")}, want: []string{"spec.network.siteLink.type: Required value"}},
		{
			name: "another type", edits: []edit{linked, set("spec.network.siteLink", "{type: IPsec}")},
			want: []string{`spec.network.siteLink.type: Unsupported value: "IPsec": supported values: "WireGuard"`},
		},
		{
			name: "a link by NAT", edits: []edit{linked, set("spec.network.forwarding", "NAT")},
			want: []string{"spec.network: Invalid value: siteLink doesn't go with forwarding NAT, because the agents of the hosts make the link: create the cluster with forwarding: HostAgent, or remove siteLink"},
		},
		{
			name: "one range for all", edits: []edit{linked, unset("spec.network.subnets")},
			want: []string{"spec.network: Invalid value: siteLink links hosts with ranges of their own: set subnets, a range for each failure domain but that of the control plane"},
		},
		{
			name: "a LAN", edits: []edit{bridge, set("spec.network.siteLink", "{type: WireGuard}")},
			want: []string{"spec.network: Invalid value: siteLink belongs to networks that the provider makes, an existing one connects the hosts by itself: remove it, or the managementPolicy Existing"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			check(t, api.Create(t.Context(), cluster(t, tt.edits...), client.DryRunAll), tt.want...)
		})
	}
	check(t, api.Create(t.Context(), clusterTemplate(t, set("spec.template.spec.network",
		"{cidr: 10.100.0.0/25, mtu: 1450, subnets: [{failureDomain: kvm2, cidr: 10.100.1.0/25}], siteLink: {type: WireGuard}}"))),
		`spec.template.spec.network.mtu: Invalid value: "1450": is more than the 1420 `+tooMuch)
}

func TestClusterLinkUpdate(t *testing.T) {
	const (
		stop   = "spec.network.mtu: Forbidden: can't be changed, because the network would have to be stopped under the machines: create a new cluster instead"
		would  = "spec.network.siteLink: Forbidden: would change the MTU of the node network from "
		so     = ", as long as spec.network.mtu isn't set, and the network would have to be stopped under the machines for that: set spec.network.mtu to "
		remedy = " if siteLink carries that, or create a new cluster"
	)
	there := func(object map[string]any) {
		set("spec.network.uuid", networkUUID)(object)
		set("spec.network.forwarding", "HostAgent")(object)
	}
	mtu := func(value string) edit { return set("spec.network.mtu", value) }
	path := func(value string) edit { return set("spec.network.siteLink.pathMTU", value) }
	unlinked := unset("spec.network.siteLink")
	for _, tt := range []struct {
		name          string
		before, after []edit
		want          []string
	}{
		{name: "what the controller writes down", before: []edit{linked}, after: []edit{there}},
		{name: "a link that carries the MTU", before: []edit{there, mtu("1420")}, after: []edit{linked, mtu("1420")}},
		{name: "no link any more", before: []edit{linked, there, mtu("1420")}, after: []edit{unlinked}},
		{name: "no link any more, the MTU in words", before: []edit{linked, there}, after: []edit{unlinked, mtu("1420")}},
		{name: "the MTU in words", before: []edit{linked, there}, after: []edit{mtu("1420")}},
		{name: "a longer path", before: []edit{linked, there, mtu("1420")}, after: []edit{path("1600")}},
		{name: "the path in words", before: []edit{linked, there}, after: []edit{path("1500")}},
		{name: "another site", before: []edit{linked, there}, after: []edit{set("spec.network.subnets", "[{failureDomain: kvm2, cidr: 10.100.1.0/25}, {failureDomain: kvm3, cidr: 10.100.2.0/25}]")}},
		{name: "anything before there is a network", before: []edit{linked}, after: []edit{path("1400")}},

		{name: "a link that carries less", before: []edit{there, unset("spec.network.mtu")}, after: []edit{linked}, want: []string{would + "1500 to 1420" + so + "1500" + remedy}},
		{name: "a path that decides", before: []edit{linked, there}, after: []edit{path("1400")}, want: []string{would + "1420 to 1320" + so + "1420" + remedy}},
		{name: "no link, no MTU", before: []edit{linked, there}, after: []edit{unlinked}, want: []string{would + "1420 to 1500" + so + "1420" + remedy}},
		{name: "another MTU", before: []edit{linked, there}, after: []edit{mtu("1400")}, want: []string{stop}},
		{
			name: "a path that is too short for the MTU", before: []edit{linked, there, mtu("1420")}, after: []edit{path("1499")},
			want: []string{`spec.network.mtu: Invalid value: "1420": is more than the 1419 bytes that siteLink carries with a pathMTU of 1499: use 1419 or less, or raise siteLink.pathMTU if the path between the hosts allows it`},
		},
		{
			name: "a link for NAT", before: []edit{set("spec.network.uuid", networkUUID), set("spec.network.forwarding", "NAT"), mtu("1420")}, after: []edit{linked, mtu("1420")},
			want: []string{"spec.network: Invalid value: siteLink doesn't go with forwarding NAT, because the agents of the hosts make the link: create the cluster with forwarding: HostAgent, or remove siteLink"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			created := cluster(t, append([]edit{set("spec.hostSelector", "{matchLabels: {site: nowhere-linked}}")}, tt.before...)...)
			check(t, api.Create(t.Context(), created))
			check(t, api.Update(t.Context(), change(created, tt.after...)), tt.want...)
		})
	}
}

// TestClusterLinkClash has a cluster without links take a range to which those of another lead.
func TestClusterLinkClash(t *testing.T) {
	created := host(t, set("metadata.labels", "{site: linked}"), set("spec.uri", "qemu+libssh2://root@linked/system"))
	check(t, api.Create(t.Context(), created))
	at := set("spec.hostSelector", "{matchLabels: {site: linked}}")
	first := cluster(t, linked, at)
	check(t, api.Create(t.Context(), first))
	second := cluster(t, at, set("spec", "{hostSelector: {matchLabels: {site: linked}}, network: {cidr: 10.100.1.64/26}}"))
	// Admission reads a cache, which sees the first cluster within moments.
	for end := time.Now().Add(20 * time.Second); api.Create(t.Context(), second.DeepCopy(), client.DryRunAll) == nil; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the second cluster is taken")
		}
	}
	check(t, api.Create(t.Context(), second.DeepCopy(), client.DryRunAll), `spec.network.cidr: Invalid value: "10.100.1.64/26": overlaps the range 10.100.1.0/25 of LibvirtCluster `+first.GetName()+
		", on a host that both may use, and one of the two has a siteLink that leads there: choose another range")
	check(t, api.Create(t.Context(), cluster(t, set("spec", "{hostSelector: {matchLabels: {site: linked}}, network: {cidr: 10.101.0.0/25}}")), client.DryRunAll))

	// Once the first is gone there is room.
	check(t, api.Delete(t.Context(), first))
	for end := time.Now().Add(20 * time.Second); api.Create(t.Context(), second.DeepCopy(), client.DryRunAll) != nil; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the second cluster is still refused")
		}
	}
}

func TestHostWireGuard(t *testing.T) {
	const remedy = ": use one at which the other hosts reach this one, like 203.0.113.20, or remove it if they don't"
	for _, tt := range []struct {
		name  string
		guard string
		want  []string
	}{
		{name: "an address", guard: "{address: 203.0.113.20}"},
		{name: "an address and a port", guard: "{address: '2001:db8::20', port: 51821}"},
		{name: "behind NAT", guard: "{}"},
		{name: "a name", guard: "{address: kvm2.example.org}", want: []string{`spec.wireGuard.address: Invalid value: "kvm2.example.org": is not an IP address` + remedy}},
		{name: "loopback", guard: "{address: 127.0.0.1}", want: []string{`spec.wireGuard.address: Invalid value: "127.0.0.1": is not an address that other hosts can send to` + remedy}},
		{name: "any address", guard: "{address: 0.0.0.0}", want: []string{`spec.wireGuard.address: Invalid value: "0.0.0.0": is not an address that other hosts can send to` + remedy}},
		{name: "multicast", guard: "{address: 224.0.0.1}", want: []string{`spec.wireGuard.address: Invalid value: "224.0.0.1": is not an address that other hosts can send to` + remedy}},
		{name: "no port", guard: "{port: 65536}", want: []string{"spec.wireGuard.port: Invalid value: 65536: spec.wireGuard.port in body should be less than or equal to 65535"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			check(t, api.Create(t.Context(), host(t, set("spec.wireGuard", tt.guard)), client.DryRunAll), tt.want...)
		})
	}
}
