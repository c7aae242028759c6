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
package placement

import (
	"fmt"
	"slices"
	"strings"
)

// Candidate is a host as placement sees it.
type Candidate struct {
	// Name of the LibvirtHost.
	Name string
	// FailureDomain of the host.
	FailureDomain string
	// Unusable says why nothing can be placed on the host now; empty when it can be used.
	Unusable string
	// Capacity is the host's memory less what is reserved for itself, in bytes.
	Capacity int64
	// Promised is the memory of all domains on the host and of all machines on their way there, in bytes.
	Promised int64
	// DomainTypes that the host claims to run.
	DomainTypes []string
}

// Free is the memory that is neither reserved nor promised, in bytes.
func (c Candidate) Free() int64 {
	return c.Capacity - c.Promised
}

// Request is what a machine asks for.
type Request struct {
	// HostName pins the machine to a host; empty when it may go anywhere.
	HostName string
	// FailureDomain that the machine must be in; empty when it may be in any.
	FailureDomain string
	// Memory in bytes.
	Memory int64
	// DomainType that the host must run.
	DomainType string
}

// Refusal is why a host can't take a machine.
type Refusal struct {
	Host, Reason string
}

// NoHostFitsError says, host by host, why none of them can take a machine.
type NoHostFitsError struct {
	Refusals []Refusal
}

func (e *NoHostFitsError) Error() string {
	if len(e.Refusals) == 0 {
		return "the cluster has no host yet"
	}
	lines := make([]string, 0, len(e.Refusals))
	for _, refusal := range e.Refusals {
		lines = append(lines, fmt.Sprintf("%s: %s", refusal.Host, refusal.Reason))
	}
	return strings.Join(lines, "; ")
}

// Pick chooses the host with the most free memory among those that fit, the first by name among equals. It returns a
// *NoHostFitsError when none fits.
func Pick(candidates []Candidate, request Request) (string, error) {
	candidates = slices.Clone(candidates)
	slices.SortFunc(candidates, func(a, b Candidate) int { return strings.Compare(a.Name, b.Name) })
	var best *Candidate
	var refusals []Refusal
	for i := range candidates {
		candidate := &candidates[i]
		if reason := refuse(*candidate, request); reason != "" {
			refusals = append(refusals, Refusal{candidate.Name, reason})
			continue
		}
		if best == nil || candidate.Free() > best.Free() {
			best = candidate
		}
	}
	if best == nil {
		return "", &NoHostFitsError{Refusals: refusals}
	}
	return best.Name, nil
}

// refuse says why a host can't take a machine, and nothing when it can.
func refuse(candidate Candidate, request Request) string {
	switch {
	case request.HostName != "" && candidate.Name != request.HostName:
		return "spec.hostName asks for " + request.HostName
	case request.FailureDomain != "" && candidate.FailureDomain != request.FailureDomain:
		return fmt.Sprintf("is in failure domain %s, not %s", candidate.FailureDomain, request.FailureDomain)
	case candidate.Unusable != "":
		return candidate.Unusable
	case !slices.Contains(candidate.DomainTypes, request.DomainType):
		return fmt.Sprintf("doesn't run domains of type %s, only %s", request.DomainType,
			strings.Join(candidate.DomainTypes, ", "))
	case candidate.Free() < request.Memory:
		return fmt.Sprintf("has %s of memory free of %s, needs %s",
			mebibytes(max(candidate.Free(), 0)), mebibytes(candidate.Capacity), mebibytes(request.Memory))
	}
	return ""
}

func mebibytes(bytes int64) string {
	return fmt.Sprintf("%d MiB", bytes>>20)
}
