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
	"sync"
	"time"

	"libvirt.org/go/libvirt"
)

// weighTimeout is how long the host may take to tell the sizes of all running domains at once. Longer means that one of
// them hangs, and has no bearing on the others.
const weighTimeout = 3 * time.Second

// list reads the host's domains: three calls, however many there are.
func (s *session) list(ctx context.Context, before map[string]Domain) error {
	entries, err := s.survey(ctx)
	if err != nil {
		return err
	}
	recall(entries, before)
	if err := s.weigh(ctx, entries); err != nil {
		return err
	}
	for _, uuid := range s.inventory.load(entries, before) {
		go s.measure(uuid)
	}
	return nil
}

// survey reads the states of all domains and keeps their handles. It asks no hypervisor, of which one may hang.
func (s *session) survey(ctx context.Context) ([]entry, error) {
	persistent, err := s.listDomains(ctx, libvirt.CONNECT_LIST_DOMAINS_PERSISTENT)
	if err != nil {
		return nil, err
	}
	entries, err := s.stats(ctx, libvirt.DOMAIN_STATS_STATE, 0)
	if err != nil {
		return nil, err
	}
	for k, e := range entries {
		// One that was defined since is taken for transient until its event is applied.
		entries[k].transient = e.State != Shutoff && !persistent[e.UUID]
	}
	return entries, nil
}

// recall takes from the session before the sizes of domains that have been running all along, as far as can be seen:
// they can't have changed. One that was started meanwhile may have been defined anew before.
func recall(entries []entry, before map[string]Domain) {
	for k, e := range entries {
		old, ok := before[e.UUID]
		if ok && e.MaxMemoryBytes == 0 && old.State != Shutoff && e.State != Shutoff {
			entries[k].MaxMemoryBytes, entries[k].VCPUs = old.MaxMemoryBytes, old.VCPUs
		}
	}
}

// weigh asks for the sizes of the domains of which they aren't known: of all at once, which has running hypervisors asked,
// if need be; and one by one for what that left open, because a hypervisor hangs, or for the test driver, which doesn't
// tell.
func (s *session) weigh(ctx context.Context, entries []entry) error {
	unknown, active := map[string]*entry{}, false
	for k, e := range entries {
		if e.MaxMemoryBytes == 0 {
			unknown[e.UUID] = &entries[k]
			active = active || e.State != Shutoff
		}
	}
	selections := []libvirt.ConnectGetAllDomainStatsFlags{0, libvirt.CONNECT_GET_ALL_DOMAINS_STATS_INACTIVE}
	switch {
	case s.test:
		selections = nil
	case !active:
		selections = selections[1:]
	}
	for _, selection := range selections {
		if len(unknown) == 0 {
			return nil
		}
		bounded, cancel := context.WithTimeout(ctx, weighTimeout)
		weighed, err := s.stats(bounded, libvirt.DOMAIN_STATS_BALLOON|libvirt.DOMAIN_STATS_VCPU, selection|libvirt.CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT)
		cancel()
		if err != nil && !errors.Is(err, ErrTimeout) {
			return err
		}
		for _, w := range weighed {
			if e, ok := unknown[w.UUID]; ok && w.MaxMemoryBytes > 0 {
				e.MaxMemoryBytes, e.VCPUs = w.MaxMemoryBytes, w.VCPUs
				delete(unknown, w.UUID)
			}
		}
	}
	var (
		mu    sync.Mutex
		errs  []error
		wg    sync.WaitGroup
		limit = make(chan struct{}, callsInFlight)
	)
	for uuid, e := range unknown {
		limit <- struct{}{}
		wg.Go(func() {
			defer func() { <-limit }()
			found, err := s.size(ctx, uuid)
			if err != nil && !errors.Is(err, ErrNotFound) { // removed since it was listed
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, err)
			}
			e.MaxMemoryBytes, e.VCPUs = found.memory, found.vcpus
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// listDomains tells which domains a filter finds, by UUID, and keeps their handles.
func (s *session) listDomains(ctx context.Context, filter libvirt.ConnectListAllDomainsFlags) (map[string]bool, error) {
	return call(ctx, s.control, "connectListAllDomains", func() (map[string]bool, error) {
		doms, err := s.control.libvirt.ListAllDomains(filter)
		found := make(map[string]bool, len(doms))
		for k := range doms {
			uuid, uerr := doms[k].GetUUIDString()
			if !s.domains.has(uuid) {
				s.domains.put(uuid, &doms[k])
			}
			found[uuid] = true
			err = errors.Join(err, uerr, doms[k].Free())
		}
		return found, err
	})
}

// state asks for a domain's state and reason.
func (s *session) state(ctx context.Context, uuid string) (State, string, error) {
	type answer struct {
		state  State
		reason string
	}
	a, err := onDomain(ctx, s, uuid, "domainGetState", func(dom *libvirt.Domain) (answer, error) {
		state, reason, err := dom.GetState()
		word, why := stateOf(state, reason)
		return answer{word, why}, err
	})
	return a.state, a.reason, err
}

// size asks for a domain's memory and processors.
func (s *session) size(ctx context.Context, uuid string) (size, error) {
	info, err := onDomain(ctx, s, uuid, "domainGetInfo", (*libvirt.Domain).GetInfo)
	if err != nil {
		return size{}, err
	}
	return size{int64(info.MaxMem) << 10, int(info.NrVirtCpu)}, nil
}

// measure asks for the size of a domain that someone else defined until it is known, because without it the domain would
// count as nothing. It has no deadline: a call that is given up keeps its slot, and the next try would take another.
func (s *session) measure(uuid string) {
	for delay := doubtAfter; ; delay = min(2*delay, doubtAtMost) {
		found, err := s.size(context.Background(), uuid)
		switch {
		case err == nil:
			s.inventory.measured(uuid, found)
			s.emit(Event{Kind: DomainChanged, UUID: uuid})
			return
		case errors.Is(err, ErrNotFound):
			return // it is gone again
		}
		select {
		case <-time.After(delay):
		case <-s.abandoned:
			return // the next session lists everything
		}
	}
}
