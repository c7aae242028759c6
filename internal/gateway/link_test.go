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

package gateway

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

func key(b byte) wgtypes.Key { return wgtypes.Key{b} }

var twoPeers = Link{Port: 51820, MTU: 1420, SwitchTo: key(9), Peers: []Peer{
	{Name: "kvm2", Key: key(2), Next: key(3), Endpoint: netip.MustParseAddrPort("192.0.2.20:51820"),
		Ranges: []netip.Prefix{netip.MustParsePrefix("10.100.1.0/25"), netip.MustParsePrefix("10.100.1.128/25")}},
	{Name: "kvm3", Key: key(4), Ranges: []netip.Prefix{netip.MustParsePrefix("10.100.2.0/25")}},
}}

func TestLinkRoundTrip(t *testing.T) {
	for _, want := range []Wanted{{Link: &twoPeers}, {Link: &Link{Port: 1, MTU: 1420}, Forwards: both.Forwards}} {
		got, err := Read(document(t, rendered(t, want)))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, compareAddresses, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
			t.Error(diff)
		}
	}
}

// Each of these is another content, so that an agent that has one of them knows that it hasn't the others.
func TestLinkGeneration(t *testing.T) {
	seen := map[string]string{Wanted{}.Generation(): "no link"}
	for what, change := range map[string]func(*Link){
		"as it is":     func(*Link) {},
		"port":         func(l *Link) { l.Port++ },
		"mtu":          func(l *Link) { l.MTU-- },
		"switch":       func(l *Link) { l.SwitchTo = wgtypes.Key{} },
		"no peers":     func(l *Link) { l.Peers = nil },
		"key":          func(l *Link) { l.Peers[0].Key = key(7) },
		"next":         func(l *Link) { l.Peers[0].Next = wgtypes.Key{} },
		"endpoint":     func(l *Link) { l.Peers[0].Endpoint = netip.AddrPort{} },
		"ranges":       func(l *Link) { l.Peers[0].Ranges = l.Peers[0].Ranges[:1] },
		"name":         func(l *Link) { l.Peers[1].Name = "kvm4" },
		"another peer": func(l *Link) { l.Peers = l.Peers[1:] },
	} {
		link := twoPeers
		link.Peers = append([]Peer(nil), twoPeers.Peers...)
		change(&link)
		generation := Wanted{Link: &link}.Generation()
		if other, ok := seen[generation]; ok {
			t.Errorf("%s and %s have the same generation", what, other)
		}
		seen[generation] = what
	}
	swapped := twoPeers
	swapped.Peers = []Peer{twoPeers.Peers[1], twoPeers.Peers[0]}
	if (Wanted{Link: &swapped}).Generation() != (Wanted{Link: &twoPeers}).Generation() {
		t.Error("the order of peers matters")
	}
}

func TestReadLinkRefuses(t *testing.T) {
	good := rendered(t, Wanted{Link: &twoPeers})
	for _, change := range [][2]string{
		{`port="51820"`, `port="0"`}, {`mtu="1420"`, `mtu="99"`}, {`mtu="1420"`, `mtu="1420" weight="1"`},
		{key(2).String(), "junk"}, {key(2).String(), ""}, {"192.0.2.20:51820", "example.org:51820"},
		{"10.100.1.0/25", "10.100.1.1/25"}, {"10.100.1.0/25", "0.0.0.0/0"}, {"10.100.1.0/25", "fd00::/64"},
		{"<capl:range", "<capl:junk/><capl:range"}, {"<capl:link", `<capl:link port="1" mtu="1420" switchTo=""/><capl:link`},
	} {
		bad := strings.Replace(good, change[0], change[1], 1)
		if bad == good {
			t.Fatalf("there is no %s in %s", change[0], good)
		}
		if _, err := Read(document(t, bad)); err == nil || strings.Contains(err.Error(), "generation") {
			t.Errorf("%s instead of %s: %v", change[1], change[0], err)
		}
	}
}

func TestLinkStatusRoundTrip(t *testing.T) {
	for _, want := range []*LinkStatus{
		{Key: key(1)},
		{Key: key(1), Next: key(2), Peers: []PeerStatus{
			{Name: "kvm2", Keys: []wgtypes.Key{key(3), key(4)}, Connected: true}, {Name: "kvm3", Keys: []wgtypes.Key{key(5)}},
		}},
	} {
		text, err := RenderStatusNetwork(Status{Renewed: time.Unix(1, 0), Link: want})
		if err != nil {
			t.Fatal(err)
		}
		got, err := ReadStatus(text)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got.Link, compareAddresses); diff != "" {
			t.Error(diff)
		}
	}
}
