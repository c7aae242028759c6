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

const (
	webAndKubectl = "{externalAddress: 203.0.113.10, ports: [{port: 80}, {port: 443, targetPort: 8443, protocol: TCP}]}"
	kubectlOnly   = "{externalAddress: 203.0.113.11, allowedCIDRs: [198.51.100.0/24]}"
)

// letsIn has a cluster let in the web and kubectl, on hosts that no other cluster has.
func letsIn(object map[string]any) {
	set("spec.hostSelector", "{matchLabels: {site: nowhere}}")(object)
	set("spec.network.ingress", webAndKubectl)(object)
	set("spec.network.apiServerAccess", kubectlOnly)(object)
}

func TestClusterGatewayCreate(t *testing.T) {
	const (
		outside = ": use one by which hosts of the cluster are reached from outside, like 203.0.113.10"
		nat     = "spec.network: Invalid value: ingress and apiServerAccess don't go with forwarding NAT, which lets nobody in: create the cluster with forwarding: HostAgent, or remove them"
		theirs  = "spec.network: Invalid value: forwarding, ingress and apiServerAccess belong to networks that the provider makes, clients reach an existing network by its own router: remove them, or the managementPolicy Existing"
		noRange = "spec.network: Invalid value: ingress leads to the address of a LoadBalancer Service: set ingressCIDR, the range of those addresses"
	)
	for _, tt := range []struct {
		name  string
		edits []edit
		want  []string
	}{
		{name: "the web and kubectl", edits: []edit{letsIn}},
		{name: "in so many words", edits: []edit{letsIn, set("spec.network.forwarding", "HostAgent"), set("spec.network.ingress.address", "10.100.0.130")}},
		{name: "the web only", edits: []edit{letsIn, unset("spec.network.apiServerAccess")}},
		{name: "kubectl only", edits: []edit{letsIn, unset("spec.network.ingress"), unset("spec.network.ingressCIDR")}},
		{name: "an agent that lets nobody in", edits: []edit{set("spec.network.forwarding", "HostAgent")}},
		{name: "NAT", edits: []edit{set("spec.network.forwarding", "NAT")}},
		{name: "a cluster that was moved here", edits: []edit{letsIn, set("spec.network.uuid", networkUUID), set("spec.network.forwarding", "HostAgent")}},
		{name: "everybody", edits: []edit{letsIn, set("spec.network.apiServerAccess.allowedCIDRs", "[0.0.0.0/0]")}},

		{
			name: "another forwarding", edits: []edit{set("spec.network.forwarding", "Route")},
			want: []string{`spec.network.forwarding: Unsupported value: "Route": supported values: "NAT", "HostAgent"`},
		},
		{name: "the web by NAT", edits: []edit{letsIn, set("spec.network.forwarding", "NAT")}, want: []string{nat}},
		{name: "the web of a network from before", edits: []edit{letsIn, set("spec.network.uuid", networkUUID)}, want: []string{nat}},
		{name: "the web without a range for Services", edits: []edit{letsIn, unset("spec.network.ingressCIDR")}, want: []string{noRange}},
		{name: "the web of a LAN", edits: []edit{bridge, set("spec.network.ingressCIDR", "192.168.1.192/27"), set("spec.network.ingress", webAndKubectl)}, want: []string{theirs}},
		{name: "kubectl on a LAN", edits: []edit{bridge, set("spec.network.apiServerAccess", kubectlOnly)}, want: []string{theirs}},
		{name: "an agent for a LAN", edits: []edit{bridge, set("spec.network.forwarding", "HostAgent")}, want: []string{theirs}},
		{
			name: "no address", edits: []edit{letsIn, unset("spec.network.ingress.externalAddress")},
			want: []string{"spec.network.ingress.externalAddress: Required value"},
		},
		{name: "no ports", edits: []edit{letsIn, unset("spec.network.ingress.ports")}, want: []string{"spec.network.ingress.ports: Required value"}},
		{
			name: "no networks", edits: []edit{letsIn, unset("spec.network.apiServerAccess.allowedCIDRs")},
			want: []string{"spec.network.apiServerAccess.allowedCIDRs: Required value"},
		},
		{
			name: "a port that isn't one", edits: []edit{letsIn, set("spec.network.ingress.ports", "[{port: 65536}]")},
			want: []string{"spec.network.ingress.ports[0].port: Invalid value: 65536: spec.network.ingress.ports[0].port in body should be less than or equal to 65535"},
		},
		{
			name: "another protocol", edits: []edit{letsIn, set("spec.network.ingress.ports", "[{port: 80, protocol: SCTP}]")},
			want: []string{`spec.network.ingress.ports[0].protocol: Unsupported value: "SCTP": supported values: "TCP", "UDP"`},
		},
		{
			name: "an address of a node", edits: []edit{letsIn, set("spec.network.ingress.externalAddress", "10.100.0.20")},
			want: []string{`spec.network.ingress.externalAddress: Invalid value: "10.100.0.20": lies in 10.100.0.0/25, which is a range of the cluster itself` + outside},
		},
		{
			name: "loopback", edits: []edit{letsIn, set("spec.network.apiServerAccess.externalAddress", "127.0.0.1")},
			want: []string{`spec.network.apiServerAccess.externalAddress: Invalid value: "127.0.0.1": is not an address that clients elsewhere can connect to` + outside},
		},
		{
			name: "the host's address for the Service", edits: []edit{letsIn, set("spec.network.ingress.address", "10.100.0.129")},
			want: []string{`spec.network.ingress.address: Invalid value: "10.100.0.129": is the host's own address in ingressCIDR 10.100.0.128/25: use one of 10.100.0.130-10.100.0.254`},
		},
		{
			name: "a port twice", edits: []edit{letsIn, set("spec.network.ingress.ports", "[{port: 80}, {port: 80, protocol: UDP}, {port: 80, protocol: TCP, targetPort: 8080}]")},
			want: []string{`spec.network.ingress.ports[2].port: Invalid value: "80": is listed twice for TCP: remove one of the two`},
		},
		{
			name: "the web and kubectl at one port", edits: []edit{letsIn, set("spec.network.apiServerAccess", "{externalAddress: 203.0.113.10, port: 443, allowedCIDRs: [198.51.100.0/24]}")},
			want: []string{`spec.network.apiServerAccess.port: Invalid value: "443": is also a port of ingress at the same externalAddress: choose another port, or another address`},
		},
		{
			name: "host bits", edits: []edit{letsIn, set("spec.network.apiServerAccess.allowedCIDRs", "[198.51.100.0/24, 192.0.2.1/30]")},
			want: []string{`spec.network.apiServerAccess.allowedCIDRs[1]: Invalid value: "192.0.2.1/30": has host bits set: use 192.0.2.0/30`},
		},
		{
			name: "a network twice", edits: []edit{letsIn, set("spec.network.apiServerAccess.allowedCIDRs", "[198.51.100.0/24, 198.51.100.0/24]")},
			want: []string{`spec.network.apiServerAccess.allowedCIDRs[1]: Duplicate value: "198.51.100.0/24"`},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			check(t, api.Create(t.Context(), cluster(t, tt.edits...), client.DryRunAll), tt.want...)
		})
	}
}

func TestClusterGatewayUpdate(t *testing.T) {
	const (
		kept = "<nil>: Invalid value: spec.network.forwarding can't be changed once the network is there, because the network would have to be stopped under the machines: create the cluster with forwarding: HostAgent (or NAT) instead"
		nat  = "spec.network: Invalid value: ingress and apiServerAccess don't go with forwarding NAT, which lets nobody in: create the cluster with forwarding: HostAgent, or remove them"
	)
	withNetwork := set("spec.network.uuid", networkUUID)
	withAgent, withNAT := set("spec.network.forwarding", "HostAgent"), set("spec.network.forwarding", "NAT")
	for _, tt := range []struct {
		name          string
		before, after []edit
		want          []string
	}{
		{name: "what the controller writes down", before: []edit{letsIn}, after: []edit{withNetwork, withAgent}},
		{name: "NAT that the controller writes down", after: []edit{withNetwork, withNAT}},
		{name: "another forwarding before there is a network", before: []edit{withNAT}, after: []edit{withAgent}},
		{name: "a first way in", before: []edit{withNetwork, withAgent}, after: []edit{letsIn}},
		{name: "no way in any more", before: []edit{letsIn, withNetwork, withAgent}, after: []edit{unset("spec.network.ingress"), unset("spec.network.apiServerAccess")}},
		{
			name: "other ways in", before: []edit{letsIn, withNetwork, withAgent},
			after: []edit{set("spec.network.ingress.ports", "[{port: 8080}]"), set("spec.network.apiServerAccess.allowedCIDRs", "[192.0.2.0/24]")},
		},
		{name: "what a network from before has", before: []edit{withNetwork}, after: []edit{withNAT}},

		{name: "an agent instead of NAT", before: []edit{withNetwork, withNAT}, after: []edit{withAgent}, want: []string{kept}},
		{name: "an agent for a network from before", before: []edit{withNetwork}, after: []edit{withAgent}, want: []string{kept}},
		{name: "NAT instead of an agent", before: []edit{withNetwork, withAgent}, after: []edit{withNAT}, want: []string{kept}},
		{name: "nothing instead of an agent", before: []edit{withNetwork, withAgent}, after: []edit{unset("spec.network.forwarding")}, want: []string{kept}},
		{name: "the web by NAT", before: []edit{withNetwork, withNAT}, after: []edit{letsIn}, want: []string{nat}},
		{name: "the web of a network from before", before: []edit{withNetwork}, after: []edit{letsIn}, want: []string{nat}},
		{
			name: "an address of a node", before: []edit{letsIn, withNetwork, withAgent}, after: []edit{set("spec.network.ingress.address", "10.100.0.20")},
			want: []string{`spec.network.ingress.address: Invalid value: "10.100.0.20": is outside ingressCIDR 10.100.0.128/25: use one of 10.100.0.130-10.100.0.254`},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			created := cluster(t, tt.before...)
			check(t, api.Create(t.Context(), created))
			check(t, api.Update(t.Context(), change(created, tt.after...)), tt.want...)
		})
	}
}

// TestClusterGatewayClash has two clusters let connections in at the same address and port of a host of both.
func TestClusterGatewayClash(t *testing.T) {
	created := host(t, set("metadata.labels", "{site: outside}"), set("spec.uri", "qemu+libssh2://root@outside/system"))
	check(t, api.Create(t.Context(), created))
	at := func(site string) edit { return set("spec.hostSelector", "{matchLabels: {site: "+site+"}}") }
	first := cluster(t, letsIn, at("outside"))
	check(t, api.Create(t.Context(), first))
	refused := func(field, way string) string {
		return field + `: Invalid value: "` + way + `": is also a way into LibvirtCluster ` + first.GetName() +
			", on a host that both may use: choose another port, or another externalAddress"
	}
	second := cluster(t, letsIn, at("outside"), unset("spec.network.apiServerAccess"), set("spec.network.ingress.ports", "[{port: 443}]"))
	// Admission reads a cache, which sees the first cluster within moments.
	for end := time.Now().Add(20 * time.Second); api.Create(t.Context(), second.DeepCopy(), client.DryRunAll) == nil; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the second cluster is taken")
		}
	}
	check(t, api.Create(t.Context(), second.DeepCopy()), refused("spec.network.ingress", "203.0.113.10:443/tcp"))
	check(t, api.Create(t.Context(), cluster(t, letsIn, at("outside"), unset("spec.network.ingress"))),
		refused("spec.network.apiServerAccess", "203.0.113.11:6443/tcp"))
	check(t, api.Create(t.Context(), cluster(t, letsIn, at("inside"))))

	// Beside the first there is room, but not in its place.
	beside := cluster(t, letsIn, at("outside"), unset("spec.network.apiServerAccess"), set("spec.network.ingress.ports", "[{port: 8443}]"))
	check(t, api.Create(t.Context(), beside))
	check(t, api.Update(t.Context(), change(beside, set("spec.network.ingress.ports", "[{port: 8443}, {port: 80}]"))),
		refused("spec.network.ingress", "203.0.113.10:80/tcp"))
	check(t, api.Update(t.Context(), change(first, set("spec.network.ingress.ports", "[{port: 80}]"))))
}
