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
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"
)

const networkUUID = "3e2c9f80-5b5d-4bb0-8f43-5b0e0a2f7c11"

// bridge puts a cluster on a bridge of the hosts.
func bridge(object map[string]any) {
	set("spec.controlPlaneEndpoint.host", "192.168.1.10")(object)
	set("spec.network", "{managementPolicy: Existing, bridge: br0, cidr: 192.168.1.0/24, "+
		"nodeRange: 192.168.1.100-192.168.1.149, gateway: 192.168.1.1, nameservers: [192.168.1.1]}")(object)
}

func TestClusterCreate(t *testing.T) {
	const (
		whichNetwork = "spec.network: Invalid value: managementPolicy Existing needs the network that every host has: set either name (of a libvirt network) or bridge (of the host)"
		static       = "spec.network: Invalid value: managementPolicy Existing needs nodeRange, gateway and nameservers, because machines get static addresses: set all three"
		ours         = "spec.network: Invalid value: subnets and uuid belong to networks that the provider makes: remove them, or the managementPolicy Existing"
		theirs       = "spec.network: Invalid value: name, bridge, nodeRange, gateway and nameservers belong to networks that are there already: set managementPolicy to Existing, or remove them"
	)
	for _, tt := range []struct {
		name  string
		edits []edit
		want  []string
	}{
		{name: "as documented"},
		{name: "a range and nothing else", edits: []edit{set("spec", "{network: {cidr: 10.100.0.0/25}}")}},
		{name: "the endpoint of the Cluster", edits: []edit{unset("spec.controlPlaneEndpoint")}},
		{name: "a cluster that was moved here", edits: []edit{set("spec.network.uuid", networkUUID)}},
		{name: "a bridge", edits: []edit{bridge}},
		{name: "a libvirt network", edits: []edit{bridge, unset("spec.network.bridge"), set("spec.network.name", "lan")}},
		{name: "a subnet", edits: []edit{set("spec.network.subnets", "[{failureDomain: kvm2, cidr: 10.100.1.0/25}]")}},
		{name: "managed in so many words", edits: []edit{set("spec.network.managementPolicy", "Managed")}},
		{name: "every host but one", edits: []edit{set("spec.hostSelector", "{matchExpressions: [{key: site, operator: NotIn, values: [attic]}]}")}},

		{name: "no network", edits: []edit{unset("spec.network")}, want: []string{"spec.network: Required value"}},
		{name: "no range", edits: []edit{unset("spec.network.cidr")}, want: []string{"spec.network.cidr: Required value"}},
		{
			name: "an address for a range", edits: []edit{set("spec.network.cidr", "10.100.0.1/25")},
			want: []string{`spec.network.cidr: Invalid value: "10.100.0.1/25": has host bits set: use 10.100.0.0/25`},
		},
		{
			name: "a range that is too small", edits: []edit{set("spec.network.cidr", "10.100.0.0/30")},
			want: []string{`spec.network.cidr: Invalid value: "10.100.0.0/30": has a prefix length of 30: use one from /16 to /29`},
		},
		{
			name: "an IPv6 range", edits: []edit{set("spec.network.cidr", "2001:db8::/64")},
			want: []string{`spec.network.cidr: Invalid value: "2001:db8::/64": is not an IPv4 range: use a form like 10.100.0.0/25`},
		},
		{
			name: "an ingress range in the node network", edits: []edit{set("spec.network.ingressCIDR", "10.100.0.64/26")},
			want: []string{`spec.network.ingressCIDR: Invalid value: "10.100.0.64/26": overlaps cidr 10.100.0.0/25: choose a range beside it, so that DHCP never gives out an address of a Service`},
		},
		{
			name: "an MTU that IPv6 in the pods can't live with", edits: []edit{set("spec.network.mtu", "1279")},
			want: []string{"spec.network.mtu: Invalid value: 1279: spec.network.mtu in body should be greater than or equal to 1280"},
		},
		{
			name: "an endpoint that DHCP gives out", edits: []edit{set("spec.controlPlaneEndpoint.host", "10.100.0.10")},
			want: []string{`spec.controlPlaneEndpoint.host: Invalid value: "10.100.0.10": 10.100.0.10 lies in the range that DHCP gives to nodes, 10.100.0.10-10.100.0.126: use one of 10.100.0.2-10.100.0.9`},
		},
		{
			name: "the gateway for an endpoint", edits: []edit{set("spec.controlPlaneEndpoint.host", "10.100.0.1")},
			want: []string{`spec.controlPlaneEndpoint.host: Invalid value: "10.100.0.1": 10.100.0.1 is the gateway of the node network: use one of 10.100.0.2-10.100.0.9`},
		},
		{
			name: "a name for an endpoint", edits: []edit{set("spec.controlPlaneEndpoint.host", "api.example.org")},
			want: []string{`spec.controlPlaneEndpoint.host: Invalid value: "api.example.org": "api.example.org" is not an IPv4 address: use one of 10.100.0.2-10.100.0.9`},
		},
		{
			name: "a selector without values", edits: []edit{set("spec.hostSelector", "{matchExpressions: [{key: site, operator: In}]}")},
			want: []string{"spec.hostSelector.matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'"},
		},
		{
			name: "a UUID that isn't one", edits: []edit{set("spec.network.uuid", "not-a-uuid-but-thirty-six-characters")},
			want: []string{`spec.network.uuid: Invalid value: "not-a-uuid-but-thirty-six-characters": spec.network.uuid in body should match '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$'`},
		},

		{
			name: "somebody's network", edits: []edit{set("spec.network.managementPolicy", "Shared")},
			want: []string{`spec.network.managementPolicy: Unsupported value: "Shared": supported values: "Managed", "Existing"`},
		},
		{name: "neither a bridge nor a network", edits: []edit{bridge, unset("spec.network.bridge")}, want: []string{whichNetwork}},
		{name: "a bridge and a network", edits: []edit{bridge, set("spec.network.name", "lan")}, want: []string{whichNetwork}},
		{name: "no range for nodes", edits: []edit{bridge, unset("spec.network.nodeRange")}, want: []string{static}},
		{name: "no gateway", edits: []edit{bridge, unset("spec.network.gateway")}, want: []string{static}},
		{name: "no nameservers", edits: []edit{bridge, unset("spec.network.nameservers")}, want: []string{static}},
		{name: "a subnet of a bridge", edits: []edit{bridge, set("spec.network.subnets", "[{failureDomain: kvm2, cidr: 10.100.1.0/25}]")}, want: []string{ours}},
		{name: "the UUID of a bridge", edits: []edit{bridge, set("spec.network.uuid", networkUUID)}, want: []string{ours}},
		{name: "a name for a managed network", edits: []edit{set("spec.network.name", "lan")}, want: []string{theirs}},
		{name: "a bridge for a managed network", edits: []edit{set("spec.network.bridge", "br0")}, want: []string{theirs}},
		{name: "a range for nodes in a managed network", edits: []edit{set("spec.network.nodeRange", "10.100.0.20-10.100.0.30")}, want: []string{theirs}},
		{name: "a gateway for a managed network", edits: []edit{set("spec.network.gateway", "10.100.0.1"), set("spec.network.managementPolicy", "Managed")}, want: []string{theirs}},
		{name: "nameservers for a managed network", edits: []edit{set("spec.network.nameservers", "[10.100.0.1]")}, want: []string{theirs}},
		{
			name: "a bridge that Linux can't have", edits: []edit{bridge, set("spec.network.bridge", "../br0")},
			want: []string{`spec.network.bridge: Invalid value: "../br0": spec.network.bridge in body should match '^[A-Za-z0-9_.:-]+$'`},
		},
		{
			name: "a range for nodes beyond the LAN", edits: []edit{bridge, set("spec.network.nodeRange", "192.168.1.100-192.168.2.100")},
			want: []string{`spec.network.nodeRange: Invalid value: "192.168.1.100-192.168.2.100": lies outside cidr: use addresses of 192.168.1.1-192.168.1.254`},
		},
		{
			name: "the gateway among the nodes", edits: []edit{bridge, set("spec.network.gateway", "192.168.1.120")},
			want: []string{`spec.network.nodeRange: Invalid value: "192.168.1.100-192.168.1.149": contains the gateway 192.168.1.120: end before it, or begin after it`},
		},
		{
			name: "the endpoint among the nodes", edits: []edit{bridge, set("spec.controlPlaneEndpoint.host", "192.168.1.149")},
			want: []string{`spec.controlPlaneEndpoint.host: Invalid value: "192.168.1.149": 192.168.1.149 lies in the range that nodes get addresses from, spec.network.nodeRange 192.168.1.100-192.168.1.149: use an address outside it`},
		},
		{
			name: "a name for a nameserver", edits: []edit{bridge, set("spec.network.nameservers", "[192.168.1.1, dns.lan]")},
			want: []string{`spec.network.nameservers[1]: Invalid value: "dns.lan": is not an IP address: use one like 192.168.1.1`},
		},
		{
			name: "subnets that overlap", edits: []edit{set("spec.network.subnets", "[{failureDomain: kvm2, cidr: 10.100.1.0/25}, {failureDomain: kvm3, cidr: 10.100.1.0/24}]")},
			want: []string{`spec.network.subnets[1].cidr: Invalid value: "10.100.1.0/24": overlaps the subnet of failure domain kvm2 10.100.1.0/25: choose a range beside it, so that the networks can be routed to each other`},
		},
		{
			name: "a subnet in the ingress range", edits: []edit{set("spec.network.subnets", "[{failureDomain: kvm2, cidr: 10.100.0.192/26}]")},
			want: []string{`spec.network.subnets[0].cidr: Invalid value: "10.100.0.192/26": overlaps ingressCIDR 10.100.0.128/25: choose a range beside it, so that the networks can be routed to each other`},
		},
		{
			name: "two subnets for a failure domain", edits: []edit{set("spec.network.subnets", "[{failureDomain: kvm2, cidr: 10.100.1.0/25}, {failureDomain: kvm2, cidr: 10.100.2.0/25}]")},
			want: []string{`spec.network.subnets[1]: Duplicate value: {"failureDomain":"kvm2"}`},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			check(t, api.Create(t.Context(), cluster(t, tt.edits...)), tt.want...)
		})
	}
}

// inKvm1 has the network of a cluster on a host in the failure domain kvm1.
func inKvm1(object map[string]any) {
	set("status", "{failureDomains: [{name: kvm1, controlPlane: true}], hosts: [kvm1]}")(object)
}

// TestClusterClash has two clusters give out the same addresses of a bridge that hosts of both have.
func TestClusterClash(t *testing.T) {
	for _, site := range []string{"clash-a", "clash-b"} {
		created := host(t, set("metadata.labels", "{site: "+site+"}"), set("spec.uri", "qemu+libssh2://root@"+site+"/system"))
		check(t, api.Create(t.Context(), created))
	}
	at := func(site string) edit { return set("spec.hostSelector", "{matchLabels: {site: "+site+"}}") }
	elsewhere := set("spec.controlPlaneEndpoint.host", "192.168.1.11")
	first := cluster(t, bridge, at("clash-a"))
	check(t, api.Create(t.Context(), first))
	want := `spec.network.nodeRange: Invalid value: "192.168.1.149-192.168.1.160": overlaps the nodeRange 192.168.1.100-192.168.1.149 of LibvirtCluster ` +
		first.GetName() + ", which uses the same network: choose another"
	overlapping := cluster(t, bridge, elsewhere, at("clash-a"), set("spec.network.nodeRange", "192.168.1.149-192.168.1.160"))
	// Admission reads a cache, which sees the first cluster within moments.
	for end := time.Now().Add(20 * time.Second); api.Create(t.Context(), overlapping.DeepCopy(), client.DryRunAll) == nil; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the second cluster is taken")
		}
	}
	check(t, api.Create(t.Context(), overlapping.DeepCopy()), want)

	second := cluster(t, bridge, elsewhere, at("clash-a"), set("spec.network.nodeRange", "192.168.1.150-192.168.1.160"))
	check(t, api.Create(t.Context(), second))
	check(t, api.Update(t.Context(), change(second, set("spec.network.nodeRange", "192.168.1.149-192.168.1.160"))), want)
	check(t, api.Update(t.Context(), change(second, set("spec.controlPlaneEndpoint", "{host: 192.168.1.10, port: 6443}"))),
		"<nil>: Invalid value: spec.controlPlaneEndpoint can't be changed or removed once it is set, because certificates and kubeconfigs name it: create a new cluster instead")
	check(t, api.Create(t.Context(), cluster(t, bridge, at("clash-a"), set("spec.network.nodeRange", "192.168.1.170-192.168.1.180"))),
		`spec.controlPlaneEndpoint.host: Invalid value: "192.168.1.10": is also that of LibvirtCluster `+first.GetName()+", which uses the same network: choose another")

	third := cluster(t, bridge, at("clash-b"))
	check(t, api.Create(t.Context(), third))
	refused := api.Update(t.Context(), change(third, set("spec.hostSelector", "{}")))
	if lines := refusals(t, refused); len(lines) != 1 || !strings.Contains(lines[0], "overlaps the nodeRange") {
		t.Errorf("got %q", lines)
	}
}

func TestClusterUpdate(t *testing.T) {
	const (
		cidr     = "<nil>: Invalid value: spec.network.cidr can't be changed, because machines have addresses from it: create a new cluster instead"
		uuid     = "<nil>: Invalid value: spec.network.uuid can't be changed or removed: it identifies the libvirt networks of the cluster"
		endpoint = "<nil>: Invalid value: spec.controlPlaneEndpoint can't be changed or removed once it is set, because certificates and kubeconfigs name it: create a new cluster instead"
		stop     = "can't be changed, because the network would have to be stopped under the machines: create a new cluster instead"
	)
	const (
		anotherNetwork = "<nil>: Invalid value: spec.network.managementPolicy, spec.network.name and spec.network.bridge can't be changed, because machines are in that network: create a new cluster instead"
		inUse          = "can't be changed while hosts of the failure domain have the network: take them out of spec.hostSelector first"
	)
	subnets := set("spec.network.subnets", "[{failureDomain: kvm2, cidr: 10.100.1.0/25}]")
	noEndpoint := unset("spec.controlPlaneEndpoint")
	withNetwork := set("spec.network.uuid", networkUUID)
	for _, tt := range []struct {
		name          string
		before, after []edit
		want          []string
	}{
		{name: "metadata", before: []edit{withNetwork}, after: []edit{annotate("example.org/note")}},
		{name: "other hosts", before: []edit{withNetwork}, after: []edit{set("spec.hostSelector", "{matchLabels: {site: attic}}")}},
		{name: "the UUID, once", after: []edit{withNetwork}},
		{name: "the endpoint, once", before: []edit{noEndpoint}, after: []edit{set("spec.controlPlaneEndpoint", "{host: 10.100.0.3, port: 6443}")}},
		{name: "MTU and ingress range before there is a network", after: []edit{set("spec.network.mtu", "1420"), unset("spec.network.ingressCIDR")}},
		{name: "what the MTU is by default", before: []edit{withNetwork}, after: []edit{unset("spec.network.mtu")}},

		{name: "another range", after: []edit{set("spec.network.cidr", "10.100.1.0/25"), noEndpoint}, before: []edit{noEndpoint}, want: []string{cidr}},
		{name: "another UUID", before: []edit{withNetwork}, after: []edit{set("spec.network.uuid", "11111111-1111-4111-8111-111111111111")}, want: []string{uuid}},
		{name: "no UUID any more", before: []edit{withNetwork}, after: []edit{unset("spec.network.uuid")}, want: []string{uuid}},
		{name: "another endpoint", after: []edit{set("spec.controlPlaneEndpoint.host", "10.100.0.3")}, want: []string{endpoint}},
		{name: "another port", after: []edit{set("spec.controlPlaneEndpoint.port", "443")}, want: []string{endpoint}},
		{name: "no endpoint any more", after: []edit{noEndpoint}, want: []string{endpoint}},
		{
			name: "another MTU of a network", before: []edit{withNetwork}, after: []edit{set("spec.network.mtu", "1420")},
			want: []string{"spec.network.mtu: Forbidden: " + stop},
		},
		{
			name: "another ingress range of a network", before: []edit{withNetwork}, after: []edit{set("spec.network.ingressCIDR", "10.100.1.0/25")},
			want: []string{"spec.network.ingressCIDR: Forbidden: " + stop},
		},
		{
			name: "a first ingress range of a network", before: []edit{withNetwork, unset("spec.network.ingressCIDR")},
			after: []edit{set("spec.network.ingressCIDR", "10.100.1.0/25")},
			want:  []string{"spec.network.ingressCIDR: Forbidden: " + stop},
		},

		{name: "more addresses for nodes", before: []edit{bridge}, after: []edit{set("spec.network.nodeRange", "192.168.1.90-192.168.1.160")}},
		{
			name: "another way out", before: []edit{bridge},
			after: []edit{set("spec.network.gateway", "192.168.1.2"), set("spec.network.nameservers", "[192.168.1.3]"), set("spec.network.mtu", "9000")},
		},
		{name: "a subnet for a failure domain without hosts", before: []edit{withNetwork, inKvm1}, after: []edit{subnets}},
		{name: "another subnet for a failure domain without hosts", before: []edit{withNetwork, inKvm1, subnets}, after: []edit{set("spec.network.subnets", "[{failureDomain: kvm2, cidr: 10.100.2.0/25}]")}},
		{
			name: "fewer addresses for nodes", before: []edit{bridge}, after: []edit{set("spec.network.nodeRange", "192.168.1.101-192.168.1.160")},
			want: []string{`spec.network.nodeRange: Invalid value: "192.168.1.101-192.168.1.160": leaves out addresses of 192.168.1.100-192.168.1.149, which machines may have: widen the range only`},
		},
		{name: "another bridge", before: []edit{bridge}, after: []edit{set("spec.network.bridge", "br1")}, want: []string{anotherNetwork}},
		{
			name: "a libvirt network for the bridge", before: []edit{bridge},
			after: []edit{unset("spec.network.bridge"), set("spec.network.name", "br0")}, want: []string{anotherNetwork},
		},
		{
			name: "a managed network for the bridge", before: []edit{noEndpoint, bridge, noEndpoint},
			after: []edit{set("spec.network", "{cidr: 192.168.1.0/24}")}, want: []string{anotherNetwork},
		},
		{
			name: "a subnet for a failure domain with hosts", before: []edit{withNetwork, inKvm1}, after: []edit{set("spec.network.subnets", "[{failureDomain: kvm1, cidr: 10.100.2.0/25}]")},
			want: []string{"spec.network.subnets[kvm1]: Forbidden: " + inUse},
		},
		{
			name: "another subnet for a failure domain with hosts", before: []edit{withNetwork, set("spec.network.subnets", "[{failureDomain: kvm1, cidr: 10.100.1.0/25}]"), inKvm1},
			after: []edit{set("spec.network.subnets", "[{failureDomain: kvm1, cidr: 10.100.2.0/25}]")},
			want:  []string{"spec.network.subnets[kvm1]: Forbidden: " + inUse},
		},
		{
			name: "no subnet any more for a failure domain with hosts", before: []edit{withNetwork, set("spec.network.subnets", "[{failureDomain: kvm1, cidr: 10.100.1.0/25}]"), inKvm1},
			after: []edit{unset("spec.network.subnets")},
			want:  []string{"spec.network.subnets[kvm1]: Forbidden: " + inUse},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			created := cluster(t, tt.before...)
			status := created.Object["status"]
			check(t, api.Create(t.Context(), created))
			if status != nil {
				created.Object["status"] = status
				check(t, api.Status().Update(t.Context(), created))
			}
			check(t, api.Update(t.Context(), change(created, tt.after...)), tt.want...)
		})
	}
}
