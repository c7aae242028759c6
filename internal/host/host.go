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

// Package host talks to libvirt, and is the only package that does. One libvirtd is one Host; a Pool holds the
// connections to all of them.
//
// libvirt's functions block and know no context. Here every call is bounded by the caller's context: at its end the
// caller is let go with ErrTimeout and the outcome of the call is unknown, so look again by UUID or name rather than
// retry blindly.
package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"libvirt.org/go/libvirt"

	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/hosturi"
)

// Upload writes exactly size bytes of r to an existing volume.
type Upload func(ctx context.Context, h *Host, pool, volume string, size int64, r io.Reader) error

// Host is one libvirtd. It outlives its connections: while there is none its methods return ErrUnreachable. It is safe
// for concurrent use.
type Host struct {
	key    string
	log    logr.Logger
	upload Upload
	timing timing
	events *queue
	calls  gate
	locks  locks

	// dialing counts the dials that have not come back, including those given up on.
	dialing atomic.Int32
	// hurry cuts a back-off short, because a dial that was given up on came back after all.
	hurry chan struct{}

	mu      sync.Mutex
	session *session
	// err says why there is no session.
	err error
	// before is the inventory of the last session.
	before   map[string]Domain
	identity Identity
}

// timing is how a host is watched and dialled.
type timing struct {
	ping, pingDeadline time.Duration
	// silence is how long a ping may go without an answer before nobody waits for the host any more.
	silence time.Duration
	dial    time.Duration
	// backoff is the first pause between two dials. Pauses grow to soon, where a dial costs next to nothing, and
	// otherwise to maxBackoff.
	backoff, soon, maxBackoff time.Duration
	// resync is the time between two comparisons of the inventory with the host; secondLook that until the first: a
	// daemon that has just been started still takes a guest for running that died without it, and sends no event when it
	// finds out.
	resync, secondLook time.Duration
}

var defaultTiming = timing{
	ping:         5 * time.Second,
	pingDeadline: 10 * time.Second,
	// A host under heavy load was seen to take almost that long.
	silence:    5 * time.Second,
	dial:       30 * time.Second,
	backoff:    250 * time.Millisecond,
	soon:       750 * time.Millisecond,
	maxBackoff: 15 * time.Second,
	resync:     10 * time.Minute,
	secondLook: 5 * time.Second,
}

// ErrConnecting means that the first attempt to connect has not ended yet.
var ErrConnecting = errors.New("not connected yet")

func (p *Pool) newHost(key string) *Host {
	return &Host{
		key:    key,
		log:    p.log.WithValues("host", key),
		upload: p.upload,
		calls:  gate{host: key, intercept: p.intercept, observe: p.observe},
		timing: p.timing,
		events: p.events,
		hurry:  make(chan struct{}, 1),
		err:    ErrConnecting,
	}
}

// Calls returns how many calls to the host were made so far, by libvirt's procedure name ("domainDefineXML").
func (h *Host) Calls() map[string]uint64 { return h.calls.snapshot() }

// current returns the session, or ErrUnreachable with the reason why there is none.
func (h *Host) current() (*session, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.session == nil {
		return nil, fmt.Errorf("%w: %w", ErrUnreachable, h.err)
	}
	return h.session, nil
}

func (h *Host) emit(event Event) {
	event.Host = h.key
	h.events.push(event)
}

// run keeps a session open until ctx ends.
func (h *Host) run(ctx context.Context, cfg Config) {
	uri, _ := hosturi.Parse(cfg.URI) // what is wrong with it is told by dialling
	address := uri.Address()
	// knocking is set while it isn't known whether anything is there to answer.
	knocking := false
	for failures, since := 0, time.Now(); ctx.Err() == nil; {
		s, err := h.dial(ctx, cfg, address, knocking)
		if err != nil {
			h.lost(err)
			h.log.V(2).Info("Failed to connect", "error", err.Error(), "failures", failures)
			hangs := errors.Is(err, ErrTimeout)
			knocking = address != "" && (hangs || errors.Is(err, errNoAnswer))
			// A knock costs nothing, but a host may answer it and hang afterwards, time and again.
			if !knocking || hangs && h.dialing.Load() > hangingAtMost {
				h.pause(ctx, failures, limit(err, address != "", time.Since(since), h.timing))
			}
			failures++
			continue
		}
		h.found(s)
		err = s.watch(ctx, h.timing)
		h.lost(err)
		h.log.Info("Lost the connection", "reason", err.Error())
		closed := s.close()
		if ctx.Err() != nil {
			wait(closed, h.timing.pingDeadline)
			return
		}
		failures, since, knocking = 0, time.Now(), address != ""
		h.pause(ctx, failures, h.timing.soon)
	}
}

// wait gives an orderly end some time.
func wait(done <-chan struct{}, atMost time.Duration) {
	timer := time.NewTimer(atMost)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	}
}

// found makes a session the current one and tells what changed since the last; at the first that is every domain,
// because one may have come from another host.
func (h *Host) found(s *session) {
	now := s.inventory.domains()
	h.mu.Lock()
	before := h.before
	h.session, h.err = s, nil
	h.mu.Unlock()

	h.log.Info("Connected", "domains", len(now))
	h.emit(Event{Kind: HostConnected})
	for _, uuid := range changed(before, now) {
		h.emit(Event{Kind: DomainChanged, UUID: uuid})
	}
}

// lost records why there is no session, and tells that if it is news.
func (h *Host) lost(err error) {
	h.mu.Lock()
	news := h.session != nil || h.err == nil || h.err.Error() != err.Error()
	if h.session != nil {
		h.before = h.session.inventory.domains()
	}
	h.session, h.err = nil, err
	h.mu.Unlock()
	if news {
		h.emit(Event{Kind: HostDisconnected})
	}
}

// dial opens a session, if need be once something accepts connections at the address. The credentials exist as files
// only while it does.
func (h *Host) dial(ctx context.Context, cfg Config, address string, knocking bool) (*session, error) {
	if knocking {
		if err := knock(ctx, address); err != nil {
			return nil, err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, h.timing.dial)
	defer cancel()
	endpoint, err := prepare(cfg)
	if err != nil {
		return nil, err
	}
	defer endpoint.remove()
	open := func(ctx context.Context) (*libvirt.Connect, error) { return h.open(ctx, endpoint) }
	h.mu.Lock()
	before := h.before
	h.mu.Unlock()
	s, err := openSession(ctx, endpoint.uri, open, &h.calls, before, h.emit)
	if err != nil {
		return nil, diagnose(ctx, cfg, err)
	}
	if err := h.recognize(ctx, s); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// open dials once. libvirt may hang in it for as long as a peer that accepted the connection says nothing, so it is
// left behind at the deadline; when it comes back after all, that is a sign that dialling anew will work.
func (h *Host) open(ctx context.Context, endpoint *endpoint) (*libvirt.Connect, error) {
	type result struct {
		conn *libvirt.Connect
		err  error
	}
	opened := make(chan result)
	h.dialing.Add(1)
	go func() {
		defer h.dialing.Add(-1)
		conn, err := libvirt.NewConnectWithAuth(endpoint.uri, endpoint.auth(), 0)
		select {
		case opened <- result{conn, err}:
		case <-ctx.Done():
			if conn != nil {
				_, _ = conn.Close()
			}
			select {
			case h.hurry <- struct{}{}:
			default:
			}
		}
	}()
	select {
	case r := <-opened:
		return r.conn, endpoint.tell(r.err)
	case <-ctx.Done():
		return nil, released(ctx, "connecting")
	}
}
