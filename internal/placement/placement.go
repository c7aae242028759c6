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

// Package placement chooses the host of a machine. It is pure: it decides on what it is given.
//
// A host either can take a machine or is refused for reasons, all of which are told (refuse.go). Among those that can,
// the machines that belong together are spread (score.go).
package placement

import "cmp"

// Candidate is a host as placement sees it.
type Candidate struct {
	// Name of the LibvirtHost. No two candidates have the same.
	Name string
	// FailureDomain of the host.
	FailureDomain string
	// Unusable is why nothing can be placed on the host now: all reasons. Empty when it can be used.
	Unusable []string
	// Withdrawn says that somebody took the host out of use, which is among the reasons of Unusable: it isn't waited for.
	Withdrawn bool
	// DomainTypes that the host claims to run.
	DomainTypes []string
	// Room is what the host has of each resource. Empty when that isn't known.
	Room []Room
	// Needs are what the machine takes of this host beside what it takes of any: space in its storage pools.
	Needs []Need
	// Siblings are the machines on the host that belong together with the one to be placed.
	Siblings int
}

// Request is what a machine asks for.
type Request struct {
	// HostName pins the machine to a host; empty when it may go anywhere.
	HostName string
	// FailureDomain that the machine must be in; empty when it may be in any.
	FailureDomain string
	// DomainType that the host must run.
	DomainType string
	// ControlPlane says that the machine and its siblings are those of a control plane, which are spread over failure
	// domains before they are spread over hosts.
	ControlPlane bool
	// Needs are the resources that the machine takes.
	Needs []Need
}

// Pick chooses the best of the hosts that can take a machine. The order of the candidates doesn't matter. It returns a
// *NoHostFitsError when none can.
func Pick(candidates []Candidate, request Request) (string, error) {
	inDomain := siblingsByDomain(candidates, request)
	var best *Candidate
	var bestScore score
	var refusals []Refusal
	for i := range candidates {
		candidate := &candidates[i]
		if reasons := refuse(candidate, &request); len(reasons) > 0 {
			refusals = append(refusals, Refusal{candidate.Name, reasons, ruledOut(candidate, &request)})
			continue
		}
		found := scoreOf(candidate, inDomain)
		if best == nil || cmp.Or(found.compare(bestScore), cmp.Compare(candidate.Name, best.Name)) < 0 {
			best, bestScore = candidate, found
		}
	}
	if best == nil {
		return "", explain(refusals)
	}
	return best.Name, nil
}
