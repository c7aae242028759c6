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
	"net/netip"
	"slices"
	"strings"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/gateway"
)

// link is what there is to be of the host's end of the links. All its networks share it.
type link struct {
	port, mtu int
	// switchTo is the host's next key once all networks' peers know it, and zero before.
	switchTo wgtypes.Key
	// peers are in the order of their keys.
	peers  []peer
	routes []route
	// networks are the UUIDs of those that want it.
	networks []string
}

// peer is another host.
type peer struct {
	name string
	// keys are those that it may have: one, or two while it goes over to the second.
	keys []wgtypes.Key
	// endpoint isn't valid if the peer connects by itself.
	endpoint netip.AddrPort
	ranges   []netip.Prefix
	// networks are the UUIDs of those that want it.
	networks []string
}

// route leads to a range of a peer.
type route struct {
	// network is the UUID of the one that wants it.
	network string
	to      netip.Prefix
	// from is the address that the host itself has towards the range.
	from netip.Addr
	mtu  int
	// own is an address of the host in the range, which can't be led away; usually there is none.
	own netip.Addr
}

// planLink says what the link is to be, given what the networks get and the addresses of the host: nil if none wants one.
// A network that isn't started has no address on the host, and its routes wait for that.
func planLink(networks []network, lets map[string]*gateway.Wanted, addresses []netip.Addr) *link {
	var plan *link
	for _, n := range networks {
		if lets[n.UUID] == nil || lets[n.UUID].Link == nil {
			continue
		}
		wanted := lets[n.UUID].Link
		if plan == nil {
			plan = &link{port: int(wanted.Port), switchTo: wanted.SwitchTo}
		}
		if plan.switchTo != wanted.SwitchTo {
			plan.switchTo = wgtypes.Key{} // the peers of one network don't know the key yet
		}
		plan.networks = append(plan.networks, n.UUID)
		plan.mtu = max(plan.mtu, int(wanted.MTU))
		for _, p := range wanted.Peers {
			keys := []wgtypes.Key{p.Key}
			if p.Next != (wgtypes.Key{}) {
				keys = append(keys, p.Next)
			}
			plan.peers = merge(plan.peers, peer{name: p.Name, keys: keys, endpoint: p.Endpoint, ranges: p.Ranges, networks: []string{n.UUID}})
			if len(n.Gateways) == 0 || !slices.Contains(addresses, n.Gateways[0]) {
				continue
			}
			for _, r := range p.Ranges {
				to := route{network: n.UUID, to: r, from: n.Gateways[0], mtu: int(wanted.MTU)}
				if i := slices.IndexFunc(addresses, r.Contains); i >= 0 {
					to.own = addresses[i]
				}
				plan.routes = append(plan.routes, to)
			}
		}
	}
	if plan != nil {
		slices.SortFunc(plan.peers, func(a, b peer) int { return compareKeys(a.keys[0], b.keys[0]) })
	}
	return plan
}

// merge adds a peer to others. Those with a key in common are the same host: one network may already know it by its new key
// only, and another by both.
func merge(others []peer, p peer) []peer {
	var merged []peer
	for _, other := range others {
		if !slices.ContainsFunc(other.keys, func(k wgtypes.Key) bool { return slices.Contains(p.keys, k) }) {
			merged = append(merged, other)
			continue
		}
		endpoint := other.endpoint
		if !endpoint.IsValid() {
			endpoint = p.endpoint
		}
		p = peer{
			name: other.name, keys: union(other.keys, p.keys), endpoint: endpoint, ranges: union(other.ranges, p.ranges),
			networks: union(other.networks, p.networks),
		}
	}
	return append(merged, p)
}

func union[T comparable](a, b []T) []T {
	all := slices.Clone(a)
	for _, element := range b {
		if !slices.Contains(all, element) {
			all = append(all, element)
		}
	}
	return all
}

func compareKeys(a, b wgtypes.Key) int { return strings.Compare(a.String(), b.String()) }
