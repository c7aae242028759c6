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
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/gateway"
)

// The properties of packets that matches are about.
const (
	iif      = "iifname"
	oif      = "oifname"
	ctState  = "ct state"
	ctStatus = "ct status"
	family   = "family"
	protocol = "protocol"
	udpPort  = "udp dport"
	tcpPort  = "tcp dport"
	anyPort  = "th dport"
)

// survey finds what others have set up on the host that stops what the networks and their link need, others being all but
// the tables of those names.
func survey(ctx context.Context, networks []network, l *link, ours map[string]bool) ([]string, error) {
	if len(networks) == 0 {
		return nil, nil
	}
	var blocking []string
	if forwarding, err := os.ReadFile("/proc/sys/net/ipv4/ip_forward"); err == nil && strings.TrimSpace(string(forwarding)) == "0" {
		blocking = append(blocking, "net.ipv4.ip_forward is 0, so that the host forwards nothing: set it to 1 in /etc/sysctl.d")
	}
	ruleset, err := listRuleset(ctx)
	if err != nil {
		return nil, err
	}
	chains, err := readRuleset(ruleset, ours)
	if err != nil {
		return nil, err
	}
	legacy, err := listLegacy(ctx)
	if err != nil {
		return nil, err
	}
	for name, c := range readLegacy(legacy) {
		chains[name] = c
	}
	return append(blocking, blocked(chains, networks, l)...), nil
}

// flow is a kind of connection that a node network needs.
type flow struct {
	hook, what string
	// linked is set when only networks with a link need it.
	linked bool
	packet func(bridge string) packet
}

var flows = []flow{
	{"forward", "connections from", false, func(bridge string) packet {
		return packet{family: {"ipv4"}, iif: {bridge}, ctState: {"new"}, ctStatus: {}}
	}},
	{"forward", "forwarded connections to", false, func(bridge string) packet {
		return packet{family: {"ipv4"}, oif: {bridge}, ctState: {"new"}, ctStatus: {"dnat"}}
	}},
	{"forward", "connections by the link to", true, func(bridge string) packet {
		return packet{family: {"ipv4"}, iif: {gateway.LinkInterface}, oif: {bridge}, ctState: {"new"}, ctStatus: {}}
	}},
	{"input", "DHCP requests from", false, func(bridge string) packet {
		return packet{family: {"ipv4"}, iif: {bridge}, ctState: {"new"}, ctStatus: {},
			protocol: {"udp"}, udpPort: {"67"}, tcpPort: {}, anyPort: {"67"}}
	}},
}

// linkPort is the port on which peers connect that can't be reached themselves, nothing if there are none. Others are
// connected to from here, too, and what they send is an answer.
func (l *link) linkPort() string {
	if l == nil || !slices.ContainsFunc(l.peers, func(p peer) bool { return !p.endpoint.IsValid() }) {
		return ""
	}
	return strconv.Itoa(l.port)
}

// blocked says which chains stop what the networks need, in a fixed order.
func blocked(chains map[string]chain, networks []network, l *link) []string {
	var lines []string
	port := l.linkPort()
	for _, c := range chains {
		var stopped []string
		for _, f := range flows {
			var bridges []string
			for _, n := range networks {
				if f.linked && (l == nil || !slices.Contains(l.networks, n.UUID)) {
					continue
				}
				if n.broken == nil && f.hook == c.hook && stops(chains, c, f.packet(n.Bridge), n.Bridge) {
					bridges = append(bridges, n.Bridge)
				}
			}
			if len(bridges) > 0 {
				stopped = append(stopped, f.what+" "+strings.Join(bridges, ", "))
			}
		}
		if len(stopped) > 0 {
			lines = append(lines, fmt.Sprintf("%s, chain %s: stops %s; accept the bridge there", c.firewall, c.name, strings.Join(stopped, " and ")))
		}
		packets := packet{family: {"ipv4"}, ctState: {"new"}, ctStatus: {}, protocol: {"udp"}, udpPort: {port}, tcpPort: {}, anyPort: {port}}
		if port != "" && c.hook == "input" && stops(chains, c, packets, port) {
			lines = append(lines, fmt.Sprintf("%s, chain %s: stops the WireGuard packets of other hosts to UDP port %s; accept that port there", c.firewall, c.name, port))
		}
	}
	slices.Sort(lines)
	return lines
}
