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
	"net/netip"
	"reflect"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/gateway"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/owner"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/xmltest"
)

// open is a cluster that lets in the web, and from two networks kubectl.
func open(edits ...func(*infrav1.LibvirtClusterSpec)) infrav1.LibvirtClusterSpec {
	spec := infrav1.LibvirtClusterSpec{
		ControlPlaneEndpoint: infrav1.APIEndpoint{Host: "10.100.0.2", Port: 6443},
		Network: infrav1.ClusterNetwork{
			CIDR: "10.100.0.0/25", IngressCIDR: "10.100.0.128/25",
			Subnets: []infrav1.Subnet{{FailureDomain: "attic", CIDR: "10.100.1.0/25"}},
			Ingress: infrav1.Ingress{
				ExternalAddress: "203.0.113.10",
				Ports:           []infrav1.IngressPort{{Port: 80}, {Port: 443, TargetPort: 8443}, {Port: 443, Protocol: infrav1.IngressUDP}},
			},
			APIServerAccess: infrav1.APIServerAccess{
				ExternalAddress: "203.0.113.11", AllowedCIDRs: []string{"198.51.100.0/24", "192.0.2.7/32"},
			},
		},
	}
	for _, edit := range edits {
		edit(&spec)
	}
	return spec
}

func forwardsOf(t *testing.T, spec infrav1.LibvirtClusterSpec) ([]gateway.Forward, Plans) {
	t.Helper()
	plans, err := NewPlans(spec.Network)
	if err != nil {
		t.Fatal(err)
	}
	forwards, err := Forwards(spec, plans)
	if err != nil {
		t.Fatal(err)
	}
	return forwards, plans
}

func TestForwards(t *testing.T) {
	forwards, plans := forwardsOf(t, open())
	web, api := netip.MustParseAddr("203.0.113.10"), netip.MustParseAddr("203.0.113.11")
	service, endpoint := netip.MustParseAddr("10.100.0.130"), netip.MustParseAddr("10.100.0.2")
	want := []gateway.Forward{
		{Name: "ingress", Protocol: gateway.TCP, External: web, Port: 80, Target: service, TargetPort: 80},
		{Name: "ingress", Protocol: gateway.TCP, External: web, Port: 443, Target: service, TargetPort: 8443},
		{Name: "ingress", Protocol: gateway.UDP, External: web, Port: 443, Target: service, TargetPort: 443},
		{
			Name: "apiServerAccess", Protocol: gateway.TCP, External: api, Port: 6443, Target: endpoint, TargetPort: 6443,
			Sources: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("192.0.2.7/32")},
		},
	}
	if !reflect.DeepEqual(forwards, want) {
		t.Errorf("got\n%+v, want\n%+v", forwards, want)
	}

	// Hosts with a subnet of their own have neither the endpoint nor the ingress range.
	for failureDomain, want := range map[string]int{"cellar": 4, "attic": 0} {
		plan := plans.For(failureDomain)
		wanted := WantedOn(plan, forwards)
		if len(wanted.Forwards) != want {
			t.Errorf("hosts in %s have the forwards %v, want %d", failureDomain, wanted.Forwards, want)
		}
		ranges, own := []netip.Prefix{plan.Prefix}, []netip.Addr{plan.Gateway}
		if plan.Ingress.IsValid() {
			ranges, own = append(ranges, plan.Ingress), append(own, plan.IngressGateway)
		}
		if err := gateway.Check(wanted, ranges, own); err != nil {
			t.Errorf("the agent would refuse it: %v", err)
		}
	}

	// The endpoint may come later than the rest.
	if forwards, _ := forwardsOf(t, open(func(s *infrav1.LibvirtClusterSpec) { s.ControlPlaneEndpoint = infrav1.APIEndpoint{} })); len(forwards) != 3 {
		t.Errorf("without an endpoint got %v", forwards)
	}
	forwards, _ = forwardsOf(t, open(func(s *infrav1.LibvirtClusterSpec) {
		s.ControlPlaneEndpoint.Port, s.Network.APIServerAccess.Port, s.Network.Ingress.Address = 443, 16443, "10.100.0.254"
	}))
	if last := forwards[3]; last.Port != 16443 || last.TargetPort != 443 {
		t.Errorf("got %+v", last)
	}
	if target := forwards[0].Target.String(); target != "10.100.0.254" {
		t.Errorf("the web goes to %s", target)
	}
	if forwards, _ := forwardsOf(t, open(func(s *infrav1.LibvirtClusterSpec) { s.Network.Forwarding = infrav1.ForwardingNAT })); forwards != nil {
		t.Errorf("NAT lets in %v", forwards)
	}
}

func TestForwardsRefused(t *testing.T) {
	const remedy = ": use one by which hosts of the cluster are reached from outside, like 203.0.113.10"
	ingress := func(edit func(*infrav1.Ingress)) func(*infrav1.LibvirtClusterSpec) {
		return func(s *infrav1.LibvirtClusterSpec) { edit(&s.Network.Ingress) }
	}
	external := func(value string) func(*infrav1.LibvirtClusterSpec) {
		return ingress(func(i *infrav1.Ingress) { i.ExternalAddress = value })
	}
	address := func(value string) func(*infrav1.LibvirtClusterSpec) {
		return ingress(func(i *infrav1.Ingress) { i.Address = value })
	}
	access := func(edit func(*infrav1.APIServerAccess)) func(*infrav1.LibvirtClusterSpec) {
		return func(s *infrav1.LibvirtClusterSpec) { edit(&s.Network.APIServerAccess) }
	}
	from := func(value string) func(*infrav1.LibvirtClusterSpec) {
		return access(func(a *infrav1.APIServerAccess) { a.AllowedCIDRs = []string{"198.51.100.0/24", value} })
	}
	for _, tt := range []struct {
		name string
		edit func(*infrav1.LibvirtClusterSpec)
		want FieldError
	}{
		{"a name", external("example.org"), FieldError{"ingress.externalAddress", "example.org", "is not an IPv4 address" + remedy}},
		{"IPv6", external("2001:db8::1"), FieldError{"ingress.externalAddress", "2001:db8::1", "is not an IPv4 address" + remedy}},
		{"any address", external("0.0.0.0"), FieldError{"ingress.externalAddress", "0.0.0.0", "is not an address that clients elsewhere can connect to" + remedy}},
		{"loopback", external("127.0.0.2"), FieldError{"ingress.externalAddress", "127.0.0.2", "is not an address that clients elsewhere can connect to" + remedy}},
		{"multicast", external("224.0.0.18"), FieldError{"ingress.externalAddress", "224.0.0.18", "is not an address that clients elsewhere can connect to" + remedy}},
		{"broadcast", external("255.255.255.255"), FieldError{"ingress.externalAddress", "255.255.255.255", "is not an address that clients elsewhere can connect to" + remedy}},
		{"a node's", external("10.100.0.20"), FieldError{"ingress.externalAddress", "10.100.0.20", "lies in 10.100.0.0/25, which is a range of the cluster itself" + remedy}},
		{"a Service's", external("10.100.0.130"), FieldError{"ingress.externalAddress", "10.100.0.130", "lies in 10.100.0.128/25, which is a range of the cluster itself" + remedy}},
		{"that of a subnet", external("10.100.1.1"), FieldError{"ingress.externalAddress", "10.100.1.1", "lies in 10.100.1.0/25, which is a range of the cluster itself" + remedy}},
		{"an API server at a node", access(func(a *infrav1.APIServerAccess) { a.ExternalAddress = "10.100.0.2" }),
			FieldError{"apiServerAccess.externalAddress", "10.100.0.2", "lies in 10.100.0.0/25, which is a range of the cluster itself" + remedy}},

		{"a Service at a node", address("10.100.0.20"), FieldError{"ingress.address", "10.100.0.20", "is outside ingressCIDR 10.100.0.128/25: use one of 10.100.0.130-10.100.0.254"}},
		{"a Service at the host", address("10.100.0.129"), FieldError{"ingress.address", "10.100.0.129", "is the host's own address in ingressCIDR 10.100.0.128/25: use one of 10.100.0.130-10.100.0.254"}},
		{"the network", address("10.100.0.128"), FieldError{"ingress.address", "10.100.0.128", "is the network's own or its broadcast address: use one of 10.100.0.130-10.100.0.254"}},
		{"the last address", address("10.100.0.255"), FieldError{"ingress.address", "10.100.0.255", "is the network's own or its broadcast address: use one of 10.100.0.130-10.100.0.254"}},
		{"a Service's name", address("web"), FieldError{"ingress.address", "web", "is not an IPv4 address: use one of 10.100.0.130-10.100.0.254"}},
		{"no range for Services", func(s *infrav1.LibvirtClusterSpec) { s.Network.IngressCIDR = "" }, FieldError{"ingress.address", "", "lies in no ingress range: set ingressCIDR"}},

		{"a port twice", ingress(func(i *infrav1.Ingress) { i.Ports = append(i.Ports, infrav1.IngressPort{Port: 80, TargetPort: 8080}) }),
			FieldError{"ingress.ports[3].port", "80", "is listed twice for TCP: remove one of the two"}},
		{"a port of UDP twice", ingress(func(i *infrav1.Ingress) {
			i.Ports = append(i.Ports, infrav1.IngressPort{Port: 443, Protocol: infrav1.IngressUDP})
		}), FieldError{"ingress.ports[3].port", "443", "is listed twice for UDP: remove one of the two"}},
		{"two ways at one port", access(func(a *infrav1.APIServerAccess) { a.ExternalAddress, a.Port = "203.0.113.10", 443 }),
			FieldError{"apiServerAccess.port", "443", "is also a port of ingress at the same externalAddress: choose another port, or another address"}},
		{"two ways at the usual port", func(s *infrav1.LibvirtClusterSpec) {
			s.Network.APIServerAccess.ExternalAddress = "203.0.113.10"
			s.Network.Ingress.Ports = []infrav1.IngressPort{{Port: 6443}}
		}, FieldError{"apiServerAccess.port", "6443", "is also a port of ingress at the same externalAddress: choose another port, or another address"}},

		{"no networks", access(func(a *infrav1.APIServerAccess) { a.AllowedCIDRs = nil }), FieldError{"apiServerAccess.allowedCIDRs", "", "is empty: list the ranges that clients are in"}},
		{"an address", from("198.51.100.7"), FieldError{"apiServerAccess.allowedCIDRs[1]", "198.51.100.7", "is an address and not a range: use 198.51.100.7/32"}},
		{"host bits", from("198.51.100.7/24"), FieldError{"apiServerAccess.allowedCIDRs[1]", "198.51.100.7/24", "has host bits set: use 198.51.100.0/24"}},
		{"IPv6 networks", from("2001:db8::/64"), FieldError{"apiServerAccess.allowedCIDRs[1]", "2001:db8::/64", "is not an IPv4 range: use a form like 198.51.100.0/24"}},
		{"the office", from("office"), FieldError{"apiServerAccess.allowedCIDRs[1]", "office", "is not an IPv4 range: use a form like 198.51.100.0/24"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			spec := open(tt.edit)
			plans, err := NewPlans(spec.Network)
			if err != nil {
				t.Fatal(err)
			}
			_, err = Forwards(spec, plans)
			expectFieldError(t, err, tt.want)
		})
	}
	// The same port by another protocol, or at another address, is another way.
	forwardsOf(t, open(access(func(a *infrav1.APIServerAccess) { a.ExternalAddress, a.Port = "203.0.113.10", 6443 })))
	forwardsOf(t, open(from("0.0.0.0/0")))
}

func TestForwarding(t *testing.T) {
	for _, tt := range []struct {
		name string
		edit func(*infrav1.ClusterNetwork)
		want infrav1.Forwarding
	}{
		{"a way in", func(*infrav1.ClusterNetwork) {}, infrav1.ForwardingHostAgent},
		{"the web only", func(n *infrav1.ClusterNetwork) { n.APIServerAccess = infrav1.APIServerAccess{} }, infrav1.ForwardingHostAgent},
		{"kubectl only", func(n *infrav1.ClusterNetwork) { n.Ingress = infrav1.Ingress{} }, infrav1.ForwardingHostAgent},
		{"nothing", func(n *infrav1.ClusterNetwork) {
			n.Ingress, n.APIServerAccess = infrav1.Ingress{}, infrav1.APIServerAccess{}
		}, infrav1.ForwardingNAT},
		{"written down", func(n *infrav1.ClusterNetwork) { n.Forwarding, n.UUID = infrav1.ForwardingHostAgent, ourUUID }, infrav1.ForwardingHostAgent},
		{"a network from before", func(n *infrav1.ClusterNetwork) { n.UUID = ourUUID }, infrav1.ForwardingNAT},
		{"a LAN", func(n *infrav1.ClusterNetwork) { *n = lan() }, ""},
	} {
		spec := open().Network
		tt.edit(&spec)
		if got := Forwarding(spec); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestExternalAPIServer(t *testing.T) {
	spec := open().Network
	if got := ExternalAPIServer(spec); got != "https://203.0.113.11:6443" {
		t.Errorf("got %s", got)
	}
	spec.APIServerAccess.Port = 443
	if got := ExternalAPIServer(spec); got != "https://203.0.113.11:443" {
		t.Errorf("got %s", got)
	}
	if got := ExternalAPIServer(infrav1.ClusterNetwork{}); got != "" {
		t.Errorf("got %s", got)
	}
}

// TestHasGateway changes what a network says in all ways that somebody else may.
func TestHasGateway(t *testing.T) {
	d := definition(t, "10.100.0.128/25", 0)
	forwards, plans := forwardsOf(t, open())
	wanted := WantedOn(plans.Main, forwards)
	d.Gateway = &wanted
	document, err := RenderNetwork(d)
	if err != nil {
		t.Fatal(err)
	}
	xmltest.Golden(t, "network-gateway.xml", document)
	xmltest.Accepts(t, document, "net-define", "--validate")
	if by, ok := owner.Of(document); !ok || by != d.Owner {
		t.Errorf("it belongs to %v, %t", by, ok)
	}
	plain := definition(t, "10.100.0.128/25", 0)
	nat, err := RenderNetwork(plain)
	if err != nil {
		t.Fatal(err)
	}
	gatewayElement, err := wanted.Render()
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		document string
		want     bool
	}{
		"ours":                   {document, true},
		"none":                   {strings.Replace(document, gatewayElement, "", 1), false},
		"junk":                   {strings.Replace(document, gatewayElement, `<x:gateway xmlns:x="`+gateway.Namespace+`"><junk/></x:gateway>`, 1), false},
		"another version":        {strings.Replace(document, "gateway/"+gateway.Version, "gateway/v9", 1), false},
		"another port":           {strings.Replace(document, `port="80"`, `port="81"`, 1), false},
		"another forward mode":   {strings.Replace(document, `mode="open"`, `mode="nat"`, 1), false},
		"libvirt's NAT":          {nat, false},
		"an attribute too many":  {strings.Replace(document, `port="80"`, `port="80" also="81"`, 1), false},
		"somebody else's beside": {strings.Replace(document, "</metadata>", `<o:note xmlns:o="https://example.org/"/></metadata>`, 1), true},
	} {
		if got, err := HasGateway(tt.document, d); err != nil || got != tt.want {
			t.Errorf("%s: got %t, %v", name, got, err)
		}
		// A network with NAT may say whatever it likes.
		if got, err := HasGateway(tt.document, plain); err != nil || !got {
			t.Errorf("%s, with NAT: got %t, %v", name, got, err)
		}
	}
	if _, err := HasGateway("<network", d); err == nil {
		t.Error("what isn't XML has a gateway")
	}
}

// TestFindClashOutside has two clusters let connections in at the same address and port.
func TestFindClashOutside(t *testing.T) {
	cluster := func(namespace, name string, edit func(*infrav1.ClusterNetwork)) infrav1.LibvirtCluster {
		c := infrav1.LibvirtCluster{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Spec: open()}
		edit(&c.Spec.Network)
		return c
	}
	host := func(namespace, uri string) infrav1.LibvirtHost {
		return infrav1.LibvirtHost{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "kvm"}, Spec: infrav1.LibvirtHostSpec{URI: uri}}
	}
	hosts := []infrav1.LibvirtHost{host("home", "qemu+tls://kvm1/system"), host("away", "qemu+tls://kvm1/system"), host("else", "qemu+tls://kvm2/system")}
	only := func(external string, ports ...infrav1.IngressPort) func(*infrav1.ClusterNetwork) {
		return func(n *infrav1.ClusterNetwork) {
			n.APIServerAccess = infrav1.APIServerAccess{}
			n.Ingress = infrav1.Ingress{ExternalAddress: external, Ports: ports}
		}
	}
	const choose = ", on a host that both may use: choose another port, or another externalAddress"
	ours := cluster("home", "green", func(*infrav1.ClusterNetwork) {})
	for _, tt := range []struct {
		name  string
		other infrav1.LibvirtCluster
		want  string
	}{
		{"the same", cluster("home", "white", func(*infrav1.ClusterNetwork) {}), "network.ingress 203.0.113.10:80/tcp is also a way into LibvirtCluster white" + choose},
		{"ourselves", ours, ""},
		{"one port", cluster("home", "white", only("203.0.113.10", infrav1.IngressPort{Port: 443, Protocol: infrav1.IngressUDP})),
			"network.ingress 203.0.113.10:443/udp is also a way into LibvirtCluster white" + choose},
		{"the web where our API server is", cluster("home", "white", only("203.0.113.11", infrav1.IngressPort{Port: 6443})),
			"network.apiServerAccess 203.0.113.11:6443/tcp is also a way into LibvirtCluster white" + choose},
		{"another namespace on the same host", cluster("away", "green", func(*infrav1.ClusterNetwork) {}),
			"network.ingress 203.0.113.10:80/tcp is also a way into a LibvirtCluster of another namespace" + choose},
		{"another protocol", cluster("home", "white", only("203.0.113.10", infrav1.IngressPort{Port: 80, Protocol: infrav1.IngressUDP})), ""},
		{"another address", cluster("home", "white", only("203.0.113.12", infrav1.IngressPort{Port: 80})), ""},
		{"another host", cluster("else", "green", func(*infrav1.ClusterNetwork) {}), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := ""
			if clash := FindClash(&ours, []infrav1.LibvirtCluster{tt.other}, hosts); clash != nil {
				got = strings.Join([]string{clash.Field, clash.Value, clash.Detail}, " ")
			}
			if got != tt.want {
				t.Errorf("got\n%q, want\n%q", got, tt.want)
			}
		})
	}
}
