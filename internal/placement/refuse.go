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

package placement

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// refuse gives all the reasons why a host can't take a machine, and none when it can.
func refuse(candidate *Candidate, request *Request) []string {
	var reasons []string
	if elsewhere(request.HostName, candidate.Name) {
		reasons = append(reasons, "spec.hostName asks for "+request.HostName)
	}
	if elsewhere(request.FailureDomain, candidate.FailureDomain) {
		reasons = append(reasons, fmt.Sprintf("is in failure domain %s, not %s", candidate.FailureDomain, request.FailureDomain))
	}
	reasons = append(reasons, candidate.Unusable...)
	if len(candidate.Room) == 0 {
		// Nothing more can be said of the host.
		if len(candidate.Unusable) == 0 {
			reasons = append(reasons, "hasn't reported what it has yet")
		}
		return reasons
	}
	if !slices.Contains(candidate.DomainTypes, request.DomainType) {
		reasons = append(reasons, fmt.Sprintf("doesn't run domains of type %s, only %s",
			request.DomainType, strings.Join(candidate.DomainTypes, ", ")))
	}
	for _, need := range slices.Concat(request.Needs, candidate.Needs) {
		if room, ok := candidate.room(need.Resource); !ok || room.Free() < need.Amount {
			if why := lack(room, need); !slices.Contains(reasons, why) {
				reasons = append(reasons, why)
			}
		}
	}
	return reasons
}

// ruledOut tells whether the machine asks for other hosts than this one, whatever it has.
func ruledOut(candidate *Candidate, request *Request) bool {
	return elsewhere(request.HostName, candidate.Name) || elsewhere(request.FailureDomain, candidate.FailureDomain)
}

// elsewhere tells whether something else is asked for than what is there.
func elsewhere(asked, there string) bool {
	return asked != "" && asked != there
}

// Refusal is why a host can't take a machine: all reasons.
type Refusal struct {
	Host    string
	Reasons []string
	// ruledOut says that the machine doesn't want the host.
	ruledOut bool
}

// NoHostFitsError says, host by host, why none of them can take a machine. First come the hosts that could take it if
// they had room, then those that the machine doesn't want, each by name.
type NoHostFitsError struct {
	Refusals []Refusal
}

// explain puts refusals into the order in which they are read.
func explain(refusals []Refusal) *NoHostFitsError {
	slices.SortFunc(refusals, func(a, b Refusal) int {
		if a.ruledOut != b.ruledOut {
			if b.ruledOut {
				return -1
			}
			return 1
		}
		return cmp.Compare(a.Host, b.Host)
	})
	return &NoHostFitsError{Refusals: refusals}
}

const (
	// maxHosts is how many hosts a message explains. It is read by people, and repeated in every object above the machine.
	maxHosts = 15
	// maxLength is how much a message says of one host, in characters.
	maxLength = 400
)

// Error has the first hosts with their reasons, and the number of the others.
func (e *NoHostFitsError) Error() string {
	if len(e.Refusals) == 0 {
		return "the cluster has no host yet"
	}
	shown := e.Refusals[:min(len(e.Refusals), maxHosts)]
	lines := make([]string, 0, len(shown)+1)
	for _, refusal := range shown {
		lines = append(lines, shorten(fmt.Sprintf("%s: %s", refusal.Host, strings.Join(refusal.Reasons, ", and ")), maxLength))
	}
	if rest := len(e.Refusals) - len(shown); rest > 0 {
		lines = append(lines, fmt.Sprintf("%d more hosts can't take it either", rest))
	}
	return strings.Join(lines, "; ")
}

// shorten cuts a text to a number of characters.
func shorten(text string, limit int) string {
	characters := []rune(text)
	if len(characters) <= limit {
		return text
	}
	return string(characters[:limit-1]) + "…"
}
