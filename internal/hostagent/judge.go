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
	"slices"
	"strings"
)

// chain is a chain of a firewall of others, as far as it matters here.
type chain struct {
	// firewall and name are for messages: "table ip filter", "chain FORWARD".
	firewall, name string
	// hook is forward or input for a base chain, empty for one that others jump to.
	hook string
	// drops is set when what no rule decided about is dropped.
	drops bool
	rules []rule
}

// rule is one rule: what it does to a packet that has all of it.
type rule struct {
	matches []match
	// vague is set when the rule asks for something more, which isn't understood.
	vague  bool
	action action
	// to is the chain that the packet is sent to.
	to string
}

type action string

const (
	accepts action = "accept"
	drops   action = "drop"
	jumps   action = "jump"
	leaves  action = "goto"
	returns action = "return"
	passes  action = ""
)

// match asks that a property of the packet is one of some values, or none of them.
type match struct {
	property string
	values   []string
	not      bool
}

// packet is the first of a connection, by its properties; those that it hasn't aren't known.
type packet map[string][]string

type truth int

const (
	no truth = iota
	unknown
	yes
)

// asks evaluates a match.
func (p packet) asks(m match) truth {
	has, known := p[m.property]
	if !known {
		return unknown
	}
	for _, value := range m.values {
		for _, own := range has {
			if fits(value, own) {
				return map[bool]truth{true: no, false: yes}[m.not]
			}
		}
	}
	return map[bool]truth{true: yes, false: no}[m.not]
}

// fits compares a value with a pattern, in which a star at the end stands for the rest of an interface's name.
func fits(pattern, value string) bool {
	if prefix, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(value, prefix)
	}
	return pattern == value
}

// way is how a packet came to a rule.
type way struct {
	// sure is set when it did for certain.
	sure bool
	// named is set when a rule on the way asked for the bridge, or the link's port: who wrote it thought of the node network.
	named bool
	depth int
}

// naming are the properties by which a rule names what it is about.
var naming = []string{iif, oif, udpPort, anyPort}

// deepest is where the kernel ends the jumping, too.
const deepest = 16

// judge sends a packet through a chain. Drops means that it is dropped for certain; accepts, that it is accepted for
// certain or by a rule that asks for subject, a bridge or a port; passes, that the chain didn't decide.
func judge(chains map[string]chain, c chain, p packet, subject string, w way) action {
	if w.depth > deepest {
		return passes
	}
	for _, r := range c.rules {
		here := way{sure: w.sure && !r.vague, named: w.named, depth: w.depth + 1}
		holds := yes
		for _, m := range r.matches {
			answer := p.asks(m)
			holds = min(holds, answer)
			if answer == yes && !m.not && slices.Contains(naming, m.property) && slices.Contains(p[m.property], subject) {
				here.named = true
			}
		}
		if holds == no {
			continue
		}
		here.sure = here.sure && holds == yes
		switch r.action {
		case accepts:
			if here.sure || here.named {
				return accepts
			}
		case drops:
			if here.sure {
				return drops
			}
		case returns:
			if here.sure {
				return passes
			}
		case jumps, leaves:
			if verdict := judge(chains, chains[r.to], p, subject, here); verdict != passes {
				return verdict
			}
			if r.action == leaves && here.sure {
				return passes
			}
		case passes:
		}
	}
	return passes
}

// stops tells whether a base chain stops a packet.
func stops(chains map[string]chain, c chain, p packet, subject string) bool {
	verdict := judge(chains, c, p, subject, way{sure: true})
	return verdict == drops || verdict == passes && c.drops
}
