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
	"slices"
	"sync"

	"libvirt.org/go/libvirt"
)

// EventKind says what an Event is about.
type EventKind string

// The kinds of event.
const (
	// HostConnected means the host's inventory has been read and its events are subscribed to.
	HostConnected EventKind = "HostConnected"
	// HostDisconnected means the host is out of reach, or for another reason than before; its domains may well be running.
	HostDisconnected EventKind = "HostDisconnected"
	// DomainChanged means a domain was defined or removed, or changed its state, or its guest's agent came or went.
	DomainChanged EventKind = "DomainChanged"
	// NetworkChanged means a network was defined, removed, started or stopped.
	NetworkChanged EventKind = "NetworkChanged"
	// StoragePoolChanged means a pool was defined, removed, started or stopped.
	StoragePoolChanged EventKind = "StoragePoolChanged"
)

// Event tells that something changed on a host. It carries no state: read that from the Host.
type Event struct {
	// Host is the key the host was registered under.
	Host string
	Kind EventKind
	// UUID is the domain's or network's.
	UUID string
	// Name is the storage pool's.
	Name string
}

// queue hands events to one consumer in order. It never blocks a producer: it is unbounded, and an event that still
// waits is not queued twice but moved to the end.
type queue struct {
	mu      sync.Mutex
	pending []Event
	waiting map[Event]bool
	wake    chan struct{}
	out     chan Event
}

func newQueue() *queue {
	return &queue{waiting: map[Event]bool{}, wake: make(chan struct{}, 1), out: make(chan Event)}
}

func (q *queue) push(event Event) {
	q.mu.Lock()
	if q.waiting[event] {
		q.pending = slices.DeleteFunc(q.pending, func(e Event) bool { return e == event })
	}
	q.waiting[event] = true
	q.pending = append(q.pending, event)
	q.mu.Unlock()
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

func (q *queue) pop() (Event, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.pending) == 0 {
		return Event{}, false
	}
	event := q.pending[0]
	q.pending = q.pending[1:]
	delete(q.waiting, event)
	return event, true
}

// run delivers events until ctx ends.
func (q *queue) run(ctx context.Context) {
	for {
		event, ok := q.pop()
		if !ok {
			select {
			case <-q.wake:
			case <-ctx.Done():
				return
			}
			continue
		}
		select {
		case q.out <- event:
		case <-ctx.Done():
			return
		}
	}
}

// subscribe registers the callbacks of a session, each of which is a call: no more of them than are needed; that
// for agents waits until it is. An I/O error that stops a domain is a lifecycle event, too. They run on the one event-loop
// goroutine of the process, so they only note what happened and never call the host. Drivers that lack an event are fine.
func (s *session) subscribe(ctx context.Context) error {
	conn, storage := s.control.libvirt, s.storage.libvirt
	for _, r := range []registration{
		{s.control, "connectDomainEventCallbackRegisterAny", func() (int, error) {
			return conn.DomainEventLifecycleRegister(nil, s.onDomainLifecycle)
		}, conn.DomainEventDeregister},
		{s.control, "connectDomainEventCallbackRegisterAny", func() (int, error) {
			return conn.DomainEventControlErrorRegister(nil, func(_ *libvirt.Connect, dom *libvirt.Domain) {
				if uuid, err := dom.GetUUIDString(); err == nil {
					s.doubt(uuid, true)
				}
			})
		}, conn.DomainEventDeregister},
		{s.control, "connectNetworkEventRegisterAny", func() (int, error) {
			return conn.NetworkEventLifecycleRegister(nil, s.onNetworkLifecycle)
		}, conn.NetworkEventDeregister},
		{s.storage, "connectStoragePoolEventRegisterAny", func() (int, error) {
			return storage.StoragePoolEventLifecycleRegister(nil, s.onPoolLifecycle)
		}, storage.StoragePoolEventDeregister},
	} {
		if err := r.make(ctx); err != nil && code(err) != libvirt.ERR_NO_SUPPORT {
			return err
		}
	}
	return nil
}

// registration is a callback that a connection is to call.
type registration struct {
	on         *connection
	procedure  string
	register   func() (int, error)
	deregister func(int) error
}

func (r registration) make(ctx context.Context) error {
	return do(ctx, r.on, r.procedure, func() error {
		id, err := r.register()
		if err == nil {
			r.on.unsubscribe = append(r.on.unsubscribe, func() error { return r.deregister(id) })
		}
		return err
	})
}

func (s *session) onDomainLifecycle(_ *libvirt.Connect, dom *libvirt.Domain, event *libvirt.DomainEventLifecycle) {
	uuid, err := dom.GetUUIDString()
	if err != nil {
		return
	}
	name, err := dom.GetName()
	if err != nil {
		return
	}
	if event.Event == libvirt.DOMAIN_EVENT_UNDEFINED {
		s.domains.drop(uuid)
		s.agents.drop(uuid)
	} else {
		s.domains.put(uuid, dom)
	}
	switch event.Event {
	case libvirt.DOMAIN_EVENT_STARTED, libvirt.DOMAIN_EVENT_STOPPED:
		s.agents.absent(uuid)
	}
	measure := s.inventory.observe(occurrence{uuid: uuid, name: name, event: event.Event, detail: event.Detail})
	s.emit(Event{Kind: DomainChanged, UUID: uuid})
	if measure {
		go s.measure(uuid)
	}
	if event.Event == libvirt.DOMAIN_EVENT_SHUTDOWN {
		s.doubt(uuid, false)
	}
}

func (s *session) onNetworkLifecycle(_ *libvirt.Connect, net *libvirt.Network, event *libvirt.NetworkEventLifecycle) {
	uuid, err := net.GetUUIDString()
	if err != nil {
		return
	}
	s.reserved.drop(uuid)
	if event.Event == libvirt.NETWORK_EVENT_UNDEFINED {
		s.networks.drop(uuid)
	} else {
		s.networks.put(uuid, net)
	}
	s.emit(Event{Kind: NetworkChanged, UUID: uuid})
}

func (s *session) onPoolLifecycle(_ *libvirt.Connect, pool *libvirt.StoragePool, event *libvirt.StoragePoolEventLifecycle) {
	name, err := pool.GetName()
	if err != nil {
		return
	}
	if event.Event == libvirt.STORAGE_POOL_EVENT_UNDEFINED {
		s.pools.drop(name)
	} else {
		s.pools.put(name, pool)
	}
	s.emit(Event{Kind: StoragePoolChanged, Name: name})
}
