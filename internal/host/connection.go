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
	"fmt"
	"sync"

	"libvirt.org/go/libvirt"
)

// A server reads no further request from a client that has five under way, keepalives included. So a connection has at
// most four: three calls and the ping that watches it.
const callsInFlight = 3

// keepAliveInterval, in seconds, is how long a connection may be silent before libvirt asks whether it lives;
// keepAliveCount is how many such questions may stay without an answer, and patientKeepAliveCount how many with a client
// library that may crash then.
const (
	keepAliveInterval     = 5
	keepAliveCount        = 3
	patientKeepAliveCount = 180
)

// connection is one libvirt connection. libvirt's functions block and know no context, so each runs in a goroutine of
// its own that may outlive its caller.
type connection struct {
	libvirt *libvirt.Connect
	calls   *gate
	slots   *turns
	room    room
	pulse   *pulse
	// suspect asks for a ping right now, because a call passed its deadline.
	suspect chan struct{}
	// abandoned is closed when the session gives up on the host: callers are let go at once.
	abandoned <-chan struct{}
	// unsubscribe undoes the event registrations, which would keep the connection open.
	unsubscribe []func() error

	mu       sync.Mutex
	closed   bool
	inFlight sync.WaitGroup
}

func newConnection(conn *libvirt.Connect, calls *gate, abandoned <-chan struct{}) *connection {
	return &connection{
		libvirt:   conn,
		calls:     calls,
		slots:     newTurns(callsInFlight),
		pulse:     newPulse(),
		suspect:   make(chan struct{}, 1),
		abandoned: abandoned,
	}
}

// call makes one call to the host: every procedure that makes a round trip comes through here and is counted. The
// caller is let go when ctx ends or the host is given up; the call itself goes on, and its outcome is unknown. What f
// wants to keep it must store itself.
func call[T any](ctx context.Context, c *connection, procedure string, f func() (T, error)) (T, error) {
	var none T
	if err := c.acquire(ctx); err != nil {
		return none, fmt.Errorf("%s: %w", procedure, err)
	}
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	answered := c.pulse.ask()
	go func() {
		defer c.release()
		var value T
		err := c.calls.pass(procedure, func() (err error) {
			value, err = f()
			return err
		})
		answered()
		done <- result{value, err}
	}()
	select {
	case r := <-done:
		err := classify(r.err)
		if errors.Is(err, ErrUnreachable) {
			c.doubt()
		}
		return r.value, err
	case <-c.abandoned:
		return none, fmt.Errorf("%s: %w: the connection broke during the call", procedure, ErrUnreachable)
	case <-ctx.Done():
		c.doubt()
		return none, released(ctx, procedure)
	}
}

// do is call for procedures without a result.
func do(ctx context.Context, c *connection, procedure string, f func() error) error {
	_, err := call(ctx, c, procedure, func() (struct{}, error) { return struct{}{}, f() })
	return err
}

// acquire waits for one of the connection's slots.
func (c *connection) acquire(ctx context.Context) error {
	if err := c.wait(ctx, c.slots, "earlier calls to the host"); err != nil {
		return err
	}
	if !c.enter() {
		c.slots.give()
		return fmt.Errorf("%w: the connection is closed", ErrUnreachable)
	}
	return nil
}

func (c *connection) release() {
	c.inFlight.Done()
	c.slots.give()
}

// enter registers a user of the C connection, unless it is being closed.
func (c *connection) enter() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.inFlight.Add(1)
	return true
}

// doubt has the connection pinged now.
func (c *connection) doubt() {
	select {
	case c.suspect <- struct{}{}:
	default:
	}
}

// close ends the connection when its last call has come back, which may be long after its callers were let go. forget
// frees the objects that hold the connection open.
func (c *connection) close(forget func()) {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.inFlight.Wait()
	for _, unsubscribe := range c.unsubscribe {
		_ = unsubscribe() // the daemon may be gone; the local half is undone all the same
	}
	forget()
	_, _ = c.libvirt.Close()
}
