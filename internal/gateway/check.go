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
	"fmt"
	"net/netip"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// Check tells whether forwards lead into a network and nowhere else, given the ranges of the network's addresses and the
// addresses that the host itself has there, and whether a link leads to other networks. The error names the first forward
// or peer that doesn't.
func Check(w Wanted, ranges []netip.Prefix, gateways []netip.Addr) error {
	for i, f := range w.Forwards {
		inside := false
		for _, r := range ranges {
			inside = inside || r.Contains(f.Target)
			if r.Contains(f.External) {
				return fmt.Errorf("%s: the external address is one of the network %s itself", f, r)
			}
		}
		if !inside {
			return fmt.Errorf("%s: the target %s is outside the network's ranges %s", f, f.Target, ranges)
		}
		for _, gateway := range gateways {
			if f.Target == gateway {
				return fmt.Errorf("%s: the target %s is the host's own address in the network", f, f.Target)
			}
		}
		if f.External.IsUnspecified() || f.External.IsLoopback() || f.External.IsMulticast() {
			return fmt.Errorf("%s: clients elsewhere can't use the external address", f)
		}
		for _, other := range w.Forwards[:i] {
			if f.Overlaps(other) {
				return fmt.Errorf("%s and %s wait for the same connections", other, f)
			}
		}
	}
	if w.Link == nil {
		return nil
	}
	return w.Link.check(ranges)
}

// longestPacket is what fits in a packet of IP, within the link's own.
const longestPacket = 65535 - LinkOverhead

// check tells whether a network with these ranges can have the link: each range is in one place only, and each key is that
// of one peer.
func (l Link) check(ranges []netip.Prefix) error {
	if l.MTU > longestPacket {
		return fmt.Errorf("link: the MTU %d is more than %d, the most that WireGuard can carry", l.MTU, longestPacket)
	}
	type place struct {
		of   string
		cidr netip.Prefix
	}
	taken := make([]place, 0, len(ranges)+len(l.Peers))
	for _, r := range ranges {
		taken = append(taken, place{"the network itself", r})
	}
	keys := map[wgtypes.Key]string{}
	for _, p := range l.Peers {
		for _, r := range p.Ranges {
			for _, other := range taken {
				if r.Overlaps(other.cidr) {
					return fmt.Errorf("link: the range %s of peer %s overlaps %s of %s: each host needs a range of its own", r, p.Name, other.cidr, other.of)
				}
			}
			taken = append(taken, place{"peer " + p.Name, r})
			if !r.Addr().IsGlobalUnicast() {
				return fmt.Errorf("link: the range %s of peer %s isn't one for machines", r, p.Name)
			}
		}
		for _, key := range []wgtypes.Key{p.Key, p.Next} {
			if key == (wgtypes.Key{}) {
				continue
			}
			if other, ok := keys[key]; ok {
				return fmt.Errorf("link: the key %s of peer %s is also one of peer %s", key, p.Name, other)
			}
			keys[key] = p.Name
		}
	}
	for _, p := range l.Peers {
		for _, t := range taken {
			if p.Endpoint.IsValid() && t.cidr.Contains(p.Endpoint.Addr()) {
				return fmt.Errorf("link: peer %s waits at %s, in the range %s of %s, which is reached by the link itself", p.Name, p.Endpoint, t.cidr, t.of)
			}
		}
	}
	return nil
}
