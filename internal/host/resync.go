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

// resync compares the inventory with the host: two calls, however many domains there are.
func (s *session) resync(ctx context.Context) error {
	add := s.inventory.listing()
	known := s.inventory.domains()
	enter := make(map[string]func(State, string) bool, len(known))
	for uuid := range known {
		enter[uuid] = s.inventory.asking(uuid)
	}
	found, err := s.survey(ctx)
	if err != nil {
		return fmt.Errorf("listing domains: %w", err)
	}
	var missed []entry
	for _, e := range found {
		if _, ok := known[e.UUID]; !ok {
			missed = append(missed, e)
			continue
		}
		if enter[e.UUID](e.State, e.Reason) {
			s.emit(Event{Kind: DomainChanged, UUID: e.UUID})
		}
		delete(known, e.UUID)
	}
	for uuid := range known { // gone, or changing just now
		if _, err := s.check(ctx, uuid); err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
	}
	if err := s.weigh(ctx, missed); err != nil {
		return err
	}
	for _, uuid := range add(missed) {
		s.emit(Event{Kind: DomainChanged, UUID: uuid})
	}
	return nil
}
