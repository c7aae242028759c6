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

import "testing"

const networkUUID = "3e2c9f80-5b5d-4bb0-8f43-5b0e0a2f7c11"

func TestClusterCreate(t *testing.T) {
	for _, tt := range []struct {
		name  string
		edits []edit
		want  []string
	}{
		{name: "as documented"},
		{name: "a range and nothing else", edits: []edit{set("spec", "{network: {cidr: 10.100.0.0/25}}")}},
		{name: "the endpoint of the Cluster", edits: []edit{unset("spec.controlPlaneEndpoint")}},
		{name: "a cluster that was moved here", edits: []edit{set("spec.network.uuid", networkUUID)}},
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
	} {
		t.Run(tt.name, func(t *testing.T) {
			check(t, api.Create(t.Context(), cluster(t, tt.edits...)), tt.want...)
		})
	}
}

func TestClusterUpdate(t *testing.T) {
	const (
		cidr     = "<nil>: Invalid value: spec.network.cidr can't be changed, because machines have addresses from it: create a new cluster instead"
		uuid     = "<nil>: Invalid value: spec.network.uuid can't be changed or removed: it identifies the libvirt networks of the cluster"
		endpoint = "<nil>: Invalid value: spec.controlPlaneEndpoint can't be changed or removed once it is set, because certificates and kubeconfigs name it: create a new cluster instead"
		stop     = "can't be changed, because the network would have to be stopped under the machines: create a new cluster instead"
	)
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
	} {
		t.Run(tt.name, func(t *testing.T) {
			created := cluster(t, tt.before...)
			check(t, api.Create(t.Context(), created))
			check(t, api.Update(t.Context(), change(created, tt.after...)), tt.want...)
		})
	}
}
