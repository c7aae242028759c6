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

import "cmp"

// score tells how good a host is for a machine. What comes first counts most.
type score struct {
	// inDomain are the siblings in the host's failure domain; they count for control planes only.
	inDomain int
	// siblings on the host.
	siblings int
	// free is the share of the host's memory that isn't promised, from 0 to 1.
	free float64
}

// compare is negative when s is better than other.
func (s score) compare(other score) int {
	return cmp.Or(
		cmp.Compare(s.inDomain, other.inDomain),
		cmp.Compare(s.siblings, other.siblings),
		cmp.Compare(other.free, s.free),
	)
}

// scoreOf rates a host.
func scoreOf(candidate *Candidate, inDomain map[string]int) score {
	rated := score{inDomain: inDomain[candidate.FailureDomain], siblings: candidate.Siblings}
	if memory, ok := candidate.room(Memory); ok && memory.Capacity > 0 {
		rated.free = float64(memory.Free()) / float64(memory.Capacity)
	}
	return rated
}

// siblingsByDomain counts the machines of a control plane in each failure domain, on hosts that can take no more as
// well. Other machines needn't be counted so.
func siblingsByDomain(candidates []Candidate, request Request) map[string]int {
	if !request.ControlPlane {
		return nil
	}
	counts := map[string]int{}
	for i := range candidates {
		counts[candidates[i].FailureDomain] += candidates[i].Siblings
	}
	return counts
}
