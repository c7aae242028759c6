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
	"fmt"
	"slices"
	"testing"
	"time"

	"libvirt.org/go/libvirt"
)

func TestAfter(t *testing.T) {
	type at struct {
		state  State
		reason string
	}
	nothing, running, off := at{}, at{Running, ""}, at{Shutoff, ReasonDestroyed}
	for _, tt := range []struct {
		name   string
		before at
		event  libvirt.DomainEventType
		detail int
		want   at
	}{
		{"defined anew", nothing, libvirt.DOMAIN_EVENT_DEFINED, int(libvirt.DOMAIN_EVENT_DEFINED_ADDED), at{Shutoff, ReasonUnknown}},
		{"redefined while it runs", running, libvirt.DOMAIN_EVENT_DEFINED, int(libvirt.DOMAIN_EVENT_DEFINED_UPDATED), running},
		{"undefined while it runs", running, libvirt.DOMAIN_EVENT_UNDEFINED, int(libvirt.DOMAIN_EVENT_UNDEFINED_REMOVED), running},
		{"started", off, libvirt.DOMAIN_EVENT_STARTED, int(libvirt.DOMAIN_EVENT_STARTED_BOOTED), running},
		{"resumed", at{Paused, ReasonIOError}, libvirt.DOMAIN_EVENT_RESUMED, int(libvirt.DOMAIN_EVENT_RESUMED_UNPAUSED), running},
		{"paused by a user", running, libvirt.DOMAIN_EVENT_SUSPENDED, int(libvirt.DOMAIN_EVENT_SUSPENDED_PAUSED), at{Paused, ReasonUser}},
		{"paused by a full disk", running, libvirt.DOMAIN_EVENT_SUSPENDED, int(libvirt.DOMAIN_EVENT_SUSPENDED_IOERROR), at{Paused, ReasonIOError}},
		{"paused for a reason of tomorrow", running, libvirt.DOMAIN_EVENT_SUSPENDED, 99, at{Paused, ReasonUnknown}},
		{"shutting down", running, libvirt.DOMAIN_EVENT_SHUTDOWN, int(libvirt.DOMAIN_EVENT_SHUTDOWN_GUEST), at{ShuttingDown, ""}},
		{"shutting down, told late", off, libvirt.DOMAIN_EVENT_SHUTDOWN, int(libvirt.DOMAIN_EVENT_SHUTDOWN_HOST), off},
		{"shut down", at{ShuttingDown, ""}, libvirt.DOMAIN_EVENT_STOPPED, int(libvirt.DOMAIN_EVENT_STOPPED_SHUTDOWN), at{Shutoff, ReasonShutdown}},
		{"destroyed", running, libvirt.DOMAIN_EVENT_STOPPED, int(libvirt.DOMAIN_EVENT_STOPPED_DESTROYED), off},
		{"hypervisor killed", running, libvirt.DOMAIN_EVENT_STOPPED, int(libvirt.DOMAIN_EVENT_STOPPED_FAILED), at{Shutoff, ReasonCrashed}},
		{"failed to start", off, libvirt.DOMAIN_EVENT_STOPPED, int(libvirt.DOMAIN_EVENT_STOPPED_FAILED), at{Shutoff, ReasonFailed}},
		{"crashed", running, libvirt.DOMAIN_EVENT_STOPPED, int(libvirt.DOMAIN_EVENT_STOPPED_CRASHED), at{Shutoff, ReasonCrashed}},
		{"migrated away", running, libvirt.DOMAIN_EVENT_STOPPED, int(libvirt.DOMAIN_EVENT_STOPPED_MIGRATED), at{Shutoff, "Migrated"}},
		{"panicked and preserved", running, libvirt.DOMAIN_EVENT_CRASHED, int(libvirt.DOMAIN_EVENT_CRASHED_PANICKED), at{Crashed, "Panicked"}},
		{"asleep", running, libvirt.DOMAIN_EVENT_PMSUSPENDED, int(libvirt.DOMAIN_EVENT_PMSUSPENDED_MEMORY), at{PMSuspended, ""}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			state, reason := after(tt.before.state, tt.before.reason, tt.before != nothing, tt.event, tt.detail)
			if got := (at{state, reason}); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

func TestStateOf(t *testing.T) {
	for _, tt := range []struct {
		state  libvirt.DomainState
		reason int
		want   string
	}{
		{libvirt.DOMAIN_RUNNING, int(libvirt.DOMAIN_RUNNING_BOOTED), "Running "},
		{libvirt.DOMAIN_PAUSED, int(libvirt.DOMAIN_PAUSED_IOERROR), "Paused IOError"},
		{libvirt.DOMAIN_PAUSED, 99, "Paused Unknown"},
		{libvirt.DOMAIN_SHUTOFF, int(libvirt.DOMAIN_SHUTOFF_CRASHED), "Shutoff Crashed"},
		{libvirt.DOMAIN_SHUTOFF, int(libvirt.DOMAIN_SHUTOFF_UNKNOWN), "Shutoff Unknown"},
		{libvirt.DOMAIN_SHUTDOWN, 0, "ShuttingDown "},
		{libvirt.DOMAIN_CRASHED, int(libvirt.DOMAIN_CRASHED_PANICKED), "Crashed Panicked"},
		{libvirt.DOMAIN_NOSTATE, 0, "Unknown Unknown"},
	} {
		state, reason := stateOf(tt.state, tt.reason)
		if got := fmt.Sprint(state, " ", reason); got != tt.want {
			t.Errorf("state %d, reason %d: got %q, want %q", tt.state, tt.reason, got, tt.want)
		}
	}
}

// event returns an occurrence for domain a.
func event(kind libvirt.DomainEventType, detail int) occurrence {
	return occurrence{uuid: "a", name: "guest", event: kind, detail: detail}
}

var (
	defined   = event(libvirt.DOMAIN_EVENT_DEFINED, 0)
	undefined = event(libvirt.DOMAIN_EVENT_UNDEFINED, 0)
	started   = event(libvirt.DOMAIN_EVENT_STARTED, 0)
	crashed   = event(libvirt.DOMAIN_EVENT_STOPPED, int(libvirt.DOMAIN_EVENT_STOPPED_CRASHED))
)

func TestInventoryTakesWhatWasMissed(t *testing.T) {
	for _, tt := range []struct {
		name      string
		meanwhile []occurrence
		missed    bool
	}{
		{"nothing", nil, true},
		{"it came", []occurrence{defined}, false},
		{"it came and went", []occurrence{defined, undefined}, false},
		{"it went", []occurrence{undefined}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			i := newInventory()
			i.load(nil, nil)
			enter := i.listing()
			for _, o := range tt.meanwhile {
				i.observe(o)
			}
			missed := enter([]entry{{Domain: Domain{UUID: "a", Name: "guest", State: Shutoff, Reason: ReasonUnknown}}})
			if got := slices.Contains(missed, "a"); got != tt.missed {
				t.Errorf("it was missed: %t", got)
			}
			_, known := i.domain("a")
			if want := tt.missed || (len(tt.meanwhile) == 1 && tt.meanwhile[0] == defined); known != want {
				t.Errorf("it is known: %t", known)
			}
		})
	}
}

func TestInventoryFollowsEvents(t *testing.T) {
	for _, tt := range []struct {
		name   string
		events []occurrence
		want   State // "" for gone
	}{
		{"defined", []occurrence{defined}, Shutoff},
		{"started", []occurrence{defined, started}, Running},
		{"crashed", []occurrence{defined, started, crashed}, Shutoff},
		{"removed", []occurrence{defined, undefined}, ""},
		{"undefined while it runs", []occurrence{defined, started, undefined}, Running},
		{"undefined while it runs, then stopped", []occurrence{defined, started, undefined, crashed}, ""},
		{"transient", []occurrence{started}, Running},
		{"transient and stopped", []occurrence{started, crashed}, ""},
		{"transient made persistent", []occurrence{started, defined, crashed}, Shutoff},
	} {
		for _, early := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, early %t", tt.name, early), func(t *testing.T) {
				i := newInventory()
				if !early {
					i.load(nil, nil)
				}
				for _, o := range tt.events {
					i.observe(o)
				}
				if early {
					i.load(nil, nil)
				}
				domain, ok := i.domain("a")
				if ok != (tt.want != "") || domain.State != tt.want {
					t.Errorf("got %+v (known: %t), want %q", domain, ok, tt.want)
				}
			})
		}
	}
}

// TestInventoryLoad has events arrive while the host is being listed: the last one decides.
func TestInventoryLoad(t *testing.T) {
	i := newInventory()
	i.observe(crashed)
	i.load([]entry{{Domain: Domain{UUID: "a", Name: "guest", State: Running}}}, nil)
	if domain, _ := i.domain("a"); domain.State != Shutoff || domain.Reason != ReasonCrashed {
		t.Errorf("got %+v", domain)
	}
}

// TestInventoryRemembers has a daemon forget why a domain stopped.
func TestInventoryRemembers(t *testing.T) {
	then := time.Now().Add(-time.Hour)
	before := map[string]Domain{"a": {UUID: "a", State: Shutoff, Reason: ReasonCrashed, ChangedAt: then}}
	i := newInventory()
	i.load([]entry{{Domain: Domain{UUID: "a", State: Shutoff, Reason: ReasonUnknown}}}, before)
	domain, _ := i.domain("a")
	if domain.Reason != ReasonCrashed || !domain.ChangedAt.Equal(then) {
		t.Errorf("got %+v", domain)
	}
	if c := changed(before, i.domains()); len(c) != 0 {
		t.Errorf("changed: %v", c)
	}
}

// TestInventoryExpect has events arrive between a call and its answer.
func TestInventoryExpect(t *testing.T) {
	stopping := event(libvirt.DOMAIN_EVENT_SHUTDOWN, 0)
	for _, tt := range []struct {
		name    string
		before  []occurrence
		expect  State
		between []occurrence
		sure    bool
		want    State
	}{
		{"started, before the event", []occurrence{defined}, Running, nil, true, Running},
		{"started, after the event", []occurrence{defined}, Running, []occurrence{started}, true, Running},
		{"started, and the definition is told late", []occurrence{defined}, Running, []occurrence{defined}, true, Running},
		{"started, and crashed", []occurrence{defined}, Running, []occurrence{started, crashed}, false, Shutoff},
		{"destroyed, before the events", []occurrence{defined, started}, Shutoff, nil, true, Shutoff},
		{"destroyed, between the events", []occurrence{defined, started}, Shutoff, []occurrence{stopping}, true, Shutoff},
		{"destroyed, and the start is told late", []occurrence{defined, started}, Shutoff, []occurrence{started}, false, Running},
	} {
		t.Run(tt.name, func(t *testing.T) {
			i := newInventory()
			i.load(nil, nil)
			for _, o := range tt.before {
				i.observe(o)
			}
			done := i.expect("a", tt.expect, "")
			for _, o := range tt.between {
				i.observe(o)
			}
			if sure := done(); sure != tt.sure {
				t.Errorf("it is sure: %t", sure)
			}
			if domain, _ := i.domain("a"); domain.State != tt.want {
				t.Errorf("got %s, want %s", domain.State, tt.want)
			}
		})
	}
}

func TestInventoryKnowsOwnDefinitions(t *testing.T) {
	i := newInventory()
	i.load(nil, nil)
	done, _ := i.define("a", "guest", size{64 << 20, 2})
	if i.observe(defined) {
		t.Error("asks for what it was told")
	}
	done()
	if domain, _ := i.domain("a"); domain.MaxMemoryBytes != 64<<20 || domain.VCPUs != 2 || domain.Name != "guest" {
		t.Errorf("got %+v", domain)
	}
	if !i.observe(defined) {
		t.Error("someone else's definition goes unnoticed")
	}
	i.measured("a", size{128 << 20, 3})
	if domain, _ := i.domain("a"); domain.MaxMemoryBytes != 128<<20 || domain.VCPUs != 3 {
		t.Errorf("got %+v", domain)
	}
	_, failed := i.define("b", "other", size{1, 1})
	failed()
	if !i.observe(occurrence{uuid: "b", event: libvirt.DOMAIN_EVENT_DEFINED}) {
		t.Error("a definition that failed is taken for ours")
	}
}

// TestInventoryRemoves has the events of a domain come after the call that undefined it.
func TestInventoryRemoves(t *testing.T) {
	undefined := event(libvirt.DOMAIN_EVENT_UNDEFINED, 0)
	i := newInventory()
	i.load([]entry{{Domain: Domain{UUID: "a", State: Running}}}, nil)
	i.expect("a", Shutoff, ReasonDestroyed)()
	i.remove("a")
	for _, late := range []occurrence{event(libvirt.DOMAIN_EVENT_STOPPED, int(libvirt.DOMAIN_EVENT_STOPPED_DESTROYED)), undefined} {
		if i.observe(late) {
			t.Errorf("asks for what is gone after %+v", late)
		}
		if domain, known := i.domain("a"); known {
			t.Errorf("it is back: %+v", domain)
		}
	}
	if i.observe(defined); len(i.domains()) != 1 {
		t.Error("a new one with that UUID goes unnoticed")
	}
	// The other way round nothing is late.
	i.observe(undefined)
	i.remove("a")
	if i.observe(defined); len(i.domains()) != 1 {
		t.Error("a new one with that UUID goes unnoticed")
	}
}

func TestChanged(t *testing.T) {
	before := map[string]Domain{"same": {State: Running}, "gone": {State: Running}, "stopped": {State: Running}}
	now := map[string]Domain{"same": {State: Running, ChangedAt: time.Now()}, "new": {State: Running}, "stopped": {State: Shutoff}}
	got := changed(before, now)
	slices.Sort(got)
	if want := []string{"gone", "new", "stopped"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// TestInventoryAsking has an event come before the answer to a question, and not.
func TestInventoryAsking(t *testing.T) {
	i := newInventory()
	i.load(nil, nil)
	i.observe(defined)
	i.observe(started)
	enter := i.asking("a")
	i.observe(crashed)
	if enter(Running, "") {
		t.Error("the answer overrules the event")
	}
	if !i.asking("a")(Paused, ReasonIOError) {
		t.Error("the answer is not entered")
	}
	if domain, _ := i.domain("a"); domain.State != Paused {
		t.Errorf("got %+v", domain)
	}
	if i.asking("a")(Paused, ReasonIOError) {
		t.Error("nothing changed")
	}
	if !i.asking("a")("", "") {
		t.Error("a domain that is gone is kept")
	}
	if _, ok := i.domain("a"); ok {
		t.Error("a domain that is gone is still there")
	}
}
