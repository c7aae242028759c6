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
	"strings"
	"sync"
	"time"

	"libvirt.org/go/libvirt"
)

// session is one life of the connections to a host: from dialling until something broke. What it caches dies with it.
type session struct {
	// control carries events and the calls on domains and networks; storage those on pools and volumes, so that a pool
	// that hangs does not hold up the rest. They are the same connection for the test driver, whose state is per
	// connection.
	control, storage *connection
	// test tells libvirt's test driver from a real host.
	test bool

	inventory *inventory
	domains   handles[*libvirt.Domain]      // by UUID
	networks  handles[*libvirt.Network]     // by UUID
	pools     handles[*libvirt.StoragePool] // by name
	volumes   handles[*libvirt.StorageVol]  // by volumeKey
	agents    *agents
	// reserved remembers what has been read of networks' reservations.
	reserved reserved
	// leases remembers what networks' DHCP servers keep for guests that are gone.
	leases leases
	// listed remembers the pools whose volumes have been listed.
	listed sync.Map
	// doubted remembers the domains that are going to be looked at.
	doubted sync.Map

	// bulk is the turn of large uploads.
	bulk *turns

	emit func(Event)

	once      sync.Once
	abandoned chan struct{}
	cause     error
}

// openSession dials a host, subscribes to its events and then lists its domains. Networks and pools are looked up when
// they are used.
func openSession(ctx context.Context, uri string, open func(context.Context) (*libvirt.Connect, error), calls *gate, before map[string]Domain, emit func(Event)) (*session, error) {
	s := &session{
		test:      isTest(uri),
		inventory: newInventory(),
		agents:    newAgents(),
		bulk:      newTurns(1),
		abandoned: make(chan struct{}),
		emit:      emit,
	}
	s.bulk.patient = true
	if err := s.connect(ctx, open, calls); err != nil {
		s.close()
		return nil, err
	}
	if err := s.subscribe(ctx); err != nil {
		s.close()
		return nil, fmt.Errorf("subscribing to events: %w", err)
	}
	if err := s.list(ctx, before); err != nil {
		s.close()
		return nil, fmt.Errorf("listing the domains: %w", err)
	}
	return s, nil
}

func isTest(uri string) bool { return strings.HasPrefix(uri, "test:") }

func (s *session) connect(ctx context.Context, open func(context.Context) (*libvirt.Connect, error), calls *gate) error {
	dial := func() (*connection, error) {
		var conn *libvirt.Connect
		err := calls.count("connectOpen", func() (err error) {
			conn, err = open(ctx)
			return err
		})
		if err != nil {
			return nil, err
		}
		if err := s.keepAlive(conn); err != nil {
			_, _ = conn.Close()
			return nil, classify(err)
		}
		return newConnection(conn, calls, s.abandoned), nil
	}
	var err error
	if s.control, err = dial(); err != nil {
		return err
	}
	s.storage = s.control
	if s.test {
		return nil
	}
	if s.storage, err = dial(); err != nil {
		s.storage = s.control
		return err
	}
	// One of the two is enough to learn at once that the daemon has gone.
	err = do(ctx, s.control, "connectRegisterCloseCallback", func() error {
		return s.control.libvirt.RegisterCloseCallback(s.onClose)
	})
	if err == nil {
		s.control.unsubscribe = append(s.control.unsubscribe, s.control.libvirt.UnregisterCloseCallback)
	}
	return err
}

// keepAlive has libvirt close a dead socket by itself, which frees the calls that are stuck on it. Before version 10.3 its
// client library can crash the process when it does so while several calls wait (CVE-2024-4418): there it is put off for
// as long as TCP takes to give up. Who made the calls is let go much sooner, because the connection is pinged.
func (s *session) keepAlive(conn *libvirt.Connect) error {
	const safe = 10_003_000
	count := uint(keepAliveCount)
	if version, err := libvirt.GetVersion(); err != nil || version < safe {
		count = patientKeepAliveCount
	}
	// Local; drivers inside this process have no socket to keep alive.
	if err := conn.SetKeepAlive(keepAliveInterval, count); err != nil && !s.test {
		return err
	}
	return nil
}

func (s *session) onClose(_ *libvirt.Connect, reason libvirt.ConnectCloseReason) {
	words := map[libvirt.ConnectCloseReason]string{
		libvirt.CONNECT_CLOSE_REASON_ERROR:     "the connection failed",
		libvirt.CONNECT_CLOSE_REASON_EOF:       "the host closed the connection",
		libvirt.CONNECT_CLOSE_REASON_KEEPALIVE: "the host stopped answering keepalives",
		libvirt.CONNECT_CLOSE_REASON_CLIENT:    "the connection was closed",
	}
	s.abandon(errors.New(words[reason]))
}

// connections returns each connection once.
func (s *session) connections() []*connection {
	switch {
	case s.control == nil:
		return nil
	case s.storage == s.control:
		return []*connection{s.control}
	}
	return []*connection{s.control, s.storage}
}

// watch pings the connections, and compares the inventory with the host now and then, until a ping fails or the session
// is abandoned for another reason, which it returns.
func (s *session) watch(ctx context.Context, t timing) error {
	for _, c := range s.connections() {
		go func() {
			if err := c.watch(t); err != nil {
				s.abandon(err)
			}
		}()
	}
	resync := time.NewTimer(t.secondLook)
	defer resync.Stop()
	for {
		select {
		case <-resync.C:
			bounded, cancel := context.WithTimeout(ctx, t.dial)
			_ = s.resync(bounded) // if it fails for good so does the ping
			cancel()
			resync.Reset(t.resync)
		case <-s.abandoned:
			return s.cause
		case <-ctx.Done():
			s.abandon(ctx.Err())
			return ctx.Err()
		}
	}
}

// abandon gives the host up: callers are let go, calls under way are left to themselves.
func (s *session) abandon(cause error) {
	s.once.Do(func() {
		s.cause = cause
		close(s.abandoned)
	})
}

// close frees the session in the background, which takes as long as its slowest call. The returned channel is closed
// when it is done.
func (s *session) close() <-chan struct{} {
	s.abandon(errors.New("the connection was closed"))
	done := make(chan struct{})
	go func() {
		defer close(done)
		var wg sync.WaitGroup
		for _, c := range s.connections() {
			wg.Go(func() { c.close(func() { s.forget(c) }) })
		}
		wg.Wait()
	}()
	return done
}

// forget frees the handles that belong to a connection.
func (s *session) forget(c *connection) {
	if c == s.control {
		s.domains.close()
		s.networks.close()
	}
	if c == s.storage {
		s.pools.close()
		s.volumes.close()
	}
}
