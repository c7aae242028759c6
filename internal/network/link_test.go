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
	"reflect"
	"slices"
	"strings"
	"testing"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/gateway"
)

// linked is the network of a cluster on three sites.
func linked(edits ...func(*infrav1.ClusterNetwork)) infrav1.ClusterNetwork {
	spec := infrav1.ClusterNetwork{
		CIDR: "10.100.0.0/25", IngressCIDR: "10.100.0.128/25",
		Subnets:  []infrav1.Subnet{{FailureDomain: "attic", CIDR: "10.100.1.0/25"}, {FailureDomain: "shed", CIDR: "10.100.2.0/25"}},
		SiteLink: infrav1.SiteLink{Type: infrav1.SiteLinkWireGuard},
	}
	for _, edit := range edits {
		edit(&spec)
	}
	return spec
}

func TestMTU(t *testing.T) {
	for _, tt := range []struct {
		name             string
		mtu, pathMTU     int32
		linked           bool
		asked, effective int32
		refused          string
	}{
		{name: "nobody says", effective: 1500},
		{name: "said", mtu: 9000, asked: 9000, effective: 9000},
		{name: "a link", linked: true, asked: 1420, effective: 1420},
		{name: "a longer link", linked: true, pathMTU: 9000, asked: 8920, effective: 8920},
		{name: "the shortest link", linked: true, pathMTU: 1360, asked: 1280, effective: 1280},
		{name: "less than the link carries", linked: true, mtu: 1300, asked: 1300, effective: 1300},
		{name: "all that the link carries", linked: true, mtu: 1420, asked: 1420, effective: 1420},
		{
			name: "more than the link carries", linked: true, mtu: 1421, asked: 1421, effective: 1421,
			refused: "mtu 1421: is more than the 1420 bytes that siteLink carries with a pathMTU of 1500: use 1420 or less, or raise siteLink.pathMTU if the path between the hosts allows it",
		},
		{
			name: "more than a short link carries", linked: true, pathMTU: 1400, mtu: 1420, asked: 1420, effective: 1420,
			refused: "mtu 1420: is more than the 1320 bytes that siteLink carries with a pathMTU of 1400: use 1320 or less, or raise siteLink.pathMTU if the path between the hosts allows it",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			spec := infrav1.ClusterNetwork{MTU: tt.mtu}
			if tt.linked {
				spec.SiteLink = infrav1.SiteLink{Type: infrav1.SiteLinkWireGuard, PathMTU: tt.pathMTU}
			}
			if AskedMTU(spec) != tt.asked || MTU(spec) != tt.effective {
				t.Errorf("got %d and %d, want %d and %d", AskedMTU(spec), MTU(spec), tt.asked, tt.effective)
			}
			err := CheckSiteLink(spec)
			if tt.refused == "" && err != nil || tt.refused != "" && (err == nil || err.Error() != tt.refused) {
				t.Errorf("got %v, want %q", err, tt.refused)
			}
			if err != nil && !errors.As(err, new(*FieldError)) {
				t.Errorf("%v is no FieldError", err)
			}
		})
	}
}

func TestParseWireGuardAddress(t *testing.T) {
	for value, want := range map[string]string{
		"203.0.113.20": "203.0.113.20", "2001:db8::20": "2001:db8::20", "10.1.2.3": "10.1.2.3", "::ffff:192.0.2.1": "192.0.2.1",
		"example.org": "is not an IP address", "fe80::1%eth0": "is not an IP address", "203.0.113.20:51820": "is not an IP address",
		"0.0.0.0": "other hosts can send to", "127.0.0.1": "other hosts can send to", "224.0.0.18": "other hosts can send to",
		"255.255.255.255": "other hosts can send to", "fe80::1": "other hosts can send to", "::": "other hosts can send to", "::1": "other hosts can send to",
	} {
		addr, err := ParseWireGuardAddress(value)
		if err == nil && addr.String() != want || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %s, %v, want %s", value, addr, err, want)
		}
	}
}

func wgKey(n byte) wgtypes.Key { return wgtypes.Key{0: n, 31: n} }

// threeSites are those of a cluster: the main one, one behind NAT, and one that is away and has never told its key.
func threeSites(t *testing.T) []Site {
	t.Helper()
	plans, err := NewPlans(linked())
	if err != nil {
		t.Fatal(err)
	}
	return []Site{
		{Name: "kvm1", Plan: plans.For("cellar"), Address: netip.MustParseAddr("203.0.113.10"), Port: 51820, Key: wgKey(9)},
		{Name: "kvm2", Plan: plans.For("attic"), Port: 51821, Key: wgKey(2)},
		{Name: "kvm3", Plan: plans.For("shed"), Address: netip.MustParseAddr("2001:db8::3"), Port: 3},
	}
}

func TestLinkOn(t *testing.T) {
	sites := threeSites(t)
	main := []netip.Prefix{netip.MustParsePrefix("10.100.0.0/25"), netip.MustParsePrefix("10.100.0.128/25")}
	attic, shed := []netip.Prefix{netip.MustParsePrefix("10.100.1.0/25")}, []netip.Prefix{netip.MustParsePrefix("10.100.2.0/25")}
	kvm1 := gateway.Peer{Name: "kvm1", Key: wgKey(9), Endpoint: netip.MustParseAddrPort("203.0.113.10:51820"), Ranges: main}
	kvm2 := gateway.Peer{Name: "kvm2", Key: wgKey(2), Ranges: attic}
	before := gateway.Link{Port: 1, MTU: 1300, Peers: []gateway.Peer{
		{Name: "kvm3", Key: wgKey(3), Next: wgKey(4), Endpoint: netip.MustParseAddrPort("192.0.2.1:1"), Ranges: attic},
		{Name: "kvm2", Key: wgKey(99)}, {Name: "gone", Key: wgKey(98)},
	}}
	kvm3 := gateway.Peer{Name: "kvm3", Key: wgKey(3), Next: wgKey(4), Endpoint: netip.MustParseAddrPort("[2001:db8::3]:3"), Ranges: shed}
	for _, tt := range []struct {
		name string
		on   string
		told gateway.Link
		want *gateway.Link
	}{
		{"the main site", "kvm1", gateway.Link{}, &gateway.Link{Port: 51820, MTU: 1420, Peers: []gateway.Peer{kvm2}}},
		{"behind NAT", "kvm2", gateway.Link{}, &gateway.Link{Port: 51821, MTU: 1420, Peers: []gateway.Peer{kvm1}}},
		{"one that hasn't told its key", "kvm3", gateway.Link{}, &gateway.Link{Port: 3, MTU: 1420, Peers: []gateway.Peer{kvm1, kvm2}}},
		{"a key that was told before", "kvm1", before, &gateway.Link{Port: 51820, MTU: 1420, Peers: []gateway.Peer{kvm2, kvm3}}},
		{"no site", "kvm4", before, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := LinkOn(linked(), tt.on, sites, tt.told)
			if !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got\n%+v, want\n%+v", got, tt.want)
			}
			if got == nil {
				return
			}
			// The agent can read it.
			plan := sites[slices.IndexFunc(sites, func(s Site) bool { return s.Name == tt.on })].Plan
			wanted := gateway.Wanted{Link: got}
			if err := gateway.Check(wanted, Site{Plan: plan}.Ranges(), []netip.Addr{plan.Gateway}); err != nil {
				t.Errorf("the agent refuses it: %v", err)
			}
			d := Definition{UUID: ourUUID, Name: "n", Plan: plan, Gateway: &wanted}
			if told, err := HasGateway(renderedNetwork(t, d), d); err != nil || !told {
				t.Errorf("it isn't told: %v", err)
			}
		})
	}
	if NeedsTold("kvm3", sites) || !NeedsTold("kvm1", sites) {
		t.Error("it is kvm3 whose key isn't known")
	}
	// Clones have the same key, which a WireGuard interface can't have twice, and not as its own.
	clones := threeSites(t)
	clones[1].Key, clones[2].Key = wgKey(9), wgKey(9)
	if link := LinkOn(linked(), "kvm1", clones, gateway.Link{}); len(link.Peers) != 0 {
		t.Errorf("got its own key for a peer: %+v", link.Peers)
	}
	clones[0].Key = wgKey(1)
	if link := LinkOn(linked(), "kvm1", clones, gateway.Link{}); len(link.Peers) != 1 || link.Peers[0].Name != "kvm2" {
		t.Errorf("got the same key twice: %+v", link.Peers)
	}
	clones[1].Next = wgKey(1)
	if link := LinkOn(linked(), "kvm1", clones, gateway.Link{}); len(link.Peers) != 1 || link.Peers[0].Next != (wgtypes.Key{}) {
		t.Errorf("got its own key for the next one of a peer: %+v", link.Peers)
	}
	// An address to which the link itself leads is told to nobody.
	clones[1].Address = netip.MustParseAddr("10.100.2.1")
	if link := LinkOn(linked(), "kvm1", clones, gateway.Link{}); link.Peers[0].Endpoint.IsValid() {
		t.Errorf("kvm2 is to be reached at %s", link.Peers[0].Endpoint)
	}
}

// TestPickSwitching has two of three sites ask for another key.
func TestPickSwitching(t *testing.T) {
	sites := threeSites(t)
	sites[2].Key = wgKey(3)
	expect := func(what, want string) {
		t.Helper()
		if got := PickSwitching(sites); got != want {
			t.Errorf("%s: got %q, want %q", what, got, want)
		}
		for _, s := range sites {
			if got := LinkOn(linked(), s.Name, sites, gateway.Link{}).SwitchTo; got != (wgtypes.Key{}) && s.Name != want || s.Name == want && got != s.Next {
				t.Errorf("%s: %s is to go over to %s", what, s.Name, got)
			}
		}
	}
	expect("nobody asks", "")
	sites[0].Next, sites[1].Next = wgKey(19), wgKey(12)
	expect("nobody knows the keys", "")
	apply := func(on int, keys ...wgtypes.Key) {
		sites[on].Applied, sites[on].Peers = gateway.Link{}, nil
		for _, key := range keys {
			sites[on].Applied.Peers = append(sites[on].Applied.Peers, gateway.Peer{Key: wgKey(77), Next: key})
			sites[on].Peers = append(sites[on].Peers, gateway.PeerStatus{Keys: []wgtypes.Key{wgKey(77), key}})
		}
	}
	apply(1, wgKey(19))
	expect("one of two knows the key", "")
	apply(2, wgKey(19), wgKey(12))
	expect("both know that of kvm1", "kvm1")
	sites[2].Applied = gateway.Link{}
	expect("a key of another cluster on the same host", "")
	apply(2, wgKey(19), wgKey(12))
	sites[2].Peers = sites[2].Peers[1:]
	expect("a key that isn't set up yet", "")
	apply(2, wgKey(19), wgKey(12))
	apply(0, wgKey(12))
	expect("all know both", "kvm2") // whose key comes first
	if link := LinkOn(linked(), "kvm3", sites, gateway.Link{}); link.Peers[0].Next != wgKey(19) || link.Peers[1].Next != wgKey(12) {
		t.Errorf("kvm3 is told %+v", link.Peers)
	}
	sites[1].Key, sites[1].Next = wgKey(12), wgtypes.Key{}
	expect("kvm2 has gone over", "kvm1")
	if alone := sites[:1]; PickSwitching(alone) != "kvm1" {
		t.Error("A site without others waits")
	}
}

func TestOwnRanges(t *testing.T) {
	sites := threeSites(t)
	beside := sites[0]
	beside.Name = "kvm0"
	own, shared := OwnRanges([]Site{sites[2], sites[0], beside, sites[1]})
	var names []string
	for _, s := range own {
		names = append(names, s.Name)
	}
	if !slices.Equal(names, []string{"kvm1", "kvm2", "kvm3"}) || !reflect.DeepEqual(shared, map[string]string{"kvm0": "kvm1"}) {
		t.Errorf("got %v, %v", names, shared)
	}
}

func TestServesControlPlane(t *testing.T) {
	unlinked := linked(func(n *infrav1.ClusterNetwork) { n.SiteLink = infrav1.SiteLink{} })
	if !ServesControlPlane(linked(), "cellar") || ServesControlPlane(linked(), "attic") || !ServesControlPlane(unlinked, "attic") {
		t.Error("the control plane is where the endpoint is, if the hosts are linked")
	}
}

// TestClashLinked has the links of a cluster lead to ranges of another one.
func TestClashLinked(t *testing.T) {
	hosts := []infrav1.LibvirtHost{{ObjectMeta: metav1.ObjectMeta{Namespace: "home", Name: "kvm1"}, Spec: infrav1.LibvirtHostSpec{URI: "qemu:///system"}}}
	of := func(name string, spec infrav1.ClusterNetwork) *infrav1.LibvirtCluster {
		return &infrav1.LibvirtCluster{ObjectMeta: metav1.ObjectMeta{Namespace: "home", Name: name}, Spec: infrav1.LibvirtClusterSpec{Network: spec}}
	}
	plain := func(cidr, ingress string) infrav1.ClusterNetwork {
		return infrav1.ClusterNetwork{CIDR: cidr, IngressCIDR: ingress}
	}
	const remedy = " LibvirtCluster other, on a host that both may use, and one of the two has a siteLink that leads there: choose another range"
	for _, tt := range []struct {
		name          string
		ours, theirs  infrav1.ClusterNetwork
		field, detail string
	}{
		{"beside", plain("10.101.0.0/25", ""), linked(), "", ""},
		{"nobody links", plain("10.100.0.0/25", ""), plain("10.100.0.0/25", ""), "", ""},
		{"where theirs lead", plain("10.100.1.0/24", ""), linked(), "network.cidr", "overlaps the range 10.100.1.0/25 of" + remedy},
		{"Services where theirs lead", plain("10.101.0.0/25", "10.100.2.0/25"), linked(), "network.ingressCIDR", "overlaps the range 10.100.2.0/25 of" + remedy},
		{"where ours lead", linked(), plain("10.100.2.0/28", ""), "network.subnets", "overlaps the range 10.100.2.0/28 of" + remedy},
	} {
		t.Run(tt.name, func(t *testing.T) {
			clash := FindClash(of("ours", tt.ours), []infrav1.LibvirtCluster{*of("other", tt.theirs)}, hosts)
			switch {
			case clash == nil && tt.field == "":
			case clash == nil || clash.Field != tt.field || clash.Detail != tt.detail:
				t.Errorf("got %+v, want %s %s", clash, tt.field, tt.detail)
			}
		})
	}
}
