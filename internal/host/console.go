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
	"io"
	"os"
	"sync"

	"libvirt.org/go/libvirt"
)

// Console is the serial console of a running domain: what the guest writes is read from it, and what is written to it the
// guest takes for typed. One may read and another write at the same time.
type Console struct {
	stream    *libvirt.Stream
	abandoned <-chan struct{}

	// using is held by whoever calls the stream, and for good by Close.
	using  sync.RWMutex
	once   sync.Once
	closed chan struct{}

	// readable and writable wake who waits for that.
	readable, writable chan struct{}
	// waiting guards awaited, which are the events that somebody waits for.
	waiting sync.Mutex
	awaited libvirt.StreamEventType
}

// OpenConsole opens the first serial console of a running domain, which only one may have open at a time; force takes it
// away from who has it. ErrNotFound: there is no such domain. The caller closes the console.
func (h *Host) OpenConsole(ctx context.Context, uuid string, force bool) (*Console, error) {
	s, err := h.current()
	if err != nil {
		return nil, err
	}
	var flags libvirt.DomainConsoleFlags
	if force {
		flags = libvirt.DOMAIN_CONSOLE_FORCE
	}
	console, err := onDomain(ctx, s, uuid, "domainOpenConsole", func(dom *libvirt.Domain) (*Console, error) {
		stream, err := s.control.libvirt.NewStream(libvirt.STREAM_NONBLOCK)
		if err != nil {
			return nil, err
		}
		if err := dom.OpenConsole("", stream, flags); err != nil {
			return nil, errors.Join(err, stream.Free())
		}
		c := &Console{
			stream: stream, abandoned: s.abandoned, closed: make(chan struct{}),
			readable: make(chan struct{}, 1), writable: make(chan struct{}, 1),
		}
		if err := stream.EventAddCallback(0, c.wake); err != nil {
			return nil, errors.Join(err, stream.Abort(), stream.Free())
		}
		if ctx.Err() != nil { // nobody waits for it any more
			return nil, errors.Join(ctx.Err(), c.Close())
		}
		return c, nil
	})
	if err != nil {
		return nil, fmt.Errorf("opening the console of domain %s: %w", uuid, err)
	}
	return console, nil
}

// wake is called by libvirt's event loop, again and again as long as nobody does something about the event.
func (c *Console) wake(_ *libvirt.Stream, events libvirt.StreamEventType) {
	c.waiting.Lock()
	c.awaited &^= events
	_ = c.stream.EventUpdateCallback(c.awaited) // fails once the stream has ended, which whoever wakes up sees
	c.waiting.Unlock()
	const ended = libvirt.STREAM_EVENT_ERROR | libvirt.STREAM_EVENT_HANGUP
	if events&(libvirt.STREAM_EVENT_READABLE|ended) != 0 {
		signal(c.readable)
	}
	if events&(libvirt.STREAM_EVENT_WRITABLE|ended) != 0 {
		signal(c.writable)
	}
}

func signal(who chan<- struct{}) {
	select {
	case who <- struct{}{}:
	default:
	}
}

// wouldBlock is what a stream answers instead of a number of bytes when it has, or takes, none for the moment.
const wouldBlock = -2

// Read waits for the guest to write something. io.EOF: the guest was stopped, or somebody else took the console.
func (c *Console) Read(p []byte) (int, error) {
	return c.attempt(libvirt.STREAM_EVENT_READABLE, c.readable, func() (int, error) { return c.stream.Recv(p) })
}

// Write types on the console.
func (c *Console) Write(p []byte) (int, error) {
	written := 0
	for written < len(p) {
		n, err := c.attempt(libvirt.STREAM_EVENT_WRITABLE, c.writable, func() (int, error) { return c.stream.Send(p[written:]) })
		if err != nil {
			return written, err
		}
		written += n
	}
	return written, nil
}

// attempt does something with the stream as soon as the stream lets it.
func (c *Console) attempt(event libvirt.StreamEventType, ready <-chan struct{}, do func() (int, error)) (int, error) {
	for {
		n, err := c.use(event, do)
		if err != nil || n != wouldBlock {
			return n, err
		}
		select {
		case <-ready:
		case <-c.closed:
			return 0, os.ErrClosed
		case <-c.abandoned:
			return 0, fmt.Errorf("%w: the connection broke", ErrUnreachable)
		}
	}
}

// use calls the stream once, and asks to be woken if it wasn't ready.
func (c *Console) use(event libvirt.StreamEventType, do func() (int, error)) (int, error) {
	c.using.RLock()
	defer c.using.RUnlock()
	select {
	case <-c.closed:
		return 0, os.ErrClosed
	default:
	}
	n, err := do()
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, classify(err)
	}
	if err != nil || n != wouldBlock {
		return max(n, 0), err
	}
	c.waiting.Lock()
	defer c.waiting.Unlock()
	c.awaited |= event
	return n, classify(c.stream.EventUpdateCallback(c.awaited))
}

// Close lets the console go. What waits to read or to write returns os.ErrClosed.
func (c *Console) Close() error {
	c.once.Do(func() {
		close(c.closed)
		c.using.Lock()
		defer c.using.Unlock()
		// The stream may have ended by itself, and all three fail on one that did.
		_ = c.stream.EventRemoveCallback()
		_ = c.stream.Abort()
		_ = c.stream.Free()
	})
	return nil
}
