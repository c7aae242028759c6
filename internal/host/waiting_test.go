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
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestLocksGiveUp(t *testing.T) {
	var l locks
	c := newConnection(nil, &gate{}, nil)
	unlock, err := c.lock(t.Context(), &l, "a")
	must(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := c.lock(ctx, &l, "a"); !errors.Is(err, ErrTimeout) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a held lock: %v", err)
	}
	if _, err := c.lock(t.Context(), &l, "b"); err != nil {
		t.Errorf("another lock: %v", err)
	}
	unlock()
	if _, err := c.lock(t.Context(), &l, "a"); err != nil {
		t.Errorf("a released lock: %v", err)
	}
}

// TestSlowHost has many callers wait for a host whose calls don't come back: a few go on waiting.
func TestSlowHost(t *testing.T) {
	ctx := testContext(t)
	c := newConnection(nil, &gate{}, nil)
	for range callsInFlight {
		must(t, c.acquire(ctx))
	}
	const callers = 3 * callersWaiting
	results := make(chan error, callers)
	start := time.Now()
	for range callers {
		go func() { results <- c.acquire(ctx) }()
	}
	for range callers - callersWaiting {
		if err := <-results; !errors.Is(err, ErrHostBusy) || !errors.Is(err, ErrBusy) {
			t.Errorf("got %v", err)
		}
	}
	if took := time.Since(start); took < stallAfter {
		t.Errorf("callers were sent away after %s", took)
	}
	start = time.Now()
	if err := c.acquire(ctx); !errors.Is(err, ErrHostBusy) || time.Since(start) > stallAfter/2 {
		t.Errorf("the next one: %v after %s", err, time.Since(start))
	}
	for range callersWaiting { // those that stayed have their turn
		c.release()
		must(t, <-results)
	}
	for range callsInFlight {
		c.release()
	}
	must(t, c.acquire(ctx))
}

// TestHungHost has callers wait for a host whose calls never come back: soon nobody does any more.
func TestHungHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
		defer cancel()
		c := newConnection(nil, &gate{}, nil)
		for range callsInFlight {
			must(t, c.acquire(ctx))
		}
		results := make(chan error, callersWaiting)
		start := time.Now()
		for range callersWaiting {
			go func() { results <- c.acquire(ctx) }()
		}
		for range callersWaiting {
			if err := <-results; !errors.Is(err, ErrHostBusy) || !strings.Contains(err.Error(), "nobody waits") {
				t.Errorf("got %v", err)
			}
		}
		if took := time.Since(start); took < hopelessAfter || took > hopelessAfter+stallAfter {
			t.Errorf("they were sent away after %s", took)
		}
		start = time.Now()
		if err := c.acquire(ctx); !errors.Is(err, ErrHostBusy) || time.Since(start) > 0 {
			t.Errorf("the next one: %v after %s", err, time.Since(start))
		}
		c.release()
		must(t, c.acquire(ctx))
		// After a rest, too, a single caller may wait.
		for range callsInFlight {
			c.release()
		}
		time.Sleep(time.Hour)
		for range callsInFlight {
			must(t, c.acquire(ctx))
		}
		go func() { results <- c.acquire(ctx) }()
		time.Sleep(stallAfter)
		c.release()
		must(t, <-results)
	})
}

// TestHungLock has a holder of a lock hang while the host gets on with everything else: few wait for the lock, and soon
// nobody.
func TestHungLock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
		defer cancel()
		c := newConnection(nil, &gate{}, nil)
		var l locks
		unlock, err := c.lock(ctx, &l, "network")
		must(t, err)
		others := time.NewTicker(100 * time.Millisecond)
		done := make(chan struct{})
		go func() {
			for {
				select {
				case <-others.C:
					if err := c.acquire(ctx); err != nil {
						t.Error(err)
					}
					c.release()
				case <-done:
					return
				}
			}
		}()
		const callers = 3 * callersWaiting
		away := make(chan time.Duration, callers)
		start := time.Now()
		for range callers {
			go func() {
				if _, err := c.lock(ctx, &l, "network"); !errors.Is(err, ErrHostBusy) {
					t.Errorf("got %v", err)
				}
				away <- time.Since(start)
			}()
		}
		for n := range callers {
			limit := stallAfter
			if n >= callers-callersWaiting {
				limit = hopelessAfter
			}
			if after := <-away; after < limit || after > limit+stallAfter {
				t.Errorf("number %d was sent away after %s", n, after)
			}
		}
		unlock()
		if _, err := c.lock(ctx, &l, "network"); err != nil {
			t.Errorf("a released lock: %v", err)
		}
		close(done)
	})
}

// TestPatience has a large upload wait for another, which takes as long as it takes.
func TestPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
		defer cancel()
		c := newConnection(nil, &gate{}, nil)
		uploads := newTurns(1)
		uploads.patient = true
		must(t, c.wait(ctx, uploads, "another upload"))
		result := make(chan error, 1)
		go func() { result <- c.wait(ctx, uploads, "another upload") }()
		time.Sleep(time.Hour)
		uploads.give()
		must(t, <-result)
	})
}

// TestBusyHost has many callers wait for a host that gets on: nobody is sent away.
func TestBusyHost(t *testing.T) {
	ctx := testContext(t)
	c := newConnection(nil, &gate{}, nil)
	const callers = 50
	results := make(chan error, callers)
	for range callers {
		go func() {
			_, err := call(ctx, c, "domainGetState", func() (struct{}, error) {
				time.Sleep(100 * time.Millisecond)
				return struct{}{}, nil
			})
			results <- err
		}()
	}
	for range callers {
		must(t, <-results)
	}
}

// TestPulse has a host go silent and answer again.
func TestPulse(t *testing.T) {
	ctx := testContext(t)
	c := newConnection(nil, &gate{}, nil)
	const silence = 20 * time.Millisecond
	c.pulse.stop(silence)
	must(t, c.acquire(ctx)) // nothing was asked

	call, ping := c.pulse.ask(), c.pulse.ask()
	c.pulse.stop(time.Hour)
	must(t, c.acquire(ctx)) // it has time
	must(t, c.acquire(ctx))
	waiting := make(chan error, 1)
	go func() { waiting <- c.acquire(ctx) }()
	eventually(t, "the host is silent", func() error {
		if c.pulse.stop(silence); c.pulse.check() == nil {
			return errors.New("not yet")
		}
		return nil
	})
	if err := <-waiting; !errors.Is(err, ErrHostBusy) || !strings.Contains(err.Error(), "hasn't answered for") {
		t.Errorf("who waited: %v", err)
	}
	c.release()
	if err := c.acquire(ctx); !errors.Is(err, ErrHostBusy) {
		t.Errorf("a new one, although there is room: %v", err)
	}
	ping() // comes back
	must(t, c.acquire(ctx))
	c.pulse.stop(time.Minute)
	must(t, c.pulse.check()) // a call alone may take its time
	call()
	if quiet := c.pulse.quiet(); quiet != 0 {
		t.Errorf("quiet for %s, but nothing was asked", quiet)
	}
}
