//go:build libvirt_dlopen

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

	"libvirt.org/go/libvirt"
)

// stats is what stats.go has, for programs that load libvirt's library when they start (build tag libvirt_dlopen) and so
// can't call it but by the binding. That makes a further call for each domain.
func (s *session) stats(ctx context.Context, types libvirt.DomainStatsTypes, flags libvirt.ConnectGetAllDomainStatsFlags) ([]entry, error) {
	return call(ctx, s.control, "connectGetAllDomainStats", func() ([]entry, error) {
		records, err := s.control.libvirt.GetAllDomainStats(nil, types, flags)
		if err != nil {
			return nil, err
		}
		entries := make([]entry, 0, len(records))
		var errs []error
		for _, record := range records {
			e, err := entryOf(record)
			entries = append(entries, e)
			errs = append(errs, err, record.Domain.Free())
		}
		return entries, errors.Join(errs...)
	})
}

func entryOf(record libvirt.DomainStats) (entry, error) {
	var e entry
	var uuidErr, nameErr error
	e.UUID, uuidErr = record.Domain.GetUUIDString()
	e.Name, nameErr = record.Domain.GetName()
	e.VCPUs = len(record.Vcpu)
	if record.Balloon != nil {
		e.MaxMemoryBytes = int64(record.Balloon.Maximum) << 10
	}
	var state libvirt.DomainState
	var reason int
	if record.State != nil {
		state, reason = record.State.State, record.State.Reason
	}
	e.State, e.Reason = stateOf(state, reason)
	return e, errors.Join(uuidErr, nameErr)
}
