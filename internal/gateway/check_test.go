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
	"slices"
	"strings"
	"testing"
)

// linkWith is a link with something changed.
func linkWith(edit func(*Link)) Wanted {
	l := twoPeers
	l.Peers = slices.Clone(l.Peers)
	for i, p := range l.Peers {
		l.Peers[i].Ranges = slices.Clone(p.Ranges)
	}
	edit(&l)
	return Wanted{Link: &l}
}

func TestCheck(t *testing.T) {
	ranges := []netip.Prefix{netip.MustParsePrefix("10.100.0.0/25"), netip.MustParsePrefix("10.100.0.128/25")}
	gateways := []netip.Addr{netip.MustParseAddr("10.100.0.1"), netip.MustParseAddr("10.100.0.129")}
	with := func(edit func(*Forward)) Wanted {
		f := ingress(80)
		edit(&f)
		return Wanted{Forwards: []Forward{f}}
	}
	for name, c := range map[string]struct {
		wanted Wanted
		says   string
	}{
		"nothing":                  {Wanted{}, ""},
		"both ways in":             {both, ""},
		"one port by TCP and UDP":  {Wanted{Forwards: []Forward{ingress(443), with(func(f *Forward) { f.Port, f.Protocol = 443, UDP }).Forwards[0]}}, ""},
		"a target elsewhere":       {with(func(f *Forward) { f.Target = netip.MustParseAddr("10.100.1.1") }), "outside the network's ranges"},
		"a target on the internet": {with(func(f *Forward) { f.Target = netip.MustParseAddr("8.8.8.8") }), "outside the network's ranges"},
		"the host as target":       {with(func(f *Forward) { f.Target = gateways[1] }), "the host's own address"},
		"an inner external":        {with(func(f *Forward) { f.External = netip.MustParseAddr("10.100.0.9") }), "one of the network"},
		"any external":             {with(func(f *Forward) { f.External = netip.IPv4Unspecified() }), "can't use the external address"},
		"loopback":                 {with(func(f *Forward) { f.External = netip.MustParseAddr("127.0.0.1") }), "can't use the external address"},
		"multicast":                {with(func(f *Forward) { f.External = netip.MustParseAddr("224.0.0.1") }), "can't use the external address"},
		"a link":                   {Wanted{Link: &twoPeers}, ""},
		"a link to itself":         {linkWith(func(l *Link) { l.Peers[0].Ranges[0] = netip.MustParsePrefix("10.100.0.64/26") }), "of peer kvm2 overlaps 10.100.0.0/25 of the network itself"},
		"two peers in one place":   {linkWith(func(l *Link) { l.Peers[1].Ranges[0] = netip.MustParsePrefix("10.100.1.0/24") }), "of peer kvm3 overlaps 10.100.1.0/25 of peer kvm2"},
		"two peers with one key":   {linkWith(func(l *Link) { l.Peers[1].Key = key(3) }), "of peer kvm3 is also one of peer kvm2"},
		"a next key that is none":  {linkWith(func(l *Link) { l.Peers[0].Next = key(2) }), "of peer kvm2 is also one of peer kvm2"},
		"an endpoint in the link":  {linkWith(func(l *Link) { l.Peers[1].Endpoint = netip.MustParseAddrPort("10.100.1.5:1") }), "peer kvm3 waits at 10.100.1.5:1, in the range 10.100.1.0/25 of peer kvm2"},
		"a range for no machines":  {linkWith(func(l *Link) { l.Peers[1].Ranges[0] = netip.MustParsePrefix("127.0.0.0/8") }), "isn't one for machines"},
		"a link for giants":        {linkWith(func(l *Link) { l.MTU = 65500 }), "is more than 65455"},
		"a duplicate":              {Wanted{Forwards: []Forward{ingress(80), ingress(443), ingress(80)}}, "wait for the same connections"},
	} {
		err := Check(c.wanted, ranges, gateways)
		if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: got %v, want %q", name, err, c.says)
		}
	}
}
