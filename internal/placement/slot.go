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

// Slot is a place in a set of machines, with disks that outlive the machine that holds it.
type Slot struct {
	Number int
	// Hosts that have disks of the slot, or on which its holder is.
	Hosts []string
	// Holder is the machine that holds the slot. Empty when none does.
	Holder string
	// Leaving says that the holder is on its way out.
	Leaving bool
	// Taken says that nobody can have the slot now, though no machine holds it: its host name is in use.
	Taken bool
	// Needs are what a machine takes of the slot's host for those of its disks that aren't there yet.
	Needs []Need
}

// SlotRequest is what a machine asks for that has retained disks.
type SlotRequest struct {
	Request
	// Slots of the machine's set. No two have the same number.
	Slots []Slot
	// Ahead is how many machines of the set wait for a slot and come first.
	Ahead int
	// Unknown are the hosts of which nobody knows yet which slots have disks there.
	Unknown []string
}

// SlotWaitError says why a machine has to wait for a slot.
type SlotWaitError struct {
	// Reasons, one for each slot that the machine may get.
	Reasons []string
}

// Error has all the reasons.
func (e *SlotWaitError) Error() string {
	return shorten(strings.Join(e.Reasons, "; "), maxHosts*maxLength)
}

// PickSlot chooses the slot of a machine and with it the host: the first that is free and whose host can take the
// machine. A machine rather waits for a slot than that it makes another: for one whose holder is leaving, and for one
// whose host is away or full, unless somebody took that host out of use. If no slot is left to wait for, the machine gets
// the lowest number that there isn't yet, on any host.
//
// The error is a *SlotWaitError when the machine has to wait, and a *NoHostFitsError when no host can take it.
func PickSlot(candidates []Candidate, request SlotRequest) (host string, number int, err error) {
	slots := slices.SortedFunc(slices.Values(request.Slots), func(a, b Slot) int { return cmp.Compare(a.Number, b.Number) })
	var waits []string
	for _, slot := range slots {
		there := within(candidates, request.Request, slot.Hosts)
		if len(there) == 0 || slot.Holder != "" && !slot.Leaving {
			continue
		}
		if why := slot.blocked(); why != "" {
			waits = append(waits, fmt.Sprintf("slot %d %s", slot.Number, why))
			continue
		}
		there[0].Needs = slot.Needs
		host, err := Pick(there, request.Request)
		if err == nil {
			return host, slot.Number, nil
		}
		waits = append(waits, fmt.Sprintf("slot %d has its disks on a host that can't take the machine now: %s (make room there, or "+
			"cordon the host to have another slot made)", slot.Number, err))
	}
	if request.Ahead < len(waits) {
		return "", 0, &SlotWaitError{Reasons: waits}
	}
	if len(request.Unknown) > 0 {
		return "", 0, &SlotWaitError{Reasons: []string{fmt.Sprintf("which retained disks are on %s isn't known yet, so no new slot can be made: "+
			"connect these hosts, or take them out of spec.hostSelector of the LibvirtCluster", strings.Join(request.Unknown, ", "))}}
	}
	for _, slot := range slots {
		if slot.Number == number {
			number++
		}
	}
	host, err = Pick(candidates, request.Request)
	return host, number, err
}

// blocked is why nobody can have the slot now, empty when it is free.
func (s Slot) blocked() string {
	switch {
	case s.Holder != "":
		return fmt.Sprintf("is held by LibvirtMachine %s, which is being deleted", s.Holder)
	case s.Taken:
		return "is free once the Machine before is gone, which removes the Node"
	case len(s.Hosts) > 1:
		return fmt.Sprintf("has disks on several hosts, %s: delete the outdated ones with virsh vol-delete", strings.Join(s.Hosts, ", "))
	}
	return ""
}

// within are the candidates among hosts on which a machine may be, now or later.
func within(candidates []Candidate, request Request, hosts []string) []Candidate {
	var found []Candidate
	for _, candidate := range candidates {
		runs := len(candidate.Room) == 0 || slices.Contains(candidate.DomainTypes, request.DomainType)
		if slices.Contains(hosts, candidate.Name) && !candidate.Withdrawn && !ruledOut(&candidate, &request) && runs {
			found = append(found, candidate)
		}
	}
	return found
}
