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
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/gateway"
)

// What others set up is read from a kernel that has it, as they would set it up.
func TestBlocked(t *testing.T) {
	web := network{Network: gateway.Network{UUID: webUUID, Bridge: gateway.TableName(webUUID), Ranges: []netip.Prefix{netip.MustParsePrefix("10.100.0.0/25")}}}
	const (
		from   = "connections from capl-0b5c7c8e6f"
		to     = "forwarded connections to capl-0b5c7c8e6f"
		dhcp   = "DHCP requests from capl-0b5c7c8e6f"
		docker = `iptables-nft -P FORWARD DROP
			iptables-nft -N DOCKER-USER; iptables-nft -N DOCKER-FORWARD
			iptables-nft -A FORWARD -j DOCKER-USER; iptables-nft -A FORWARD -j DOCKER-FORWARD
			iptables-nft -A DOCKER-FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
			iptables-nft -A DOCKER-FORWARD -i docker0 -j ACCEPT
		`
		ufw = `iptables-nft -P INPUT DROP
			iptables-nft -N ufw-before-input; iptables-nft -N ufw-user-input
			iptables-nft -A INPUT -j ufw-before-input; iptables-nft -A INPUT -j ufw-user-input
			iptables-nft -A ufw-before-input -i lo -j ACCEPT
			iptables-nft -A ufw-before-input -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
			iptables-nft -A ufw-before-input -p udp --sport 67 --dport 68 -j ACCEPT
			iptables-nft -A ufw-user-input -p tcp --dport 22 -j ACCEPT
		`
		firewalld = `nft -f - <<'END'
		table inet firewalld {
			chain filter_FORWARD {
				type filter hook forward priority filter + 10; policy accept;
				ct state { established, related } accept
				ct status dnat accept
				iifname "lo" accept
				ct state invalid drop
				jump filter_FORWARD_POLICIES
				reject with icmpx admin-prohibited
			}
			chain filter_FORWARD_POLICIES {
				iifname "eth0" jump filter_FWD_public
				%s
			}
			chain filter_FWD_public { accept; }
		}
END
		`
	)
	for name, c := range map[string]struct {
		setUp string
		stops []string
	}{
		"nothing":                   {"true", nil},
		"a policy":                  {"nft 'table inet mine { chain forward { type filter hook forward priority 0; policy drop; }; }'", []string{from + " and " + to}},
		"an end":                    {"nft 'table inet mine { chain forward { type filter hook forward priority 0; ct state established accept; counter reject; }; }'", []string{from + " and " + to}},
		"a rule for others":         {`nft 'table inet mine { chain forward { type filter hook forward priority 0; oifname "virbr0" drop; oifname != "eth0" tcp dport 25 drop; }; }'`, nil},
		"a policy with a door":      {`nft 'table inet mine { chain forward { type filter hook forward priority 0; policy drop; iifname "capl-*" accept; oifname "capl-*" ct status dnat accept; }; }'`, nil},
		"a door one way":            {`nft 'table inet mine { chain forward { type filter hook forward priority 0; policy drop; iifname { "eth1", "capl-0b5c7c8e6f" } accept; }; }'`, []string{to}},
		"a door too late":           {`nft 'table inet mine { chain forward { type filter hook forward priority 0; policy accept; iifname "capl-*" drop; iifname "capl-*" accept; }; }'`, []string{from}},
		"a door for others":         {`nft 'table inet mine { chain forward { type filter hook forward priority 0; policy drop; iifname "capl-*" ct state established accept; oifname "eth0" accept; }; }'`, []string{from + " and " + to}},
		"a map of states":           {`nft 'table inet mine { chain forward { type filter hook forward priority 0; policy drop; ct state vmap { established : accept, related : accept, invalid : drop }; }; }'`, []string{from + " and " + to}},
		"a map of interfaces":       {`nft 'table inet mine { chain ours { accept; }; chain forward { type filter hook forward priority 0; policy drop; iifname vmap { "capl-0b5c7c8e6f" : jump ours }; ct status dnat accept; }; }'`, nil},
		"another hook":              {"nft 'table inet mine { chain output { type filter hook output priority 0; policy drop; }; }'", nil},
		"only IPv6":                 {"nft 'table ip6 mine { chain forward { type filter hook forward priority 0; policy drop; }; }'", nil},
		"a table of ours":           {gatewayTable(web), nil},
		"Docker":                    {docker, []string{from + " and " + to}},
		"Docker, with a door":       {docker + "iptables-nft -I DOCKER-USER -i capl-+ -j ACCEPT; iptables-nft -I DOCKER-USER -o capl-+ -j ACCEPT", nil},
		"ufw":                       {ufw, []string{dhcp}},
		"ufw, with a door":          {ufw + "iptables-nft -A ufw-user-input -i capl-+ -j ACCEPT", nil},
		"ufw, open for DHCP":        {ufw + "iptables-nft -A ufw-user-input -p udp --dport 67 -j ACCEPT", nil},
		"firewalld":                 {fmt.Sprintf(firewalld, ""), []string{from}},
		"firewalld, with a door":    {fmt.Sprintf(firewalld, `iifname "capl-*" accept`), nil},
		"iptables' end":             {"iptables-nft -A FORWARD -i eth0 -j LOG; iptables-nft -A FORWARD -j LOG; iptables-nft -A FORWARD -j REJECT --reject-with icmp-host-prohibited", []string{from + " and " + to}},
		"old iptables":              {"iptables-legacy -P FORWARD DROP; iptables-legacy -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT; iptables-legacy -A FORWARD -j LOG", []string{from + " and " + to}},
		"old iptables, with a door": {"iptables-legacy -P FORWARD DROP; iptables-legacy -N OURS; iptables-legacy -A FORWARD -j OURS; iptables-legacy -A OURS -i capl-+ -j ACCEPT; iptables-legacy -A OURS -o capl-+ -p tcp -j ACCEPT", nil},
		"old iptables' input":       {"iptables-legacy -P INPUT DROP; iptables-legacy -A INPUT ! -i capl-+ -p udp -m udp --dport 67 -j ACCEPT", []string{dhcp}},
	} {
		t.Run(name, func(t *testing.T) {
			got := blocked(chainsOf(t, c.setUp, web.Bridge), []network{web}, nil)
			if len(got) != len(c.stops) {
				t.Fatalf("got %q, want %q", got, c.stops)
			}
			for i, line := range got {
				if !strings.Contains(line, ": stops "+c.stops[i]+";") || !strings.Contains(line, "chain ") {
					t.Errorf("got %q, want %q", line, c.stops[i])
				}
			}
		})
	}
}

// chainsOf is what is read of the rules that a shell script makes, but for a table of ours.
func chainsOf(t *testing.T, setUp, ours string) map[string]chain {
	t.Helper()
	text := "{\n" + setUp + "\n} >&2\nnft -j list ruleset; echo; cat /proc/net/ip_tables_names | grep -q filter && iptables-legacy -S || true"
	cmd := exec.Command("unshare", "--net", "sh", "-ec", text)
	var complaints strings.Builder
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, &complaints)
	}
	ruleset, legacy, _ := strings.Cut(string(out), "\n")
	chains, err := readRuleset([]byte(ruleset), map[string]bool{ours: true})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range readLegacy(legacy) {
		chains[name] = c
	}
	return chains
}

// What a link needs of others' rules: that its packets come in, if peers can only connect from their side, and what they carry
// is passed on.
func TestBlockedLink(t *testing.T) {
	web := network{Network: gateway.Network{UUID: webUUID, Bridge: gateway.TableName(webUUID), Ranges: []netip.Prefix{netip.MustParsePrefix("10.100.0.0/25")}}}
	comes := &link{port: 51820, networks: []string{webUUID}, peers: []peer{{}}}
	reached := &link{port: 51820, networks: []string{webUUID}, peers: []peer{{endpoint: netip.MustParseAddrPort("192.0.2.1:51820")}}}
	const (
		wireguard = "chain c: stops the WireGuard packets of other hosts to UDP port 51820"
		passedOn  = "chain c: stops connections by the link to capl-0b5c7c8e6f"
	)
	input := func(rules string) string {
		return "nft 'table inet mine { chain c { type filter hook input priority 0; policy drop; udp dport 67 accept; " + rules + "; }; }'"
	}
	forward := func(rules string) string {
		return "nft 'table inet mine { chain c { type filter hook forward priority 0; policy drop; iifname \"capl-0b5c7c8e6f\" accept; ct status dnat accept; " + rules + "; }; }'"
	}
	for name, c := range map[string]struct {
		setUp string
		link  *link
		stops string
	}{
		"nothing":                      {"true", comes, ""},
		"a policy":                     {input(""), comes, wireguard},
		"a policy, without a link":     {input(""), nil, ""},
		"a policy, and peers reached":  {input(""), reached, ""},
		"a door":                       {input("udp dport 51820 accept"), comes, ""},
		"a door for some":              {input("ip saddr 192.0.2.0/24 udp dport { 123, 51820 } accept"), comes, ""},
		"another door":                 {input("tcp dport 51820 accept; udp dport 51821 accept"), comes, wireguard},
		"another door for some":        {input("ip saddr 192.0.2.0/24 accept"), comes, wireguard},
		"forwarding":                   {forward(""), reached, passedOn},
		"forwarding, without a link":   {forward(""), nil, ""},
		"forwarding for the link":      {forward(`iifname "capl-wg" accept`), reached, ""},
		"forwarding for every network": {forward(`oifname "capl-*" accept`), reached, ""},
	} {
		t.Run(name, func(t *testing.T) {
			got := strings.Join(blocked(chainsOf(t, c.setUp, web.Bridge), []network{web}, c.link), "\n")
			if !strings.Contains(got, c.stops) || (got == "") != (c.stops == "") {
				t.Errorf("got %q, want %q", got, c.stops)
			}
		})
	}
}

// gatewayTable writes a network's table.
func gatewayTable(n network) string {
	return "nft -f - <<'END'\n" + gateway.RenderTable(n.Network, nil, gateway.Wanted{}) + "END\n"
}

// The agent tells of what is in the way, and of its end.
func TestBlockingIsTold(t *testing.T) {
	s := newSite(t)
	s.define(webUUID, "")
	s.start()
	tells := func(what string, want int) string {
		t.Helper()
		var lines []string
		eventually(t, what, func() error {
			status, err := s.status()
			if err == nil && len(status.Blocking) != want {
				err = fmt.Errorf("told %q", status.Blocking)
			}
			lines = status.Blocking
			return err
		})
		return strings.Join(lines, "\n")
	}
	tells("silence", 0)
	script(t, s.host.Netns(), "nft 'table ip filter { chain FORWARD { type filter hook forward priority 0; policy drop; }; }'")
	if line := tells("the policy", 1); !strings.Contains(line, "table ip filter, chain FORWARD") {
		t.Errorf("told %q", line)
	}
	script(t, s.host.Netns(), "nft delete table ip filter")
	tells("the policy's end", 0)
	script(t, s.host.Netns(), "echo 0 >/proc/sys/net/ipv4/ip_forward; ip addr add 203.0.113.78/32 dev internet")
	if line := tells("the switch", 1); !strings.Contains(line, "net.ipv4.ip_forward is 0") {
		t.Errorf("told %q", line)
	}
}
