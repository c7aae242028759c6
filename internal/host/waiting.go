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
	"sync"
	"time"
)

// callersWaiting is how many callers may wait for one connection to a host that is slow: those of other hosts need the
// rest.
const callersWaiting = 8

// stallAfter is how long none of a connection's slots may change hands before it counts as slow.
const stallAfter = time.Second

// room counts who waits for a connection, and knows when it got on.
type room struct {
	mu      sync.Mutex
	waiting int
	// moved is when a slot was last taken or given back.
	moved time.Time
}

func (r *room) move() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.moved = time.Now()
}

// enter lets a caller wait, if it may.
func (r *room) enter(full bool) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if full && time.Since(r.moved) > stallAfter && r.waiting >= callersWaiting {
		return false
	}
	r.waiting++
	return true
}

// stay lets a caller go on waiting, if it may. One that may not has left.
func (r *room) stay(full bool) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if full && time.Since(r.moved) > stallAfter && r.waiting > callersWaiting {
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

// wait puts a token into a channel as soon as there is room for it, which is how slots and locks are taken. It gives up
// with ErrHostBusy when the host is silent, and when it is slow and too many wait for it already, so that a host in
// trouble holds up few of those who could do something for another.
func (c *connection) wait(ctx context.Context, tokens chan<- struct{}, what string) error {
	if err := c.pulse.check(); err != nil {
		return err
	}
	select {
	case tokens <- struct{}{}:
		return nil
	default:
	}
	slow := fmt.Errorf("%w: %d calls wait for it already, and those under way take more than %s", ErrHostBusy, callersWaiting, stallAfter)
	if !c.room.enter(c.full()) {
		return slow
	}
	look := time.NewTicker(stallAfter / 4)
	defer look.Stop()
	for {
		select {
		case tokens <- struct{}{}:
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
			if !c.room.stay(c.full()) {
				return slow
			}
		}
	}
}

// full tells whether all slots are taken.
func (c *connection) full() bool { return len(c.slots) == cap(c.slots) }

// lock takes a named lock of the host, as long as this connection, which the call that it protects is going to take,
// lets anybody wait. The returned function releases it.
func (c *connection) lock(ctx context.Context, l *locks, name string) (func(), error) {
	held := l.named(name)
	if err := c.wait(ctx, held, "the lock on "+name); err != nil {
		return nil, err
	}
	return func() { <-held }, nil
}
