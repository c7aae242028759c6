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

	"libvirt.org/go/libvirt"
)

// BackingFiles tells which files volumes of the host are overlays of: of each, the name of such a volume and of its pool,
// for people. It reads all pools anew and costs a call for each volume in them. It fails if a pool can't be read or is
// stopped, because then nobody knows what its volumes need.
func (h *Host) BackingFiles(ctx context.Context) (map[string]string, error) {
	s, err := h.current()
	if err != nil {
		return nil, err
	}
	pools, err := s.poolNames(ctx)
	if err != nil {
		return nil, fmt.Errorf("listing the storage pools: %w", err)
	}
	files := map[string]string{}
	for _, pool := range pools {
		overlays, err := s.overlays(ctx, pool)
		if err != nil {
			return nil, fmt.Errorf("reading the volumes of storage pool %s: %w", pool, err)
		}
		for file, name := range overlays {
			files[file] = fmt.Sprintf("volume %s in storage pool %s", name, pool)
		}
	}
	return files, nil
}

// poolNames are the names of all storage pools.
func (s *session) poolNames(ctx context.Context) ([]string, error) {
	return call(ctx, s.storage, "connectListAllStoragePools", func() ([]string, error) {
		pools, err := s.storage.libvirt.ListAllStoragePools(0)
		names := make([]string, 0, len(pools))
		for k := range pools {
			name, nameErr := pools[k].GetName()
			names = append(names, name)
			err = errors.Join(err, nameErr, pools[k].Free())
		}
		return names, err
	})
}

// overlays are the names of a pool's volumes that are overlays, by the file that each is an overlay of.
func (s *session) overlays(ctx context.Context, pool string) (map[string]string, error) {
	active, err := onPool(ctx, s, pool, "storagePoolIsActive", (*libvirt.StoragePool).IsActive)
	if err != nil {
		return nil, err
	}
	if !active {
		return nil, fmt.Errorf("%w: it is stopped: start it or undefine it", ErrInactive)
	}
	if err := s.refreshPool(ctx, pool); err != nil {
		// A failure may have stopped the pool, which others need.
		_, startErr := s.startPool(ctx, pool)
		return nil, errors.Join(err, startErr)
	}
	found := map[string]string{}
	names, err := s.volumeNames(ctx, pool)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		definition, err := onVolume(ctx, s, pool, name, "storageVolGetXMLDesc", func(vol *libvirt.StorageVol) (string, error) {
			return vol.GetXMLDesc(0)
		})
		if errors.Is(err, ErrNotFound) { // deleted since it was listed
			continue
		}
		if err != nil {
			return nil, err
		}
		vol, err := parseVolume(definition)
		if err != nil {
			return nil, err
		}
		if vol.BackingPath != "" {
			found[vol.BackingPath] = name
		}
	}
	return found, nil
}
