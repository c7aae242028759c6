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

	"libvirt.org/go/libvirt"
)

// list reads the host's domains, networks and pools and keeps their handles.
func (s *session) list(ctx context.Context, before map[string]Domain) error {
	domains, err := s.listDomains(ctx, 0)
	if err != nil {
		return err
	}
	transient, err := s.listDomains(ctx, libvirt.CONNECT_LIST_DOMAINS_TRANSIENT)
	if err != nil {
		return err
	}
	if err := s.listNetworksAndPools(ctx); err != nil {
		return err
	}
	entries, err := s.inspect(ctx, domains)
	if err != nil {
		return err
	}
	for k := range entries {
		_, entries[k].transient = transient[entries[k].UUID]
	}
	for _, uuid := range s.inventory.load(entries, before) {
		go s.measure(uuid)
	}
	return nil
}

// listDomains returns the names of domains by UUID and keeps their handles.
func (s *session) listDomains(ctx context.Context, filter libvirt.ConnectListAllDomainsFlags) (map[string]string, error) {
	return call(ctx, s.control, "connectListAllDomains", func() (map[string]string, error) {
		doms, err := s.control.libvirt.ListAllDomains(filter)
		names := map[string]string{}
		for k := range doms {
			uuid, uerr := doms[k].GetUUIDString()
			name, nerr := doms[k].GetName()
			if !s.domains.has(uuid) {
				s.domains.put(uuid, &doms[k])
			}
			names[uuid] = name
			err = errors.Join(err, uerr, nerr, doms[k].Free())
		}
		return names, err
	})
}

func (s *session) listNetworksAndPools(ctx context.Context) error {
	err := do(ctx, s.control, "connectListAllNetworks", func() error {
		nets, err := s.control.libvirt.ListAllNetworks(0)
		for k := range nets {
			uuid, uerr := nets[k].GetUUIDString()
			s.networks.put(uuid, &nets[k])
			err = errors.Join(err, uerr, nets[k].Free())
		}
		return err
	})
	if err != nil {
		return err
	}
	return do(ctx, s.storage, "connectListAllStoragePools", func() error {
		pools, err := s.storage.libvirt.ListAllStoragePools(0)
		for k := range pools {
			name, nerr := pools[k].GetName()
			s.pools.put(name, &pools[k])
			err = errors.Join(err, nerr, pools[k].Free())
		}
		return err
	})
}

// inspect asks for the state and memory of each listed domain, and for the reason where it matters, as many at a time
// as the connection allows. (GetAllDomainStats would be one call for all, but the binding hides another one per domain
// in it, and the test driver does not report memory.)
func (s *session) inspect(ctx context.Context, names map[string]string) ([]entry, error) {
	var (
		mu      sync.Mutex
		entries = make([]entry, 0, len(names))
		errs    []error
		wg      sync.WaitGroup
	)
	limit := make(chan struct{}, callsInFlight)
	for uuid, name := range names {
		limit <- struct{}{}
		wg.Go(func() {
			defer func() { <-limit }()
			e, err := s.look(ctx, uuid)
			e.Name = name
			mu.Lock()
			defer mu.Unlock()
			switch {
			case errors.Is(err, ErrNotFound): // removed since it was listed
			case err != nil:
				errs = append(errs, err)
			default:
				entries = append(entries, e)
			}
		})
	}
	wg.Wait()
	return entries, errors.Join(errs...)
}

// look reads one domain's state.
func (s *session) look(ctx context.Context, uuid string) (entry, error) {
	info, err := onDomain(ctx, s, uuid, "domainGetInfo", (*libvirt.Domain).GetInfo)
	if err != nil {
		return entry{}, err
	}
	e := entry{Domain: Domain{UUID: uuid, MaxMemoryBytes: int64(info.MaxMem) << 10, VCPUs: int(info.NrVirtCpu)}}
	if e.State, e.Reason = stateOf(info.State, 0); e.State == Running {
		return e, nil
	}
	e.State, e.Reason, err = s.state(ctx, uuid)
	return e, err
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

// measure asks for the size of a domain that someone else defined.
func (s *session) measure(uuid string) {
	ctx, cancel := context.WithTimeout(context.Background(), askTimeout)
	defer cancel()
	info, err := onDomain(ctx, s, uuid, "domainGetInfo", (*libvirt.Domain).GetInfo)
	if err != nil {
		return // it is gone again, or the host is, and the next session lists everything
	}
	s.inventory.measured(uuid, size{int64(info.MaxMem) << 10, int(info.NrVirtCpu)})
	s.emit(Event{Kind: DomainChanged, UUID: uuid})
}
