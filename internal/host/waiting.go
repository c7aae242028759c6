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
	"fmt"
	"math"
	"sync"
	"time"
)

// callersWaiting is how many callers may wait for one connection to a host that is slow: those of other hosts need the
// rest.
const callersWaiting = 8

const (
	// stallAfter is how long none of the turns that a caller waits for may change hands before that counts as slow.
	stallAfter = time.Second
	// hopelessAfter is how long it may last until nobody waits any more: several hosts can hang over one file server.
	hopelessAfter = 5 * stallAfter
)

// turns are what callers wait for: the slots of a connection, or a lock, of which there is one.
type turns struct {
	// taken has a token for each that is taken.
	taken chan struct{}
	// patient is set where one may be taken for minutes, and no reconciler waits for it.
	patient bool

	mu sync.Mutex
	// moved is when one was last taken or given back.
	moved time.Time
}

func newTurns(n int) *turns { return &turns{taken: make(chan struct{}, n)} }

// try takes a turn if one is free.
func (t *turns) try() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	select {
	case t.taken <- struct{}{}:
		t.moved = time.Now()
		return true
	default:
		return false
	}
}

// give gives a turn back. Whoever sees it free sees that it moved, too.
func (t *turns) give() {
	t.move()
	<-t.taken
}

func (t *turns) move() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.moved = time.Now()
}

// stalled is for how long all have been taken, and none has changed hands, where that matters.
func (t *turns) stalled() time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.patient || len(t.taken) < cap(t.taken) {
		return 0
	}
	return time.Since(t.moved)
}

// mayWait is how many callers of a connection may wait for turns that have been stalled for so long.
func mayWait(stalled time.Duration) int {
	switch {
	case stalled > hopelessAfter:
		return 0
	case stalled > stallAfter:
		return callersWaiting
	}
	return math.MaxInt
}

// room counts who waits for a connection, be it for a slot or for a lock.
type room struct {
	mu      sync.Mutex
	waiting int
}

// enter lets a caller wait, if it may.
func (r *room) enter(atMost int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.waiting >= atMost {
		return false
	}
	r.waiting++
	return true
}

// stay lets a caller go on waiting, if it may. One that may not has left.
func (r *room) stay(atMost int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.waiting > atMost {
		r.waiting--
		return false
	}
	return true
}

func (r *room) leave() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.waiting--
}

// wait takes a turn as soon as there is one, which is how slots and locks are taken. It gives up with ErrHostBusy when
// the host is silent, when it is slow and too many wait for it already, and when it doesn't get on at all, so that a host
// in trouble holds up few of those who could do something for another.
func (c *connection) wait(ctx context.Context, t *turns, what string) error {
	if err := c.pulse.check(); err != nil {
		return err
	}
	if t.try() {
		return nil
	}
	if stalled := t.stalled(); !c.room.enter(mayWait(stalled)) {
		return tooSlow(what, stalled)
	}
	look := time.NewTicker(stallAfter / 4)
	defer look.Stop()
	for {
		select {
		case t.taken <- struct{}{}:
			t.move()
			c.room.leave()
			return nil
		case <-c.pulse.stopped():
			if err := c.pulse.check(); err != nil {
				c.room.leave()
				return err
			}
		case <-c.abandoned:
			c.room.leave()
			return fmt.Errorf("%w: the connection broke", ErrUnreachable)
		case <-ctx.Done():
			c.room.leave()
			c.doubt()
			return released(ctx, "waiting for "+what)
		case <-look.C:
			if stalled := t.stalled(); !c.room.stay(mayWait(stalled)) {
				return tooSlow(what, stalled)
			}
		}
	}
}

// tooSlow says why a caller may not wait.
func tooSlow(what string, stalled time.Duration) error {
	if stalled > hopelessAfter {
		return fmt.Errorf("%w: nothing has moved for %s, and so nobody waits for %s any more", ErrHostBusy, stalled.Round(time.Second), what)
	}
	return fmt.Errorf("%w: nothing has moved for %s, and %d calls wait already; this one would for %s",
		ErrHostBusy, stalled.Round(time.Second), callersWaiting, what)
}

// lock takes a named lock of the host, as long as this connection, which the call that it protects is going to take,
// lets anybody wait. The returned function releases it.
func (c *connection) lock(ctx context.Context, l *locks, name string) (func(), error) {
	held := l.named(name)
	if err := c.wait(ctx, held, "the lock on "+name); err != nil {
		return nil, err
	}
	return held.give, nil
}
