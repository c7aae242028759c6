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

	"github.com/go-logr/logr"
)

// Pool holds the connections to all hosts. Hosts are isolated from each other: one that hangs slows none of the others.
type Pool struct {
	log       logr.Logger
	upload    Upload
	intercept Intercept
	observe   Observer
	timing    timing
	events    *queue

	// stopEvents ends the delivery of events.
	stopEvents context.CancelFunc

	mu     sync.Mutex
	hosts  map[string]*member
	closed bool
}

// member is a host of the pool and the goroutine that keeps it connected.
type member struct {
	host *Host
	cfg  Config
	stop context.CancelFunc
	done chan struct{}
}

// Option configures a Pool.
type Option func(*Pool)

// WithUpload replaces the upload for hosts of libvirt's test driver, which has none.
func WithUpload(upload Upload) Option {
	return func(p *Pool) { p.upload = upload }
}

// WithIntercept lets all calls of the pool pass an interceptor, but for dialling and pings: for tests of what happens
// when a call isn't made or its answer is lost.
func WithIntercept(intercept Intercept) Option {
	return func(p *Pool) { p.intercept = intercept }
}

// WithObserver has all calls of the pool, dials and pings included, told to an observer: for metrics.
func WithObserver(observe Observer) Option {
	return func(p *Pool) { p.observe = observe }
}

// NewPool returns an empty pool.
func NewPool(log logr.Logger, opts ...Option) *Pool {
	p := &Pool{
		log:    log,
		timing: defaultTiming,
		events: newQueue(),
		hosts:  map[string]*member{},
	}
	for _, opt := range opts {
		opt(p)
	}
	// Hosts may be set, and events arrive, before Start is called.
	var ctx context.Context
	ctx, p.stopEvents = context.WithCancel(context.Background())
	go p.events.run(ctx)
	return p
}

// Start blocks until ctx ends and then closes all connections.
func (p *Pool) Start(ctx context.Context) error {
	<-ctx.Done()
	p.mu.Lock()
	members := p.hosts
	p.hosts, p.closed = map[string]*member{}, true
	p.mu.Unlock()
	for _, m := range members {
		m.stop()
	}
	for _, m := range members {
		<-m.done
	}
	p.stopEvents()
	return nil
}

// Set adds a host or changes its configuration, and connects to it in the background. Setting the same again does
// nothing.
func (p *Pool) Set(key string, cfg Config) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	old, ok := p.hosts[key]
	if ok {
		old.host.expect(cfg.Identity)
	}
	if ok && old.cfg.Equal(cfg) {
		return
	}
	m := &member{cfg: cfg, done: make(chan struct{})}
	if ok {
		m.host = old.host
		old.stop()
	} else {
		m.host = p.newHost(key)
		m.host.expect(cfg.Identity)
	}
	var ctx context.Context
	ctx, m.stop = context.WithCancel(context.Background())
	p.hosts[key] = m
	go func() {
		defer close(m.done)
		if ok {
			<-old.done
		}
		if err := startEventLoop(p.log); err != nil {
			m.host.lost(err)
			return
		}
		m.host.run(ctx, cfg)
	}()
}

// Remove closes the connections to a host and forgets it. The observer is told nothing of it after that.
func (p *Pool) Remove(key string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if m, ok := p.hosts[key]; ok {
		m.stop()
		m.host.calls.close()
		delete(p.hosts, key)
	}
}

// Get returns a connected host. It never dials. The error is ErrNotFound for a key that was never set, and
// ErrUnreachable, wrapping the last failure to connect, while there is no connection.
func (p *Pool) Get(key string) (*Host, error) {
	p.mu.Lock()
	m, ok := p.hosts[key]
	p.mu.Unlock()
	if !ok {
		return nil, fmt.Errorf("host %s: %w", key, ErrNotFound)
	}
	if _, err := m.host.current(); err != nil {
		return nil, fmt.Errorf("host %s: %w", key, err)
	}
	return m.host, nil
}

// Connections tells of each host that was set, by its key, whether it is connected.
func (p *Pool) Connections() map[string]bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	connected := make(map[string]bool, len(p.hosts))
	for key, m := range p.hosts {
		_, err := m.host.current()
		connected[key] = err == nil
	}
	return connected
}

// Events returns the channel of events of all hosts, for one consumer. It is never closed.
func (p *Pool) Events() <-chan Event { return p.events.out }
