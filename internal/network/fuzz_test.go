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
	"encoding/json"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"testing"

	"libvirt.org/go/libvirtxml"
	"sigs.k8s.io/yaml"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/crdtest"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/gateway"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/owner"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/xmltest"
)

// FuzzRenderNetwork renders networks of any ranges that can be planned, for any cluster. The document has the same elements
// whatever the cluster is called, and says what was put in.
func FuzzRenderNetwork(f *testing.F) {
	f.Add("home", "web", "10.100.0.0/25", "10.100.0.128/25", int32(1420))
	f.Add("home", "web", "10.100.0.0/25", "", int32(0))
	f.Add(`"/><evil a="`, "]]></name><evil/>", "192.168.0.0/16", "", int32(9000))
	f.Add("<!--", "&amp;\x00\xff", "10.0.0.0/29", "10.0.0.8/29", int32(-1))
	f.Fuzz(func(t *testing.T, namespace, cluster, cidr, ingress string, mtu int32) {
		plan, err := NewPlan(cidr, ingress)
		if err != nil {
			return // there is no such network
		}
		d := Definition{
			UUID: ourUUID, Name: Name(namespace, cluster), MTU: max(mtu, 0), Plan: plan,
			Owner: owner.Owner{Kind: "LibvirtCluster", Namespace: namespace, Name: cluster, Cluster: cluster},
		}
		document := renderedNetwork(t, d)
		var net libvirtxml.Network
		if err := net.Unmarshal(document); err != nil {
			t.Fatalf("It can't be read: %v\n%s", err, document)
		}
		if again, err := net.Marshal(); err != nil || again != document {
			t.Errorf("Read and written again, it is\n%s\n(%v), and was\n%s", again, err, document)
		}
		if xmltest.Representable(d.Name) && net.Name != d.Name {
			t.Errorf("It is called %q, want %q", net.Name, d.Name)
		}
		if by, ok := owner.Of(document); !ok || xmltest.Representable(d.Name) && by != d.Owner {
			t.Errorf("Its owner is %v, %t\n%s", by, ok, document)
		}
		if served, err := Serves(document, plan); err != nil || !served {
			t.Errorf("It doesn't serve its plan: %v\n%s", err, document)
		}
		want := []netip.Prefix{plan.Prefix}
		if plan.Ingress.IsValid() {
			want = append(want, plan.Ingress)
		}
		found := prefixes(net)
		for k := range found {
			found[k] = found[k].Masked()
		}
		if !slices.Equal(found, want) || !plan.Prefix.Contains(plan.Gateway) {
			t.Errorf("It has %v, want %v\n%s", found, want, document)
		}
		harmless := d
		harmless.Name, harmless.Owner = "n", owner.Owner{Kind: "LibvirtCluster", Namespace: "n", Name: "n", Cluster: "n"}
		if got, want := xmltest.Skeleton(t, document), xmltest.Skeleton(t, renderedNetwork(t, harmless)); got != want {
			t.Errorf("%s\nhas other elements than with harmless names\n%s", got, want)
		}
	})
}

func renderedNetwork(t *testing.T, d Definition) string {
	t.Helper()
	document, err := RenderNetwork(d)
	if err != nil {
		t.Fatal(err)
	}
	return document
}

// FuzzPlans plans the networks of any LibvirtCluster that is admitted, and renders what a guest is told of them.
func FuzzPlans(f *testing.F) {
	schema := crdtest.Load(f, filepath.Join("..", "..", "config", "crd", "bases", "infrastructure.cluster.x-k8s.io_libvirtclusters.yaml"))
	data := make([]byte, 200)
	for n := range 20 {
		for k := range data {
			data[k] = byte(k * (n + 1) * 41)
		}
		f.Add("10.100.0.0/25", "", "203.0.113.10", data)
		f.Add("192.168.1.0/24", "192.168.1.100-192.168.1.149", "192.168.1.1", data)
	}
	f.Fuzz(func(t *testing.T, cidr, nodes, router string, data []byte) {
		spec, ok := schema.Spec(t, data)
		if !ok {
			return // these bytes make no spec
		}
		var parsed infrav1.LibvirtClusterSpec
		encoded, err := json.Marshal(spec)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(encoded, &parsed); err != nil {
			t.Fatalf("An admitted spec is none: %v\n%s", err, crdtest.String(spec))
		}
		// A pattern doesn't make an address.
		parsed.Network.CIDR, parsed.Network.NodeRange, parsed.Network.Gateway = cidr, nodes, router
		plans, err := NewPlans(parsed.Network)
		if err != nil {
			return // the webhook refuses it
		}
		checkForwards(t, parsed, plans, router)
		plan := plans.Main
		if !plan.Prefix.Contains(plan.Nodes.First) || !plan.Prefix.Contains(plan.Nodes.Last) || plan.Nodes.Size() < 1 {
			t.Errorf("Nodes get %s of %s", plan.Nodes, plan.Prefix)
		}
		address := plan.Nodes.First
		guest := NodeInterface(MAC(ourUUID), max(parsed.Network.MTU, 0), address, plan)
		var config struct {
			Version   int
			Ethernets map[string]struct {
				Addresses   []string
				Nameservers struct{ Addresses []string }
			}
		}
		text := RenderGuestConfig([]GuestInterface{guest})
		if err := yaml.Unmarshal(text, &config); err != nil {
			t.Fatalf("It can't be read: %v\n%s", err, text)
		}
		cluster := config.Ethernets["cluster"]
		if want := netip.PrefixFrom(address, plan.Prefix.Bits()).String(); len(config.Ethernets) != 1 || !slices.Equal(cluster.Addresses, []string{want}) {
			t.Errorf("The guest is told\n%s", text)
		}
		nameservers := plan.Nameservers
		if !Existing(parsed.Network) {
			nameservers = []netip.Addr{plan.Gateway} // of a managed network, which is the host
		}
		if len(cluster.Nameservers.Addresses) != len(nameservers) {
			t.Errorf("of the nameservers %v the guest is told\n%s", nameservers, text)
		}
	})
}

// checkForwards has a managed network let connections in at an address, and what is admitted of that be taken by the agent.
func checkForwards(t *testing.T, spec infrav1.LibvirtClusterSpec, plans Plans, external string) {
	t.Helper()
	if Existing(spec.Network) {
		return
	}
	spec.Network.Forwarding = infrav1.ForwardingHostAgent
	spec.ControlPlaneEndpoint.Host = plans.Main.VIPs.First.String()
	if spec.Network.Ingress.ExternalAddress = ""; plans.Main.Ingress.IsValid() {
		spec.Network.Ingress.ExternalAddress = external
	}
	spec.Network.APIServerAccess.ExternalAddress, spec.Network.APIServerAccess.AllowedCIDRs = external, []string{"198.51.100.0/24"}
	forwards, err := Forwards(spec, plans)
	if err != nil {
		return // the webhook refuses it
	}
	for _, plan := range append(slices.Collect(maps.Values(plans.subnets)), plans.Main) {
		wanted := WantedOn(plan, forwards)
		ranges, own := []netip.Prefix{plan.Prefix}, []netip.Addr{plan.Gateway}
		if plan.Ingress.IsValid() {
			ranges, own = append(ranges, plan.Ingress), append(own, plan.IngressGateway)
		}
		if err := gateway.Check(wanted, ranges, own); err != nil {
			t.Errorf("The agent refuses what was admitted: %v", err)
		}
		d := Definition{UUID: ourUUID, Name: "n", Plan: plan, Gateway: &wanted}
		if told, err := HasGateway(renderedNetwork(t, d), d); err != nil || !told {
			t.Errorf("The agent isn't told of %v: %v", wanted, err)
		}
	}
}
