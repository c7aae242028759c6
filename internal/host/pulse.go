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
	"fmt"
	"sync"
	"time"
)

// pulse knows whether a peer answers. A call may take its time; but then the ping that is sent to find out comes back,
// because it travels on its own. A peer that leaves a ping without an answer, and everything else, is silent.
type pulse struct {
	mu sync.Mutex
	// pending counts the questions under way.
	pending int
	// since is when the peer last answered, or when it was first asked after it had answered everything.
	since time.Time
	// silent is closed while the peer doesn't answer.
	silent   chan struct{}
	isSilent bool
}

func newPulse() *pulse { return &pulse{silent: make(chan struct{})} }

// ask notes a question; the returned function notes its answer.
func (p *pulse) ask() (answered func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pending == 0 {
		p.since = time.Now()
	}
	p.pending++
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.pending--
		p.since = time.Now()
		if p.isSilent {
			p.isSilent, p.silent = false, make(chan struct{})
		}
	}
}

// quiet is for how long nothing has come back although something was asked.
func (p *pulse) quiet() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.quietLocked()
}

func (p *pulse) quietLocked() time.Duration {
	if p.pending == 0 {
		return 0
	}
	return time.Since(p.since)
}

// stop declares the peer silent if it has been quiet for so long.
func (p *pulse) stop(after time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.isSilent && p.quietLocked() >= after {
		p.isSilent = true
		close(p.silent)
	}
}

// stopped is closed when the peer is silent.
func (p *pulse) stopped() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.silent
}

// check returns ErrHostBusy while the peer is silent.
func (p *pulse) check() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.isSilent {
		return nil
	}
	return fmt.Errorf("%w: it hasn't answered for %s", ErrHostBusy, p.quietLocked().Round(100*time.Millisecond))
}

// watch pings the peer regularly, at once when a call passed its deadline or failed, and when the peer is quiet, until
// the connection is abandoned or a ping fails. Keepalives alone don't see a daemon whose event loop lives but whose
// workers hang.
func (c *connection) watch(t timing) error {
	ticker := time.NewTicker(t.silence / 4)
	defer ticker.Stop()
	var (
		pinged  = time.Now()
		answer  chan error // while a ping is under way
		doubted bool
	)
	for {
		select {
		case <-c.abandoned:
			return nil
		case err := <-answer:
			if err != nil {
				return err
			}
			answer = nil
			continue
		case <-c.suspect:
			doubted = true
		case <-ticker.C:
		}
		ago, quiet := time.Since(pinged), c.pulse.quiet()
		switch {
		case answer == nil && (doubted || ago >= t.ping || quiet >= t.silence/2 && ago >= t.silence):
			if answer = c.ping(); answer == nil {
				return nil
			}
			pinged, doubted = time.Now(), false
		case answer != nil && ago >= t.pingDeadline:
			return fmt.Errorf("%w: the host did not answer within %s", ErrTimeout, t.pingDeadline)
		case answer != nil && ago >= t.silence:
			c.pulse.stop(t.silence)
		}
	}
}

// ping makes one cheap round trip outside the slots, which may all be taken by calls that hang. It returns nil when the
// connection is being closed.
func (c *connection) ping() chan error {
	if !c.enter() {
		return nil
	}
	answered := c.pulse.ask()
	answer := make(chan error, 1)
	go func() {
		defer c.inFlight.Done()
		err := c.calls.count("connectGetLibVersion", func() error {
			_, err := c.libvirt.GetLibVersion()
			return err
		})
		answered()
		answer <- classify(err)
	}()
	return answer
}
