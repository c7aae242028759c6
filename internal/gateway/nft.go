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
	"slices"
	"strings"
)

// Mark is how the comment begins by which a table is known to be an agent's. The kernel lets nobody change it. A table
// without it is never touched, whatever its name.
const Mark = "cluster-api-host-agent: network "

// beyond is where no source is ever translated: multicast and broadcast.
var beyond = []netip.Prefix{netip.MustParsePrefix("224.0.0.0/4"), netip.MustParsePrefix("255.255.255.255/32")}

// RenderTable is the transaction for `nft -f` that makes a network's table what it is to be, whatever it was. Others are
// the ranges of the host's other node networks, to which nodes go without translation.
//
// The table decides about nothing but what leaves by the network's bridge, and what is from or for its peers' ranges on the
// link. Each connection that was let in has to be listed as long as it lasts, so that one from a source that isn't allowed
// any more ends at once.
func RenderTable(n Network, others []netip.Prefix, w Wanted) string {
	name := TableName(n.UUID)
	peers := w.peerRanges()
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }

	line("add table inet %s", name)
	line("delete table inet %s", name)
	line("table inet %s {", name)
	line("\tcomment \"%s%s\"", Mark, n.UUID)
	for _, chain := range []struct{ name, priority string }{{"prerouting", "dstnat"}, {"output", "-100"}} {
		line("\tchain %s {", chain.name)
		line("\t\ttype nat hook %s priority %s; policy accept;", chain.name, chain.priority)
		for _, f := range sorted(w.Forwards) {
			line("\t\t%sip daddr %s %s dport %d dnat ip to %s:%d", from(f.Sources), f.External, f.Protocol, f.Port, f.Target, f.TargetPort)
		}
		line("\t}")
	}
	line("\tchain postrouting {")
	line("\t\ttype nat hook postrouting priority srcnat; policy accept;")
	// A node that came by an external address has to see the answer come from there.
	line("\t\tiifname %q oifname %q ct status dnat meta nfproto ipv4 masquerade", n.Bridge, n.Bridge)
	line("\t\tip saddr %s ip daddr != %s oifname != { \"lo\", %q } masquerade",
		set(n.Ranges), set(slices.Concat(beyond, n.Ranges, others, peers)), n.Bridge)
	line("\t}")
	if len(peers) > 0 {
		line("\tchain clamp {")
		line("\t\ttype filter hook forward priority mangle; policy accept;")
		line("\t\toifname %q ip daddr %s tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu", LinkInterface, set(peers))
		line("\t}")
	}
	line("\tchain forward {")
	line("\t\ttype filter hook forward priority filter; policy accept;")
	if len(peers) > 0 {
		// As long as there is no link, what is for the peers must not leave by the way to everywhere else.
		line("\t\tiifname %q oifname != %q ip daddr %s counter drop", n.Bridge, LinkInterface, set(peers))
		// The interface is shared by all networks of the host: nobody else's nodes get to the peers, nor do the peers to others'.
		line("\t\tiifname != %q oifname %q ip daddr %s counter drop", n.Bridge, LinkInterface, set(peers))
		line("\t\tiifname %q oifname != %q ip saddr %s counter drop", LinkInterface, n.Bridge, set(peers))
	}
	line("\t\toifname != %q accept", n.Bridge)
	line("\t\tiifname %q accept", n.Bridge)
	line("\t\tct state related accept")
	line("\t\tct direction reply ct state established accept")
	if len(peers) > 0 {
		line("\t\tiifname %q ip saddr %s accept", LinkInterface, set(peers))
	}
	for _, f := range sorted(w.Forwards) {
		// The original port comes last: nft wants to know the protocol first.
		line("\t\tct status dnat %sip daddr %s %s dport %d ct original ip daddr %s ct original proto-dst %d accept",
			from(f.Sources), f.Target, f.Protocol, f.TargetPort, f.External, f.Port)
	}
	line("\t\tcounter drop")
	line("\t}")
	line("}")
	return b.String()
}

// RenderRemoval is the transaction that removes a network's table.
func RenderRemoval(table string) string {
	return fmt.Sprintf("delete table inet %s\n", table)
}

// sorted has the same forwards render the same table, whatever their order.
func sorted(forwards []Forward) []Forward {
	return slices.SortedFunc(slices.Values(forwards), func(a, b Forward) int {
		return strings.Compare(a.key(), b.key())
	})
}

func (f Forward) key() string {
	return fmt.Sprintf("%s %s %05d", f.External, f.Protocol, f.Port)
}

// from is the match of a forward's sources, nothing when everybody may come.
func from(sources []netip.Prefix) string {
	for _, source := range sources {
		if source.Bits() == 0 {
			return ""
		}
	}
	if len(sources) == 0 {
		return ""
	}
	return "ip saddr " + set(sources) + " "
}

// set is an nftables set of ranges. No range in it may contain another.
func set(ranges []netip.Prefix) string {
	var elements []string
	for i, r := range ranges {
		within := slices.ContainsFunc(ranges, func(other netip.Prefix) bool {
			return other.Bits() < r.Bits() && other.Contains(r.Addr())
		})
		if within || slices.Contains(ranges[:i], r) {
			continue
		}
		if r.IsSingleIP() {
			elements = append(elements, r.Addr().String())
			continue
		}
		elements = append(elements, r.String())
	}
	return "{ " + strings.Join(elements, ", ") + " }"
}
