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

import "libvirt.org/go/libvirt"

// State is what a domain is doing, in libvirt's terms.
type State string

// The states of a domain.
const (
	Unknown      State = "Unknown"
	Running      State = "Running"
	Blocked      State = "Blocked"
	Paused       State = "Paused"
	ShuttingDown State = "ShuttingDown"
	Shutoff      State = "Shutoff"
	Crashed      State = "Crashed"
	PMSuspended  State = "PMSuspended"
)

// The reasons a Domain gives for its state that callers act on. There are more; a running domain has none.
const (
	ReasonUnknown   = "Unknown"
	ReasonIOError   = "IOError"
	ReasonCrashed   = "Crashed"
	ReasonFailed    = "Failed"
	ReasonShutdown  = "Shutdown"
	ReasonDestroyed = "Destroyed"
	ReasonUser      = "User"
	ReasonMigrated  = "Migrated"
	ReasonSaved     = "Saved"
)

var states = map[libvirt.DomainState]State{
	libvirt.DOMAIN_RUNNING:     Running,
	libvirt.DOMAIN_BLOCKED:     Blocked,
	libvirt.DOMAIN_PAUSED:      Paused,
	libvirt.DOMAIN_SHUTDOWN:    ShuttingDown,
	libvirt.DOMAIN_SHUTOFF:     Shutoff,
	libvirt.DOMAIN_CRASHED:     Crashed,
	libvirt.DOMAIN_PMSUSPENDED: PMSuspended,
}

var pausedReasons = map[libvirt.DomainPausedReason]string{
	libvirt.DOMAIN_PAUSED_USER:            ReasonUser,
	libvirt.DOMAIN_PAUSED_MIGRATION:       "Migration",
	libvirt.DOMAIN_PAUSED_SAVE:            "Save",
	libvirt.DOMAIN_PAUSED_DUMP:            "Dump",
	libvirt.DOMAIN_PAUSED_IOERROR:         ReasonIOError,
	libvirt.DOMAIN_PAUSED_WATCHDOG:        "Watchdog",
	libvirt.DOMAIN_PAUSED_FROM_SNAPSHOT:   "FromSnapshot",
	libvirt.DOMAIN_PAUSED_SHUTTING_DOWN:   "ShuttingDown",
	libvirt.DOMAIN_PAUSED_SNAPSHOT:        "Snapshot",
	libvirt.DOMAIN_PAUSED_CRASHED:         ReasonCrashed,
	libvirt.DOMAIN_PAUSED_STARTING_UP:     "StartingUp",
	libvirt.DOMAIN_PAUSED_POSTCOPY:        "PostCopy",
	libvirt.DOMAIN_PAUSED_POSTCOPY_FAILED: "PostCopyFailed",
	libvirt.DOMAIN_PAUSED_API_ERROR:       "APIError",
}

var shutoffReasons = map[libvirt.DomainShutoffReason]string{
	libvirt.DOMAIN_SHUTOFF_SHUTDOWN:      ReasonShutdown,
	libvirt.DOMAIN_SHUTOFF_DESTROYED:     ReasonDestroyed,
	libvirt.DOMAIN_SHUTOFF_CRASHED:       ReasonCrashed,
	libvirt.DOMAIN_SHUTOFF_MIGRATED:      ReasonMigrated,
	libvirt.DOMAIN_SHUTOFF_SAVED:         ReasonSaved,
	libvirt.DOMAIN_SHUTOFF_FAILED:        ReasonFailed,
	libvirt.DOMAIN_SHUTOFF_FROM_SNAPSHOT: "FromSnapshot",
	libvirt.DOMAIN_SHUTOFF_DAEMON:        "Daemon",
}

// stateOf puts a state that was asked for into words.
func stateOf(state libvirt.DomainState, reason int) (State, string) {
	known, ok := states[state]
	if !ok {
		return Unknown, ReasonUnknown
	}
	var word string
	switch known {
	case Paused:
		word = pausedReasons[libvirt.DomainPausedReason(reason)]
	case Shutoff:
		word = shutoffReasons[libvirt.DomainShutoffReason(reason)]
	case Crashed:
		if libvirt.DomainCrashedReason(reason) == libvirt.DOMAIN_CRASHED_PANICKED {
			word = "Panicked"
		}
	default:
		return known, ""
	}
	if word == "" {
		word = ReasonUnknown
	}
	return known, word
}

var suspendedReasons = map[libvirt.DomainEventSuspendedDetailType]string{
	libvirt.DOMAIN_EVENT_SUSPENDED_PAUSED:          ReasonUser,
	libvirt.DOMAIN_EVENT_SUSPENDED_MIGRATED:        "Migration",
	libvirt.DOMAIN_EVENT_SUSPENDED_IOERROR:         ReasonIOError,
	libvirt.DOMAIN_EVENT_SUSPENDED_WATCHDOG:        "Watchdog",
	libvirt.DOMAIN_EVENT_SUSPENDED_RESTORED:        ReasonUser,
	libvirt.DOMAIN_EVENT_SUSPENDED_FROM_SNAPSHOT:   "FromSnapshot",
	libvirt.DOMAIN_EVENT_SUSPENDED_API_ERROR:       "APIError",
	libvirt.DOMAIN_EVENT_SUSPENDED_POSTCOPY:        "PostCopy",
	libvirt.DOMAIN_EVENT_SUSPENDED_POSTCOPY_FAILED: "PostCopyFailed",
	libvirt.DOMAIN_EVENT_SUSPENDED_GUEST_SHUTDOWN:  "ShuttingDown",
}

var stoppedReasons = map[libvirt.DomainEventStoppedDetailType]string{
	libvirt.DOMAIN_EVENT_STOPPED_SHUTDOWN:      ReasonShutdown,
	libvirt.DOMAIN_EVENT_STOPPED_DESTROYED:     ReasonDestroyed,
	libvirt.DOMAIN_EVENT_STOPPED_CRASHED:       ReasonCrashed,
	libvirt.DOMAIN_EVENT_STOPPED_MIGRATED:      ReasonMigrated,
	libvirt.DOMAIN_EVENT_STOPPED_SAVED:         ReasonSaved,
	libvirt.DOMAIN_EVENT_STOPPED_FAILED:        ReasonFailed,
	libvirt.DOMAIN_EVENT_STOPPED_FROM_SNAPSHOT: "FromSnapshot",
}

// after gives the state and reason that a lifecycle event leaves a domain in; known is false when there was no such
// domain before. An event that says nothing about the state leaves it as it was.
func after(state State, reason string, known bool, event libvirt.DomainEventType, detail int) (State, string) {
	word := ""
	switch event {
	case libvirt.DOMAIN_EVENT_STARTED, libvirt.DOMAIN_EVENT_RESUMED:
		return Running, ""
	case libvirt.DOMAIN_EVENT_SUSPENDED:
		state, word = Paused, suspendedReasons[libvirt.DomainEventSuspendedDetailType(detail)]
	case libvirt.DOMAIN_EVENT_STOPPED:
		word = stoppedReasons[libvirt.DomainEventStoppedDetailType(detail)]
		// For a hypervisor process that died under a running guest libvirt emits "failed" and then answers "crashed"
		// when asked. Failed is kept for a domain that never got to run.
		if word == ReasonFailed && state != Shutoff && known {
			word = ReasonCrashed
		}
		state = Shutoff
	case libvirt.DOMAIN_EVENT_SHUTDOWN:
		if state == Shutoff { // the answer to our own call came before the events it caused
			return state, reason
		}
		return ShuttingDown, ""
	case libvirt.DOMAIN_EVENT_PMSUSPENDED:
		return PMSuspended, ""
	case libvirt.DOMAIN_EVENT_CRASHED:
		state, word = Crashed, "Panicked"
	default: // defined, undefined
		if known {
			return state, reason
		}
		state = Shutoff
	}
	if word == "" {
		word = ReasonUnknown
	}
	return state, word
}
