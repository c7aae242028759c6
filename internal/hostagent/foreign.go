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
	"strings"
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

// survey finds what others have set up on the host that stops what the networks need, others being all but the tables of
// those names.
func survey(ctx context.Context, networks []network, ours map[string]bool) ([]string, error) {
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
	return append(blocking, blocked(chains, networks)...), nil
}

// flow is a kind of connection that a node network needs.
type flow struct {
	hook, what string
	packet     func(bridge string) packet
}

var flows = []flow{
	{"forward", "connections from", func(bridge string) packet {
		return packet{family: {"ipv4"}, iif: {bridge}, ctState: {"new"}, ctStatus: {}}
	}},
	{"forward", "forwarded connections to", func(bridge string) packet {
		return packet{family: {"ipv4"}, oif: {bridge}, ctState: {"new"}, ctStatus: {"dnat"}}
	}},
	{"input", "DHCP requests from", func(bridge string) packet {
		return packet{family: {"ipv4"}, iif: {bridge}, ctState: {"new"}, ctStatus: {},
			protocol: {"udp"}, udpPort: {"67"}, tcpPort: {}, anyPort: {"67"}}
	}},
}

// blocked says which chains stop what the networks need, in a fixed order.
func blocked(chains map[string]chain, networks []network) []string {
	var lines []string
	for _, c := range chains {
		var stopped []string
		for _, f := range flows {
			var bridges []string
			for _, n := range networks {
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
	}
	slices.Sort(lines)
	return lines
}
