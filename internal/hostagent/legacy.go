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
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// listLegacy is the filter table of the iptables of before nftables, which nft doesn't see; nothing when it isn't in use.
func listLegacy(ctx context.Context) (string, error) {
	inUse, err := os.ReadFile("/proc/net/ip_tables_names")
	if err != nil || !slices.Contains(strings.Fields(string(inUse)), "filter") {
		return "", nil //nolint:nilerr // a kernel without it has no such file
	}
	out, err := run(ctx, "", "iptables-legacy", "-w", "5", "-S")
	if errors.Is(err, exec.ErrNotFound) {
		return "", nil
	}
	return string(out), err
}

// readLegacy reads the chains from what `iptables -S` prints.
func readLegacy(listing string) map[string]chain {
	chains := map[string]chain{}
	const table = "legacy "
	for line := range strings.Lines(listing) {
		words := strings.Fields(line)
		if len(words) < 2 {
			continue
		}
		name := words[1]
		c, ok := chains[table+name]
		if !ok {
			c = chain{firewall: "iptables-legacy filter", name: name, hook: map[string]string{"FORWARD": "forward", "INPUT": "input"}[name]}
		}
		switch words[0] {
		case "-P":
			c.drops = len(words) > 2 && words[2] == "DROP"
		case "-A":
			c.rules = append(c.rules, readLegacyRule(words[2:], table))
		}
		chains[table+name] = c
	}
	return chains
}

func readLegacyRule(words []string, table string) rule {
	var r rule
	not := false
	for i := 0; i < len(words); i++ {
		value := ""
		if i+1 < len(words) {
			value = words[i+1]
		}
		property := map[string]string{"-i": iif, "-o": oif, "-p": protocol, "--dport": anyPort, "--ctstate": ctState, "--state": ctState}[words[i]]
		switch {
		case words[i] == "!":
			not = true
			continue
		case property != "":
			if strings.HasSuffix(value, "+") {
				value = strings.TrimSuffix(value, "+") + "*"
			}
			if property == ctState {
				value = strings.ToLower(value)
			}
			r.matches = append(r.matches, match{property: property, values: strings.Split(value, ","), not: not})
			i++
		case words[i] == "-m":
			i++ // what it is for follows
		case words[i] == "-j" || words[i] == "-g":
			readLegacyTarget(&r, words[i], value, table)
			return r // what follows are the target's options
		default:
			r.vague = true
		}
		not = false
	}
	return r
}

func readLegacyTarget(r *rule, option, target, table string) {
	switch target {
	case "ACCEPT", "NFQUEUE":
		r.action = accepts
	case "DROP", "REJECT":
		r.action = drops
	case "RETURN":
		r.action = returns
	default:
		// Of an extension such as LOG there is no chain, and the packet goes on.
		r.action, r.to = jumps, table+target
		if option == "-g" {
			r.action = leaves
		}
	}
}
