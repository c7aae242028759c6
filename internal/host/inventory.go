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

package host

import (
	"maps"
	"sync"
	"time"

	"libvirt.org/go/libvirt"
)

// Domain is what the inventory knows about a domain.
type Domain struct {
	UUID, Name string
	State      State
	// Reason is one CamelCase word, such as IOError or Crashed. A running domain has none.
	Reason string
	// ChangedAt is when this process saw the state change.
	ChangedAt time.Time
	// MaxMemoryBytes is the memory the domain was defined with. It is 0 for a moment after someone else defined it.
	MaxMemoryBytes int64
	// VCPUs is the number of its virtual CPUs. It is 0 as long as the memory is.
	VCPUs int
}

// entry is a domain and what else its events need to be understood.
type entry struct {
	Domain
	// transient domains have no definition and vanish when they stop.
	transient bool
	// version counts the events that tell of the domain's state.
	version uint64
}

// size is what a domain was defined with.
type size struct {
	memory int64
	vcpus  int
}

// occurrence is one lifecycle event of a domain.
type occurrence struct {
	uuid, name string
	event      libvirt.DomainEventType
	detail     int
}

// inventory is the set of domains of one session: listed once, then kept by events.
type inventory struct {
	mu      sync.Mutex
	now     func() time.Time
	entries map[string]entry
	// early holds the events that arrived while the domains were being listed.
	early  []occurrence
	loaded bool
	// defining holds the size of domains that this process is defining, so that nobody has to ask for it.
	defining map[string]size
	// removed holds the domains that this process undefined, until the event that tells so: what comes before it is late.
	removed map[string]bool
	// heard holds the domains of which something was heard since a list was asked for, while one is.
	heard map[string]bool
}

func newInventory() *inventory {
	return &inventory{now: time.Now, entries: map[string]entry{}, defining: map[string]size{}, removed: map[string]bool{}}
}

// load takes the listed domains, and then the events that arrived meanwhile: the last event of a domain decides.
// It keeps from the session before what libvirt forgets: when a state began, and its reason across a daemon restart.
// It returns the domains whose memory must be asked for.
func (i *inventory) load(listed []entry, before map[string]Domain) (measure []string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, e := range listed {
		old, ok := before[e.UUID]
		if ok && old.State == e.State && e.Reason == ReasonUnknown {
			e.Reason = old.Reason
		}
		e.ChangedAt = i.now()
		if ok && old.State == e.State && old.Reason == e.Reason {
			e.ChangedAt = old.ChangedAt
		}
		i.entries[e.UUID] = e
	}
	for _, o := range i.early {
		if i.apply(o) {
			measure = append(measure, o.uuid)
		}
	}
	i.early, i.loaded = nil, true
	return measure
}

// observe takes an event and reports whether the domain's memory must be asked for.
func (i *inventory) observe(o occurrence) (measure bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if !i.loaded {
		i.early = append(i.early, o)
		return false
	}
	return i.apply(o)
}

func (i *inventory) apply(o occurrence) (measure bool) {
	i.hear(o.uuid)
	if i.removed[o.uuid] {
		if o.event == libvirt.DOMAIN_EVENT_UNDEFINED {
			delete(i.removed, o.uuid)
		}
		return false
	}
	e, known := i.entries[o.uuid]
	state, reason := after(e.State, e.Reason, known, o.event, o.detail)
	if !known {
		e = entry{Domain: Domain{UUID: o.uuid}, transient: o.event == libvirt.DOMAIN_EVENT_STARTED}
		measure = true
	}
	if state != e.State || reason != e.Reason {
		e.ChangedAt = i.now()
	}
	e.Name, e.State, e.Reason = o.name, state, reason
	switch o.event {
	case libvirt.DOMAIN_EVENT_DEFINED:
		e.transient = false
		measure = true
		if known, ok := i.defining[o.uuid]; ok {
			e.MaxMemoryBytes, e.VCPUs, measure = known.memory, known.vcpus, false
			delete(i.defining, o.uuid)
		}
	case libvirt.DOMAIN_EVENT_UNDEFINED:
		e.transient = true
		measure = false
	default:
		e.version++
	}
	if e.transient && e.State == Shutoff {
		delete(i.entries, o.uuid)
		return false
	}
	i.entries[o.uuid] = e
	return measure
}

// define announces a definition made by this process; the returned functions settle it.
func (i *inventory) define(uuid, name string, of size) (done, failed func()) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.defining[uuid] = of
	delete(i.removed, uuid)
	done = func() {
		i.mu.Lock()
		defer i.mu.Unlock()
		e, known := i.entries[uuid]
		if !known {
			// The event is still under way.
			e = entry{Domain: Domain{UUID: uuid, State: Shutoff, Reason: ReasonUnknown, ChangedAt: i.now()}}
		}
		e.Name, e.MaxMemoryBytes, e.VCPUs, e.transient = name, of.memory, of.vcpus, false
		i.entries[uuid] = e
		i.hear(uuid)
	}
	failed = func() {
		i.mu.Lock()
		defer i.mu.Unlock()
		delete(i.defining, uuid)
	}
	return done, failed
}

// expect prepares for the outcome of a call of this process. The returned function enters it and reports whether it
// could: when an event came meanwhile that says otherwise, it may be a late one, or it may tell of what happened next,
// such as a guest that died before the call that started it came back. Then the host must be asked.
func (i *inventory) expect(uuid string, state State, reason string) (done func() bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	version := i.entries[uuid].version
	return func() bool {
		i.mu.Lock()
		defer i.mu.Unlock()
		e, known := i.entries[uuid]
		onTheWay := state == Shutoff && e.State == ShuttingDown
		switch {
		case !known || e.State == state:
			return true
		case e.version != version && !onTheWay:
			return false
		}
		e.State, e.Reason, e.ChangedAt = state, reason, i.now()
		i.entries[uuid] = e
		return true
	}
}

// asking prepares for the answer to a question about a domain's state, which may be that there is none. The returned
// function enters it, unless an event has told more by then, and reports whether that changed anything.
func (i *inventory) asking(uuid string) (enter func(state State, reason string) bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	version := i.entries[uuid].version
	return func(state State, reason string) bool {
		i.mu.Lock()
		defer i.mu.Unlock()
		e, known := i.entries[uuid]
		if !known || e.version != version || (e.State == state && e.Reason == reason) {
			return false
		}
		if state == "" || (state == Shutoff && e.transient) {
			delete(i.entries, uuid)
			return true
		}
		e.State, e.Reason, e.ChangedAt = state, reason, i.now()
		i.entries[uuid] = e
		return true
	}
}

// listing prepares for a list of the domains, one list at a time. The returned function enters those whose events were
// missed, and returns them. A domain of which something was heard meanwhile isn't one: the list may be older than its end.
func (i *inventory) listing() (enter func(listed []entry) (missed []string)) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.heard = map[string]bool{}
	return func(listed []entry) (missed []string) {
		i.mu.Lock()
		defer i.mu.Unlock()
		for _, e := range listed {
			if _, known := i.entries[e.UUID]; known || i.heard[e.UUID] {
				continue
			}
			e.ChangedAt = i.now()
			i.entries[e.UUID] = e
			missed = append(missed, e.UUID)
		}
		i.heard = nil
		return missed
	}
}

func (i *inventory) hear(uuid string) {
	if i.heard != nil {
		i.heard[uuid] = true
	}
}

// remove forgets a domain that this process undefined.
func (i *inventory) remove(uuid string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	e, known := i.entries[uuid]
	if !known || e.State != Shutoff {
		return
	}
	delete(i.entries, uuid)
	i.hear(uuid)
	if !e.transient {
		i.removed[uuid] = true
	}
}

// measured enters the size of a domain that someone else defined.
func (i *inventory) measured(uuid string, found size) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if e, ok := i.entries[uuid]; ok {
		e.MaxMemoryBytes, e.VCPUs = found.memory, found.vcpus
		i.entries[uuid] = e
	}
}

func (i *inventory) domain(uuid string) (Domain, bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	e, ok := i.entries[uuid]
	return e.Domain, ok
}

// named returns the domain of that name.
func (i *inventory) named(name string) (Domain, bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, e := range i.entries {
		if e.Name == name {
			return e.Domain, true
		}
	}
	return Domain{}, false
}

func (i *inventory) domains() map[string]Domain {
	i.mu.Lock()
	defer i.mu.Unlock()
	domains := make(map[string]Domain, len(i.entries))
	for uuid, e := range i.entries {
		domains[uuid] = e.Domain
	}
	return domains
}

// changed lists the domains that differ between two inventories, including those that only one of them has.
func changed(before, now map[string]Domain) []string {
	var uuids []string
	for uuid := range maps.Keys(before) {
		if _, ok := now[uuid]; !ok {
			uuids = append(uuids, uuid)
		}
	}
	for uuid, domain := range now {
		old, ok := before[uuid]
		if !ok || old.State != domain.State || old.Reason != domain.Reason || old.Name != domain.Name {
			uuids = append(uuids, uuid)
		}
	}
	return uuids
}
