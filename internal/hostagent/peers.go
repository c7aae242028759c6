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
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/gateway"
)

const (
	// keepalive is how often each end of a link is heard of at least. It keeps the way open through NAT, too.
	keepalive = 10 * time.Second
	// keepaliveOfNext is that for a key that a peer is about to go over to.
	keepaliveOfNext = time.Second
	// silence is after how long without any packet a peer isn't connected, and staleHandshake is that without a new session:
	// WireGuard makes one every two minutes.
	silence        = 25 * time.Second
	staleHandshake = 185 * time.Second
)

// hearsay is what was heard of the peers, and what they were told, by key. It is the memory between two looks at the interface.
type hearsay map[wgtypes.Key]heard

type heard struct {
	// bytes that had come when the last of them was seen, at some time.
	bytes int64
	at    time.Time
	// endpoint that the peer was last given.
	endpoint netip.AddrPort
}

// listen takes note of what has come from each peer. One that is new here and has a session is given the benefit of the
// doubt, so that an agent that starts anew doesn't tell that all links are down.
func (h hearsay) listen(peers []wgtypes.Peer, now time.Time) {
	for _, p := range peers {
		was, known := h[p.PublicKey]
		if !known || p.ReceiveBytes != was.bytes {
			was.bytes, was.at = p.ReceiveBytes, now
			h[p.PublicKey] = was
		}
	}
	for key := range h {
		if !slices.ContainsFunc(peers, func(p wgtypes.Peer) bool { return p.PublicKey == key }) {
			delete(h, key)
		}
	}
}

// connected tells whether a peer was heard of lately, by a session.
func (h hearsay) connected(p wgtypes.Peer, now time.Time) bool {
	return hasSession(p) && now.Sub(p.LastHandshakeTime) < staleHandshake && now.Sub(h[p.PublicKey].at) < silence
}

func hasSession(p wgtypes.Peer) bool { return p.LastHandshakeTime.Unix() > 0 }

// inUse is the one of a peer's keys that it answers by: that of the latest session, and the first if there was none.
func (p peer) inUse(found map[wgtypes.Key]wgtypes.Peer) wgtypes.Key {
	best := p.keys[0]
	for _, key := range p.keys[1:] {
		if hasSession(found[key]) && found[key].LastHandshakeTime.After(found[best].LastHandshakeTime) {
			best = key
		}
	}
	return best
}

// peersByKey are those of an interface.
func peersByKey(peers []wgtypes.Peer) map[wgtypes.Key]wgtypes.Peer {
	byKey := map[wgtypes.Key]wgtypes.Peer{}
	for _, p := range peers {
		byKey[p.PublicKey] = p
	}
	return byKey
}

// changes are what an interface's peers lack to be those of the link, and the endpoints among it. The ranges of a peer go
// over to its next key with its first session; those that get ranges come first, so that no range is without a peer.
func (l *link) changes(found []wgtypes.Peer, h hearsay, now time.Time) []wgtypes.PeerConfig {
	has := peersByKey(found)
	var first, later []wgtypes.PeerConfig
	wanted := map[wgtypes.Key]bool{}
	for _, p := range l.peers {
		inUse := p.inUse(has)
		for _, key := range p.keys {
			wanted[key] = true
			ranges, alive := p.ranges, keepalive
			if key != inUse {
				ranges, alive = nil, keepaliveOfNext
			}
			config, differs := p.change(key, ranges, alive, has, h, now)
			switch {
			case differs && key == inUse:
				first = append(first, config)
			case differs:
				later = append(later, config)
			}
		}
	}
	for _, p := range found {
		if !wanted[p.PublicKey] {
			later = append(later, wgtypes.PeerConfig{PublicKey: p.PublicKey, Remove: true})
		}
	}
	return append(first, later...)
}

// change is what one key of a peer lacks. The endpoint is left as it is where the peer is connected from elsewhere.
func (p peer) change(key wgtypes.Key, ranges []netip.Prefix, alive time.Duration, has map[wgtypes.Key]wgtypes.Peer, h hearsay, now time.Time) (wgtypes.PeerConfig, bool) {
	found, known := has[key]
	config := wgtypes.PeerConfig{PublicKey: key}
	if found.PersistentKeepaliveInterval != alive {
		config.PersistentKeepaliveInterval = &alive
	}
	if !sameRanges(ranges, found.AllowedIPs) {
		config.ReplaceAllowedIPs, config.AllowedIPs = true, ipNets(ranges)
	}
	moved := p.endpoint != h[key].endpoint || endpointOf(found) != p.endpoint && !h.connected(found, now)
	if p.endpoint.IsValid() && (!known || moved) {
		config.Endpoint = net.UDPAddrFromAddrPort(p.endpoint)
	}
	return config, !known || config.PersistentKeepaliveInterval != nil || config.ReplaceAllowedIPs || config.Endpoint != nil
}

// endpointOf is where a peer of an interface is reached, not valid if that isn't known.
func endpointOf(p wgtypes.Peer) netip.AddrPort {
	if p.Endpoint == nil {
		return netip.AddrPort{}
	}
	endpoint := p.Endpoint.AddrPort()
	return netip.AddrPortFrom(endpoint.Addr().Unmap(), endpoint.Port())
}

func ipNets(ranges []netip.Prefix) []net.IPNet {
	nets := make([]net.IPNet, 0, len(ranges))
	for _, r := range ranges {
		nets = append(nets, *ipNet(r))
	}
	return nets
}

func ipNet(r netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: r.Addr().AsSlice(), Mask: net.CIDRMask(r.Bits(), r.Addr().BitLen())}
}

func sameRanges(want []netip.Prefix, has []net.IPNet) bool {
	if len(want) != len(has) {
		return false
	}
	for _, r := range want {
		if !slices.ContainsFunc(has, func(n net.IPNet) bool { return n.String() == r.String() }) {
			return false
		}
	}
	return true
}

// status is what is told of the peers.
func (l *link) status(found []wgtypes.Peer, h hearsay, now time.Time) []gateway.PeerStatus {
	has := peersByKey(found)
	var told []gateway.PeerStatus
	for _, p := range l.peers {
		inUse := p.inUse(has)
		status := gateway.PeerStatus{Name: p.name, Connected: h.connected(has[inUse], now)}
		for _, key := range union([]wgtypes.Key{inUse}, p.keys) {
			if _, ok := has[key]; ok {
				status.Keys = append(status.Keys, key)
			}
		}
		if len(status.Keys) > 0 {
			told = append(told, status)
		}
	}
	slices.SortFunc(told, func(a, b gateway.PeerStatus) int { return compareKeys(a.Keys[0], b.Keys[0]) })
	return told
}

// rotating tells whether a peer is to go over to another key.
func (l *link) rotating() bool {
	return slices.ContainsFunc(l.peers, func(p peer) bool { return len(p.keys) > 1 })
}
