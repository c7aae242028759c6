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
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
)

func TestPlans(t *testing.T) {
	plans, err := NewPlans(infrav1.ClusterNetwork{
		CIDR: "10.100.0.0/25", IngressCIDR: "10.100.0.128/25",
		Subnets: []infrav1.Subnet{{FailureDomain: "kvm2", CIDR: "10.100.1.0/25"}, {FailureDomain: "attic", CIDR: "10.100.2.0/28"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for failureDomain, want := range map[string]struct{ prefix, gateway, nodes, ingress string }{
		"kvm1":  {"10.100.0.0/25", "10.100.0.1", "10.100.0.10-10.100.0.126", "10.100.0.128/25"},
		"":      {"10.100.0.0/25", "10.100.0.1", "10.100.0.10-10.100.0.126", "10.100.0.128/25"},
		"kvm2":  {"10.100.1.0/25", "10.100.1.1", "10.100.1.10-10.100.1.126", "invalid Prefix"},
		"attic": {"10.100.2.0/28", "10.100.2.1", "10.100.2.4-10.100.2.14", "invalid Prefix"},
	} {
		plan := plans.For(failureDomain)
		if plan.Prefix.String() != want.prefix || plan.Gateway.String() != want.gateway || plan.Nodes.String() != want.nodes || plan.Ingress.String() != want.ingress {
			t.Errorf("%q: got %+v", failureDomain, plan)
		}
	}
}

func TestPlansRefuse(t *testing.T) {
	const beside = ": choose a range beside it, so that the networks can be routed to each other"
	for _, tt := range []struct {
		name  string
		cidrs []string
		want  FieldError
	}{
		{"no range", []string{"10.100.1.0/25", "nowhere"}, FieldError{"subnets[1].cidr", "nowhere", "is not an IPv4 range: use a form like 10.100.0.0/25"}},
		{"too small a range", []string{"10.100.1.0/30"}, FieldError{"subnets[0].cidr", "10.100.1.0/30", "has a prefix length of 30: use one from /16 to /29"}},
		{"the main range", []string{"10.100.0.64/26"}, FieldError{"subnets[0].cidr", "10.100.0.64/26", "overlaps cidr 10.100.0.0/25" + beside}},
		{"the ingress range", []string{"10.100.0.192/26"}, FieldError{"subnets[0].cidr", "10.100.0.192/26", "overlaps ingressCIDR 10.100.0.128/25" + beside}},
		{
			"another subnet", []string{"10.100.1.0/25", "10.100.1.64/26"},
			FieldError{"subnets[1].cidr", "10.100.1.64/26", "overlaps the subnet of failure domain a 10.100.1.0/25" + beside},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			spec := infrav1.ClusterNetwork{CIDR: "10.100.0.0/25", IngressCIDR: "10.100.0.128/25"}
			for i, cidr := range tt.cidrs {
				spec.Subnets = append(spec.Subnets, infrav1.Subnet{FailureDomain: string(rune('a' + i)), CIDR: cidr})
			}
			_, err := NewPlans(spec)
			expectFieldError(t, err, tt.want)
		})
	}
}

func TestCheckNodeRangeChange(t *testing.T) {
	for after, refused := range map[string]bool{
		"192.168.1.100-192.168.1.149": false,
		"192.168.1.90-192.168.1.160":  false,
		"192.168.1.101-192.168.1.149": true,
		"192.168.1.100-192.168.1.148": true,
		"192.168.1.200-192.168.1.220": true,
	} {
		err := CheckNodeRangeChange(lan(), lan(func(n *infrav1.ClusterNetwork) { n.NodeRange = after }))
		if !refused {
			if err != nil {
				t.Errorf("%s: %v", after, err)
			}
			continue
		}
		expectFieldError(t, err, FieldError{"nodeRange", after, "leaves out addresses of 192.168.1.100-192.168.1.149, which machines may have: widen the range only"})
	}
}

func TestFindClash(t *testing.T) {
	cluster := func(namespace, name, nodes, endpoint string, edits ...func(*infrav1.LibvirtCluster)) infrav1.LibvirtCluster {
		c := infrav1.LibvirtCluster{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
			Spec: infrav1.LibvirtClusterSpec{
				Network:              lan(func(n *infrav1.ClusterNetwork) { n.NodeRange = nodes }),
				ControlPlaneEndpoint: infrav1.APIEndpoint{Host: endpoint, Port: 6443},
			},
		}
		for _, edit := range edits {
			edit(&c)
		}
		return c
	}
	host := func(namespace, name, uri, site string) infrav1.LibvirtHost {
		return infrav1.LibvirtHost{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{"site": site}},
			Spec:       infrav1.LibvirtHostSpec{URI: uri},
		}
	}
	hosts := []infrav1.LibvirtHost{
		host("home", "kvm1", "qemu+tls://kvm1/system", "cellar"), host("home", "kvm2", "qemu+tls://kvm2/system", "attic"),
		host("away", "same", "qemu+tls://kvm1/system", ""), host("else", "other", "qemu+tls://kvm9/system", ""),
	}
	at := func(site string) func(*infrav1.LibvirtCluster) {
		return func(c *infrav1.LibvirtCluster) { c.Spec.HostSelector.MatchLabels = map[string]string{"site": site} }
	}
	ours := cluster("home", "green", "192.168.1.100-192.168.1.149", "192.168.1.10")
	const choose = ", which uses the same network: choose another"
	for _, tt := range []struct {
		name   string
		others []infrav1.LibvirtCluster
		want   string
	}{
		{name: "nobody else"},
		{name: "ourselves", others: []infrav1.LibvirtCluster{ours}},
		{name: "a range beside ours", others: []infrav1.LibvirtCluster{cluster("home", "white", "192.168.1.150-192.168.1.199", "192.168.1.11")}},
		{
			name: "a range that overlaps ours", others: []infrav1.LibvirtCluster{cluster("home", "white", "192.168.1.149-192.168.1.199", "192.168.1.11")},
			want: "network.nodeRange 192.168.1.100-192.168.1.149 overlaps the nodeRange 192.168.1.149-192.168.1.199 of LibvirtCluster white" + choose,
		},
		{
			name: "the second of two", others: []infrav1.LibvirtCluster{
				cluster("home", "white", "192.168.1.150-192.168.1.199", "192.168.1.11"), cluster("home", "red", "192.168.1.90-192.168.1.100", "192.168.1.12"),
			},
			want: "network.nodeRange 192.168.1.100-192.168.1.149 overlaps the nodeRange 192.168.1.90-192.168.1.100 of LibvirtCluster red" + choose,
		},
		{
			name: "an endpoint in our range", others: []infrav1.LibvirtCluster{cluster("home", "white", "192.168.1.150-192.168.1.199", "192.168.1.100")},
			want: "network.nodeRange 192.168.1.100-192.168.1.149 contains the control-plane endpoint 192.168.1.100 of LibvirtCluster white" + choose,
		},
		{
			name: "our endpoint in a range", others: []infrav1.LibvirtCluster{cluster("home", "white", "192.168.1.8-192.168.1.20", "192.168.1.30")},
			want: "controlPlaneEndpoint.host 192.168.1.10 lies in the nodeRange 192.168.1.8-192.168.1.20 of LibvirtCluster white" + choose,
		},
		{
			name: "our endpoint", others: []infrav1.LibvirtCluster{cluster("home", "white", "192.168.1.150-192.168.1.199", "192.168.1.10")},
			want: "controlPlaneEndpoint.host 192.168.1.10 is also that of LibvirtCluster white" + choose,
		},
		{name: "another bridge", others: []infrav1.LibvirtCluster{cluster("home", "white", "192.168.1.100-192.168.1.149", "192.168.1.10", func(c *infrav1.LibvirtCluster) {
			c.Spec.Network.Bridge = "br1"
		})}},
		{name: "a libvirt network", others: []infrav1.LibvirtCluster{cluster("home", "white", "192.168.1.100-192.168.1.149", "192.168.1.10", func(c *infrav1.LibvirtCluster) {
			c.Spec.Network.Bridge, c.Spec.Network.Name = "", "br0"
		})}},
		{name: "a managed network", others: []infrav1.LibvirtCluster{cluster("home", "white", "", "192.168.1.10", func(c *infrav1.LibvirtCluster) {
			c.Spec.Network = infrav1.ClusterNetwork{CIDR: "192.168.1.0/24"}
		})}},
		{name: "other hosts", others: []infrav1.LibvirtCluster{cluster("home", "white", "192.168.1.100-192.168.1.149", "192.168.1.10", at("garage"))}},
		{
			name: "some of our hosts", others: []infrav1.LibvirtCluster{cluster("home", "white", "192.168.1.100-192.168.1.149", "192.168.1.10", at("attic"))},
			want: "network.nodeRange 192.168.1.100-192.168.1.149 overlaps the nodeRange 192.168.1.100-192.168.1.149 of LibvirtCluster white" + choose,
		},
		{
			name: "the same name in another namespace, on one of our hosts", others: []infrav1.LibvirtCluster{cluster("away", "green", "192.168.1.100-192.168.1.149", "192.168.1.10")},
			want: "network.nodeRange 192.168.1.100-192.168.1.149 overlaps the nodeRange 192.168.1.100-192.168.1.149 of a LibvirtCluster of another namespace" + choose,
		},
		{name: "another namespace, on other hosts", others: []infrav1.LibvirtCluster{cluster("else", "white", "192.168.1.100-192.168.1.149", "192.168.1.10")}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := ""
			if clash := FindClash(&ours, tt.others, hosts); clash != nil {
				got = strings.Join([]string{clash.Field, clash.Value, clash.Detail}, " ")
			}
			if got != tt.want {
				t.Errorf("got\n%q, want\n%q", got, tt.want)
			}
		})
	}
}
