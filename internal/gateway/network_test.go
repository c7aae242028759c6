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

package gateway_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"libvirt.org/go/libvirtxml"

	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/gateway"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/network"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/owner"
)

const webUUID = "0b5c7c8e-6f3b-4c1b-9b7e-2d1c7a4e9a10"

// networkXML is a network as the controller makes it, edited.
func networkXML(t *testing.T, edit func(*libvirtxml.Network)) string {
	t.Helper()
	mark := owner.Owner{Kind: "LibvirtCluster", Namespace: "default", Name: "web", Cluster: "web"}
	text, err := network.RenderNetwork(network.Definition{
		UUID: webUUID, Name: "default.web", Owner: mark,
		Plan: network.Plan{
			Prefix: netip.MustParsePrefix("10.100.0.0/25"), Gateway: netip.MustParseAddr("10.100.0.1"),
			Ingress: netip.MustParsePrefix("10.100.0.128/25"), IngressGateway: netip.MustParseAddr("10.100.0.129"),
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	var net libvirtxml.Network
	if err := net.Unmarshal(text); err != nil {
		t.Fatal(err)
	}
	net.Forward.Mode = "open"
	edit(&net)
	text, err = net.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestReadNetwork(t *testing.T) {
	want := gateway.Network{
		UUID: webUUID, Name: "default.web", Bridge: "capl-0b5c7c8e6f",
		Ranges:   []netip.Prefix{netip.MustParsePrefix("10.100.0.0/25"), netip.MustParsePrefix("10.100.0.128/25")},
		Gateways: []netip.Addr{netip.MustParseAddr("10.100.0.1"), netip.MustParseAddr("10.100.0.129")},
	}
	got, ok, err := gateway.ReadNetwork(networkXML(t, func(*libvirtxml.Network) {}))
	if err != nil || !ok {
		t.Fatalf("got %t, %v", ok, err)
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})); diff != "" {
		t.Error(diff)
	}
	if name := network.Bridge(webUUID); gateway.TableName(webUUID) != name {
		t.Errorf("the table isn't named like the bridge %s", name)
	}
	for name, edit := range map[string]func(*libvirtxml.Network){
		"NAT":         func(n *libvirtxml.Network) { n.Forward.Mode = "nat" },
		"isolated":    func(n *libvirtxml.Network) { n.Forward = nil },
		"not ours":    func(n *libvirtxml.Network) { n.Metadata = nil },
		"a machine's": func(n *libvirtxml.Network) { n.Metadata.XML = owner.Owner{Kind: "LibvirtMachine"}.Render() },
	} {
		if _, ok, err := gateway.ReadNetwork(networkXML(t, edit)); ok || err != nil {
			t.Errorf("%s: got %t, %v", name, ok, err)
		}
	}
	for name, c := range map[string]struct {
		edit func(*libvirtxml.Network)
		says string
	}{
		"another bridge": {func(n *libvirtxml.Network) { n.Bridge.Name = "br0" }, "another bridge"},
		"no bridge":      {func(n *libvirtxml.Network) { n.Bridge = nil }, "another bridge"},
		"no address":     {func(n *libvirtxml.Network) { n.IPs = nil }, "no IPv4 address"},
		"everything":     {func(n *libvirtxml.Network) { n.IPs[0].Prefix = 0 }, "prefix length 0"},
		"a bad UUID":     {func(n *libvirtxml.Network) { n.UUID = `"; drop` }, "has the UUID"},
	} {
		read, ok, err := gateway.ReadNetwork(networkXML(t, c.edit))
		if ok || err == nil || !strings.Contains(err.Error(), c.says) || read.Name != "default.web" {
			t.Errorf("%s: got %+v, %t, %v", name, read, ok, err)
		}
	}
}
