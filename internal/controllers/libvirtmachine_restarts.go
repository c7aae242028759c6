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

package controllers

import (
	"sync"
	"time"
)

// The first restart of a domain comes soon after it stopped; each further one waits twice as long.
const (
	firstRestart   = 10 * time.Second
	slowestRestart = 5 * time.Minute
	// steady is how long a domain must run before its earlier restarts are forgotten.
	steady = 10 * time.Minute
)

// restarts paces the restarts of domains. What it forgets with the manager it is told anew, see recall.
type restarts struct {
	mu     sync.Mutex
	byUUID map[string]attempt
}

type attempt struct {
	count int
	// at is when the next restart is due.
	at time.Time
	// last is when the last one was made.
	last time.Time
	// failure is why the last one failed; empty when it didn't.
	failure string
}

// recall tells how often a domain was started again, and when last, before this process looked after it.
func (r *restarts) recall(uuid string, count int, last time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.byUUID[uuid]; !ok && count > 0 {
		r.put(uuid, attempt{count: count, at: last.Add(delay(count - 1)), last: last})
	}
}

// delay is how long the restart after that many waits.
func delay(count int) time.Duration {
	return min(firstRestart<<min(count, 10), slowestRestart)
}

// due is how long a domain that was found stopped has to wait for its restart; not more than zero when it may be
// started now.
func (r *restarts) due(uuid string, now time.Time) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.byUUID[uuid]; !ok {
		r.put(uuid, attempt{at: now.Add(firstRestart)})
	}
	return r.byUUID[uuid].at.Sub(now)
}

// resting tells why the last try failed, if it did, and how long the next one waits.
func (r *restarts) resting(uuid string, now time.Time) (failure string, rest time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	a := r.byUUID[uuid]
	return a.failure, a.at.Sub(now)
}

// next notes that a restart was tried and why it failed, if it did, and returns how long the one after it waits.
func (r *restarts) next(uuid string, now time.Time, failure string) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	a := r.byUUID[uuid]
	rest := delay(a.count)
	r.put(uuid, attempt{count: a.count + 1, at: now.Add(rest), last: now, failure: failure})
	return rest
}

// forget forgets the restarts of a domain that has run steadily since.
func (r *restarts) forget(uuid string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if a, ok := r.byUUID[uuid]; ok && time.Since(a.last) > steady {
		delete(r.byUUID, uuid)
	}
}

// drop forgets a domain that is gone.
func (r *restarts) drop(uuid string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.byUUID, uuid)
}

func (r *restarts) put(uuid string, a attempt) {
	if r.byUUID == nil {
		r.byUUID = map[string]attempt{}
	}
	r.byUUID[uuid] = a
}
