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
	"io"
	"path"

	"libvirt.org/go/libvirt"
	"libvirt.org/go/libvirtxml"
)

// VolumeAt returns the volume that is the file at a path of the host, and the name of its storage pool. ErrNotFound: no
// active pool knows of such a file.
func (h *Host) VolumeAt(ctx context.Context, file string) (pool string, volume Volume, err error) {
	s, err := h.current()
	if err != nil {
		return "", Volume{}, err
	}
	type place struct{ pool, name string }
	found, err := call(ctx, s.storage, "storageVolLookupByPath", func() (place, error) {
		vol, err := s.storage.libvirt.LookupStorageVolByPath(file)
		if err != nil {
			return place{}, err
		}
		defer func() { _ = vol.Free() }()
		s.storage.calls.add("storagePoolLookupByVolume")
		p, err := vol.LookupPoolByVolume()
		if err != nil {
			return place{}, err
		}
		defer func() { _ = p.Free() }()
		name, nameErr := vol.GetName()
		poolName, poolErr := p.GetName()
		if err := errors.Join(nameErr, poolErr); err != nil {
			return place{}, err
		}
		s.volumes.put(volumeKey(poolName, name), vol)
		return place{poolName, name}, nil
	})
	if err != nil {
		return "", Volume{}, fmt.Errorf("looking for a volume at %s: %w", file, err)
	}
	volume, err = h.Volume(ctx, found.pool, found.name)
	return found.pool, volume, err
}

// DownloadFile writes the first limit bytes of a file of the host to w, or all of it if it is shorter. libvirt gives only
// files in directories that are storage pools; what is in the directory is read anew before. ErrNotFound: no active pool
// has that directory, or the file isn't there.
func (h *Host) DownloadFile(ctx context.Context, file string, w io.Writer, limit int64) error {
	s, err := h.current()
	if err != nil {
		return err
	}
	pool, err := s.poolAt(ctx, path.Dir(file))
	if err == nil {
		err = s.refreshPool(ctx, pool)
	}
	if err != nil {
		return fmt.Errorf("looking for %s: %w", file, err)
	}
	return h.DownloadVolume(ctx, pool, path.Base(file), w, 0, limit)
}

// poolAt is the name of the active pool that has a directory.
func (s *session) poolAt(ctx context.Context, dir string) (string, error) {
	documents, err := call(ctx, s.storage, "connectListAllStoragePools", func() ([]string, error) {
		pools, err := s.storage.libvirt.ListAllStoragePools(libvirt.CONNECT_LIST_STORAGE_POOLS_ACTIVE)
		documents := make([]string, 0, len(pools))
		for i := range pools {
			s.storage.calls.add("storagePoolGetXMLDesc")
			document, readErr := pools[i].GetXMLDesc(0)
			documents = append(documents, document)
			err = errors.Join(err, readErr, pools[i].Free())
		}
		return documents, err
	})
	if err != nil {
		return "", err
	}
	for _, document := range documents {
		var pool libvirtxml.StoragePool
		if err := pool.Unmarshal(document); err != nil {
			return "", fmt.Errorf("parsing a storage pool: %w", err)
		}
		if pool.Target != nil && path.Clean(pool.Target.Path) == dir {
			return pool.Name, nil
		}
	}
	return "", fmt.Errorf("%w: no active storage pool has the directory %s", ErrNotFound, dir)
}
