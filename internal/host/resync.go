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
	"time"

	"libvirt.org/go/libvirt"
)

// Events get lost: libvirt itself forgets the "stopped" of a domain whose monitor breaks while it is being destroyed.
// So what looks unfinished is looked at again, and everything once in a while.

const (
	// doubtAfter is how long a domain may be shutting down before it is asked, first.
	doubtAfter = 2 * time.Second
	// doubtAtMost is the longest time between two questions.
	doubtAtMost = time.Minute
	// askTimeout bounds calls that nobody waits for.
	askTimeout = 10 * time.Second
)

// check asks for a domain's state and corrects the inventory if it says something else, unless an event comes first.
func (s *session) check(ctx context.Context, uuid string) (State, error) {
	enter := s.inventory.asking(uuid)
	state, reason, err := s.state(ctx, uuid)
	if errors.Is(err, ErrNotFound) {
		state, reason = "", ""
	} else if err != nil {
		return "", err
	}
	if enter(state, reason) {
		s.emit(Event{Kind: DomainChanged, UUID: uuid})
	}
	return state, err
}

// doubt checks a domain later: in any case if surely is set, and then for as long as it is shutting down.
func (s *session) doubt(uuid string, surely bool) {
	if _, doubted := s.doubted.LoadOrStore(uuid, true); doubted {
		return
	}
	go func() {
		defer s.doubted.Delete(uuid)
		for delay := doubtAfter; ; delay = min(2*delay, doubtAtMost) {
			select {
			case <-time.After(delay):
			case <-s.abandoned:
				return
			}
			if domain, _ := s.inventory.domain(uuid); domain.State != ShuttingDown && !surely {
				return
			}
			surely = false
			ctx, cancel := context.WithTimeout(context.Background(), askTimeout)
			_, _ = s.check(ctx, uuid) // a host out of reach is listed anew when it is back
			cancel()
		}
	}()
}

// filters are libvirt's classes of domain state.
var filters = []libvirt.ConnectListAllDomainsFlags{
	libvirt.CONNECT_LIST_DOMAINS_RUNNING,
	libvirt.CONNECT_LIST_DOMAINS_PAUSED,
	libvirt.CONNECT_LIST_DOMAINS_SHUTOFF,
	libvirt.CONNECT_LIST_DOMAINS_OTHER,
}

// filterOf is the class that a state is in.
func filterOf(state State) libvirt.ConnectListAllDomainsFlags {
	switch state {
	case Running:
		return libvirt.CONNECT_LIST_DOMAINS_RUNNING
	case Paused:
		return libvirt.CONNECT_LIST_DOMAINS_PAUSED
	case Shutoff:
		return libvirt.CONNECT_LIST_DOMAINS_SHUTOFF
	default:
		return libvirt.CONNECT_LIST_DOMAINS_OTHER
	}
}

// resync compares the inventory with the host: four calls, however many domains there are, and a few for each one that
// differs.
func (s *session) resync(ctx context.Context) error {
	listed := map[string]libvirt.ConnectListAllDomainsFlags{}
	names := map[string]string{}
	for _, filter := range filters {
		found, err := s.listDomains(ctx, filter)
		if err != nil {
			return fmt.Errorf("listing domains: %w", err)
		}
		for uuid, name := range found {
			listed[uuid], names[uuid] = filter, name
		}
	}
	for uuid, domain := range s.inventory.domains() {
		filter, ok := listed[uuid]
		delete(names, uuid)
		if ok && filter == filterOf(domain.State) {
			continue
		}
		if _, err := s.check(ctx, uuid); err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
	}
	missed, err := s.inspect(ctx, names)
	if err != nil {
		return err
	}
	for _, e := range missed {
		if s.inventory.add(e) {
			s.emit(Event{Kind: DomainChanged, UUID: e.UUID})
		}
	}
	return nil
}
