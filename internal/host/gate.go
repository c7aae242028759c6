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
)

// Observer is told of each call to a host once it has come back: the host's key, libvirt's name of the procedure
// ("domainDefineXML"; "connectOpen" for a dial), how long it took, and its error with its kind. A call that its caller
// gave up is told all the same, when it comes back, unless its host was removed meanwhile; a dial, when it is given up.
// Calls to several hosts come concurrently, and an observer must not block, nor ask for Host.Calls.
type Observer func(host, procedure string, took time.Duration, err error)

// Intercept stands in the way of the calls to hosts, given libvirt's name of the procedure ("domainDefineXML"): it makes
// the call, or doesn't, and returns the call's error or another. Calls come concurrently.
type Intercept func(procedure string, call func() error) error

// gate is the one place that every call to a host passes. It counts them by procedure.
type gate struct {
	host      string
	intercept Intercept
	observe   Observer

	mu    sync.Mutex
	calls map[string]uint64
	// closed is set when the host was removed: calls that hang may come back long after.
	closed bool
}

// close tells the observer of no further call. It is told of none when close has returned.
func (g *gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
}

// pass makes a call, or leaves it to the interceptor.
func (g *gate) pass(procedure string, call func() error) error {
	return g.count(procedure, func() error {
		if g.intercept == nil {
			return call()
		}
		return g.intercept(procedure, call)
	})
}

// count makes a call that nobody intercepts.
func (g *gate) count(procedure string, call func() error) error {
	g.add(procedure)
	start := time.Now()
	err := call()
	g.tell(procedure, time.Since(start), classify(err))
	return err
}

func (g *gate) tell(procedure string, took time.Duration, err error) {
	if g.observe == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.closed {
		g.observe(g.host, procedure, took, err)
	}
}

func (g *gate) add(procedure string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.calls == nil {
		g.calls = map[string]uint64{}
	}
	g.calls[procedure]++
}

func (g *gate) snapshot() map[string]uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return maps.Clone(g.calls)
}
