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

package task

import "time"

// State is where a task stands.
type State string

// The states of a task.
const (
	Running   State = "Running" // or waiting for its turn
	Succeeded State = "Succeeded"
	Failed    State = "Failed"
)

// Progress is how far a task has come, in a unit of its own. Total is zero while it is not known.
type Progress struct {
	Done, Total int64
}

// Status is how a task stands.
type Status struct {
	State    State
	Progress Progress
	// Err is why the task failed; nil in every other state.
	Err error
	// Started is when the task began to run; zero while it waits for its turn.
	Started time.Time
	// Ended is when the task succeeded or failed.
	Ended time.Time
	// RetryAt is when a failed task may start again.
	RetryAt time.Time
}

// backOff is how long a task rests after it has failed once more than the given number of times in a row.
func backOff(failuresBefore int) time.Duration {
	delay := firstBackOff
	for range failuresBefore {
		if delay *= 2; delay >= longestBackOff {
			return longestBackOff
		}
	}
	return delay
}
