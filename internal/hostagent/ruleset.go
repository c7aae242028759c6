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
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// statement is one of a rule's statements in nft's JSON: its kind and what it says.
type statement map[string]json.RawMessage

// readRuleset reads the chains from what `nft -j list ruleset` prints, by "family table chain", but for the tables of ours.
func readRuleset(data []byte, ours map[string]bool) (map[string]chain, error) {
	var ruleset struct {
		Objects []struct {
			Chain *struct {
				Family, Table, Name, Type, Hook, Policy string
			}
			Rule *struct {
				Family, Table, Chain string
				Expr                 []statement
			}
		} `json:"nftables"`
	}
	if err := json.Unmarshal(data, &ruleset); err != nil {
		return nil, fmt.Errorf("reading nft's rules: %w", err)
	}
	chains := map[string]chain{}
	for _, object := range ruleset.Objects {
		switch {
		case object.Chain != nil:
			c := object.Chain
			table := c.Family + " " + c.Table
			if c.Family != "ip" && (c.Family != "inet" || ours[c.Table]) {
				continue
			}
			chains[table+" "+c.Name] = chain{firewall: "table " + table, name: c.Name, hook: c.Hook, drops: c.Policy == "drop"}
		case object.Rule != nil:
			r := object.Rule
			table := r.Family + " " + r.Table + " "
			if c, ok := chains[table+r.Chain]; ok {
				c.rules = append(c.rules, readRule(r.Expr, table)...)
				chains[table+r.Chain] = c
			}
		}
	}
	return chains, nil
}

// readRule reads a rule's statements, with the chains that it jumps to in a table. A map of verdicts makes it several.
func readRule(statements []statement, table string) []rule {
	var r rule
	for _, s := range statements {
		for _, kind := range slices.Sorted(maps.Keys(s)) {
			switch body := s[kind]; kind {
			case "match":
				if m, ok := readMatch(body); ok {
					r.matches = append(r.matches, m)
				} else {
					r.vague = true
				}
			case "vmap":
				return readVerdictMap(r, body, table)
			case "xt":
				readExtension(&r, body)
			case "limit", "quota", "ct count", "fib", "socket":
				r.vague = true
			default:
				readVerdict(&r, kind, body, table)
			}
		}
	}
	return []rule{r}
}

// readVerdict gives a rule its action, if a statement is one.
func readVerdict(r *rule, kind string, body json.RawMessage, table string) {
	switch kind {
	case "accept", "queue":
		r.action = accepts
	case "drop", "reject":
		r.action = drops
	case "return":
		r.action = returns
	case "jump", "goto":
		var verdict struct{ Target string }
		if json.Unmarshal(body, &verdict) == nil {
			r.action, r.to = action(kind), table+verdict.Target
		}
	}
}

// readExtension reads what iptables-nft left to an extension of iptables.
func readExtension(r *rule, body json.RawMessage) {
	var extension struct{ Type, Name string }
	if err := json.Unmarshal(body, &extension); err != nil || extension.Type != "target" {
		r.vague = true
		return
	}
	if extension.Name == "REJECT" {
		r.action = drops
	}
}

func readMatch(body json.RawMessage) (match, bool) {
	var m struct {
		Op    string
		Left  json.RawMessage
		Right json.RawMessage
	}
	if err := json.Unmarshal(body, &m); err != nil {
		return match{}, false
	}
	property, ok := readProperty(m.Left)
	values, valuesOk := readValues(m.Right)
	return match{property: property, values: values, not: m.Op == "!="}, ok && valuesOk && slices.Contains([]string{"==", "!=", "in"}, m.Op)
}

// readProperty names what an expression looks at, if that is known here.
func readProperty(expression json.RawMessage) (string, bool) {
	var e struct {
		Meta    struct{ Key string }
		CT      struct{ Key, Dir string }
		Payload struct{ Protocol, Field string }
	}
	if err := json.Unmarshal(expression, &e); err != nil {
		return "", false
	}
	known := map[string]string{
		"meta iifname": iif, "meta iif": iif, "meta oifname": oif, "meta oif": oif,
		"meta nfproto": family, "meta l4proto": protocol, "payload ip protocol": protocol,
		"ct state": ctState, "ct status": ctStatus,
		"payload udp dport": udpPort, "payload tcp dport": tcpPort, "payload th dport": anyPort,
	}
	for _, name := range []string{"meta " + e.Meta.Key, "ct " + e.CT.Key, "payload " + e.Payload.Protocol + " " + e.Payload.Field} {
		if property, ok := known[name]; ok {
			return property, true
		}
	}
	return "", false
}

// readValues reads one value, a list, or a set of them. Ranges and the like aren't understood.
func readValues(expression json.RawMessage) ([]string, bool) {
	var value any
	if err := json.Unmarshal(expression, &value); err != nil {
		return nil, false
	}
	if set, ok := value.(map[string]any); ok {
		value = set["set"]
	}
	list, ok := value.([]any)
	if !ok {
		list = []any{value}
	}
	var values []string
	for _, element := range list {
		switch v := element.(type) {
		case string:
			if strings.HasPrefix(v, "@") {
				return nil, false // a set by name
			}
			values = append(values, v)
		case float64:
			values = append(values, fmt.Sprint(int(v)))
		default:
			return nil, false
		}
	}
	return values, true
}

// readVerdictMap makes a rule of each element of a map from values to verdicts.
func readVerdictMap(before rule, body json.RawMessage, table string) []rule {
	var vmap struct {
		Key  json.RawMessage
		Data struct {
			Set [][2]json.RawMessage
		}
	}
	if err := json.Unmarshal(body, &vmap); err != nil {
		before.vague = true
		return []rule{before}
	}
	property, ok := readProperty(vmap.Key)
	var rules []rule
	for _, element := range vmap.Data.Set {
		values, valuesOk := readValues(element[0])
		r := rule{matches: slices.Clone(before.matches), vague: before.vague || !ok || !valuesOk}
		if ok && valuesOk {
			r.matches = append(r.matches, match{property: property, values: values})
		}
		var verdict statement
		if json.Unmarshal(element[1], &verdict) == nil {
			for kind, target := range verdict {
				readVerdict(&r, kind, target, table)
			}
		}
		rules = append(rules, r)
	}
	return rules
}
