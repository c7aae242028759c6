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

package hostagent

import (
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/gateway"
)

func keyOf(b byte) wgtypes.Key { return wgtypes.Key{b} }

var (
	somewhere = netip.MustParseAddrPort("198.51.100.1:51820")
	elsewhere = netip.MustParseAddrPort("192.0.2.77:1024")
)

func rangesOf(cidrs ...string) []netip.Prefix {
	var ranges []netip.Prefix
	for _, cidr := range cidrs {
		ranges = append(ranges, netip.MustParsePrefix(cidr))
	}
	return ranges
}

var comparePlans = cmp.Options{
	cmp.AllowUnexported(link{}, peer{}, route{}), cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
}

// Two clusters have networks on the same two hosts, and one of them on a third.
func TestPlanLink(t *testing.T) {
	networks := readNetworks([]string{definition(t, webUUID, ""), definition(t, appUUID, "")})
	gateways := []netip.Addr{networks[0].Gateways[0], networks[1].Gateways[0], netip.MustParseAddr("10.112.0.7")}
	wanted := func(mtu uint16, switchTo wgtypes.Key, peers ...gateway.Peer) *gateway.Wanted {
		return &gateway.Wanted{Link: &gateway.Link{Port: linkPort, MTU: mtu, SwitchTo: switchTo, Peers: peers}}
	}
	web := gateway.Peer{Name: "far", Key: keyOf(2), Next: keyOf(3), Ranges: rangesOf("10.110.0.0/25")}
	app := gateway.Peer{Name: "far", Key: keyOf(3), Endpoint: somewhere, Ranges: rangesOf("10.111.0.0/25")}
	third := gateway.Peer{Name: "third", Key: keyOf(1), Ranges: rangesOf("10.112.0.0/25")}
	lets := map[string]*gateway.Wanted{webUUID: wanted(1420, keyOf(9), web), appUUID: wanted(1400, keyOf(9), app, third)}

	want := &link{
		port: linkPort, mtu: 1420, switchTo: keyOf(9), networks: []string{webUUID, appUUID},
		peers: []peer{
			{name: "third", keys: []wgtypes.Key{keyOf(1)}, ranges: rangesOf("10.112.0.0/25"), networks: []string{appUUID}},
			{name: "far", keys: []wgtypes.Key{keyOf(2), keyOf(3)}, endpoint: somewhere, ranges: rangesOf("10.110.0.0/25", "10.111.0.0/25"), networks: []string{webUUID, appUUID}},
		},
		routes: []route{
			{network: webUUID, to: web.Ranges[0], from: gateways[0], mtu: 1420},
			{network: appUUID, to: app.Ranges[0], from: gateways[1], mtu: 1400},
			{network: appUUID, to: third.Ranges[0], from: gateways[1], mtu: 1400, own: gateways[2]},
		},
	}
	if diff := cmp.Diff(want, planLink(networks, lets, gateways), comparePlans); diff != "" {
		t.Error(diff)
	}
	// The bridge of one network is down, and its peers don't know the host's next key.
	lets[appUUID].Link.SwitchTo = wgtypes.Key{}
	want.switchTo, want.routes = wgtypes.Key{}, want.routes[:1]
	if diff := cmp.Diff(want, planLink(networks, lets, gateways[:1]), comparePlans); diff != "" {
		t.Error(diff)
	}
	if got := planLink(networks, map[string]*gateway.Wanted{webUUID: {}}, gateways); got != nil {
		t.Errorf("nobody wants a link: %+v", got)
	}
}

// What an interface lacks is changed, and nothing else.
func TestLinkChanges(t *testing.T) {
	now := time.Now()
	alive, soon := keepalive, keepaliveOfNext
	far := peer{name: "far", keys: []wgtypes.Key{keyOf(2)}, endpoint: somewhere, ranges: rangesOf("10.110.0.0/25")}
	both := far
	both.keys = []wgtypes.Key{keyOf(2), keyOf(3)}
	moved := far
	moved.keys = []wgtypes.Key{keyOf(3)}
	has := func(key byte, at netip.AddrPort, handshake time.Duration, alive time.Duration, ranges ...string) wgtypes.Peer {
		p := wgtypes.Peer{PublicKey: keyOf(key), Endpoint: net.UDPAddrFromAddrPort(at), PersistentKeepaliveInterval: alive, AllowedIPs: ipNets(rangesOf(ranges...))}
		if handshake >= 0 {
			p.LastHandshakeTime = now.Add(-handshake)
		}
		return p
	}
	whole := func(key byte, alive *time.Duration, ranges ...string) wgtypes.PeerConfig {
		return wgtypes.PeerConfig{PublicKey: keyOf(key), Endpoint: net.UDPAddrFromAddrPort(somewhere), PersistentKeepaliveInterval: alive,
			ReplaceAllowedIPs: len(ranges) > 0, AllowedIPs: ipNets(rangesOf(ranges...))}
	}
	ranges := func(key byte, alive *time.Duration, ranges ...string) wgtypes.PeerConfig {
		c := whole(key, alive, ranges...)
		c.Endpoint, c.ReplaceAllowedIPs = nil, true
		return c
	}
	const a, b = "10.110.0.0/25", "10.111.0.0/25"
	for name, c := range map[string]struct {
		peers []peer
		found []wgtypes.Peer
		want  []wgtypes.PeerConfig
	}{
		"nothing":           {nil, nil, nil},
		"a new peer":        {[]peer{far}, nil, []wgtypes.PeerConfig{whole(2, &alive, a)}},
		"as it is":          {[]peer{far}, []wgtypes.Peer{has(2, somewhere, -1, keepalive, a)}, nil},
		"a peer too many":   {[]peer{far}, []wgtypes.Peer{has(2, somewhere, 0, keepalive, a), has(7, elsewhere, 0, 0, b)}, []wgtypes.PeerConfig{{PublicKey: keyOf(7), Remove: true}}},
		"other ranges":      {[]peer{far}, []wgtypes.Peer{has(2, somewhere, 0, keepalive, a, b)}, []wgtypes.PeerConfig{ranges(2, nil, a)}},
		"no keepalive":      {[]peer{far}, []wgtypes.Peer{has(2, somewhere, 0, 0, a)}, []wgtypes.PeerConfig{{PublicKey: keyOf(2), PersistentKeepaliveInterval: &alive}}},
		"connected by NAT":  {[]peer{far}, []wgtypes.Peer{has(2, elsewhere, time.Minute, keepalive, a)}, nil},
		"lost elsewhere":    {[]peer{far}, []wgtypes.Peer{has(2, elsewhere, time.Hour, keepalive, a)}, []wgtypes.PeerConfig{{PublicKey: keyOf(2), Endpoint: net.UDPAddrFromAddrPort(somewhere)}}},
		"a next key":        {[]peer{both}, []wgtypes.Peer{has(2, somewhere, 0, keepalive, a)}, []wgtypes.PeerConfig{whole(3, &soon)}},
		"a next key, set":   {[]peer{both}, []wgtypes.Peer{has(2, somewhere, 0, keepalive, a), has(3, somewhere, -1, soon)}, nil},
		"the next key came": {[]peer{both}, []wgtypes.Peer{has(2, somewhere, time.Second, keepalive, a), has(3, somewhere, 0, soon)}, []wgtypes.PeerConfig{ranges(3, &alive, a), ranges(2, &soon)}},
		"the next key only": {[]peer{moved}, []wgtypes.Peer{has(2, somewhere, time.Minute, soon), has(3, somewhere, 0, keepalive, a)}, []wgtypes.PeerConfig{{PublicKey: keyOf(2), Remove: true}}},
		"a key at once":     {[]peer{moved}, []wgtypes.Peer{has(2, somewhere, 0, keepalive, a)}, []wgtypes.PeerConfig{whole(3, &alive, a), {PublicKey: keyOf(2), Remove: true}}},
	} {
		h := hearsay{}
		h.listen(c.found, now)
		for key, heard := range h {
			heard.endpoint = somewhere
			h[key] = heard
		}
		got := (&link{peers: c.peers}).changes(c.found, h, now)
		text := func(net net.IPNet) string { return net.String() }
		if diff := cmp.Diff(c.want, got, cmp.Transformer("text", text), cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	// The endpoint itself is another one now.
	h := hearsay{keyOf(2): {at: now, endpoint: elsewhere}}
	if got := (&link{peers: []peer{far}}).changes([]wgtypes.Peer{has(2, elsewhere, 0, keepalive, a)}, h, now); len(got) != 1 || got[0].Endpoint.String() != somewhere.String() {
		t.Errorf("the endpoint changed: %+v", got)
	}
}

// A peer is connected as long as something comes from it by a session.
func TestConnected(t *testing.T) {
	start := time.Now()
	h := hearsay{}
	p := wgtypes.Peer{PublicKey: keyOf(2)}
	look := func(after time.Duration, want bool) {
		t.Helper()
		h.listen([]wgtypes.Peer{p}, start.Add(after))
		if got := h.connected(p, start.Add(after)); got != want {
			t.Errorf("after %s: %t", after, got)
		}
	}
	look(0, false)
	p.ReceiveBytes = 148
	look(time.Second, false) // it asks for a session
	p.LastHandshakeTime = start.Add(time.Second)
	look(2*time.Second, true)
	look(2*time.Second+silence-2*time.Second, true)
	look(2*time.Second+silence, false)
	p.ReceiveBytes += 32
	look(40*time.Second, true)
	p.ReceiveBytes += 148
	look(4*time.Minute, false) // it asks, and doesn't hear the answer

	// An agent that starts anew believes that it goes on, for a while.
	h = hearsay{}
	p.LastHandshakeTime = start.Add(4 * time.Minute)
	look(5*time.Minute, true)
	look(5*time.Minute+silence, false)

	both := peer{name: "far", keys: []wgtypes.Key{keyOf(2), keyOf(3)}}
	next := wgtypes.Peer{PublicKey: keyOf(3), LastHandshakeTime: p.LastHandshakeTime.Add(time.Minute)}
	h.listen([]wgtypes.Peer{p, next}, next.LastHandshakeTime)
	told := (&link{peers: []peer{both}}).status([]wgtypes.Peer{p, next}, h, next.LastHandshakeTime)
	if len(told) != 1 || !slices.Equal(told[0].Keys, []wgtypes.Key{keyOf(3), keyOf(2)}) || !told[0].Connected {
		t.Errorf("told %+v", told)
	}
}

// A copy of a host has the key of its original.
func TestTwinHosts(t *testing.T) {
	l := &link{peers: []peer{
		{name: "twin", keys: []wgtypes.Key{keyOf(1)}, networks: []string{webUUID}}, {name: "far", keys: []wgtypes.Key{keyOf(2)}, networks: []string{webUUID}},
	}}
	rest, failed := l.without(keyOf(1))
	if len(rest.peers) != 1 || rest.peers[0].name != "far" || len(l.peers) != 2 {
		t.Errorf("left are %+v", rest.peers)
	}
	if err := failed[webUUID]; err == nil || !strings.Contains(err.Error(), "peer twin has the key of this host") {
		t.Errorf("told %v", err)
	}
}
