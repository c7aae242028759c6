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
	"libvirt.org/go/libvirtxml"
)

// StoragePool is a storage pool as libvirt last saw it.
type StoragePool struct {
	Name string
	// Path is the pool's target.
	Path           string
	Active         bool
	CapacityBytes  int64
	AvailableBytes int64
}

// onPool makes one call on a storage pool.
func onPool[T any](ctx context.Context, s *session, name, procedure string, f func(*libvirt.StoragePool) (T, error)) (T, error) {
	find := func(ctx context.Context) error {
		return do(ctx, s.storage, "storagePoolLookupByName", func() error {
			pool, err := s.storage.libvirt.LookupStoragePoolByName(name)
			if err != nil {
				return err
			}
			s.pools.put(name, pool)
			return pool.Free()
		})
	}
	return using(ctx, s.storage, &s.pools, name, libvirt.ERR_NO_STORAGE_POOL, find, procedure, f)
}

func doOnPool(ctx context.Context, s *session, name, procedure string, f func(*libvirt.StoragePool) error) error {
	_, err := onPool(ctx, s, name, procedure, func(pool *libvirt.StoragePool) (struct{}, error) { return struct{}{}, f(pool) })
	return err
}

// StoragePool returns a pool. Its sizes are those of its last refresh. ErrNoPool: there is no such pool.
func (h *Host) StoragePool(ctx context.Context, name string) (StoragePool, error) {
	s, err := h.current()
	if err != nil {
		return StoragePool{}, err
	}
	info, err := onPool(ctx, s, name, "storagePoolGetInfo", (*libvirt.StoragePool).GetInfo)
	if err != nil {
		return StoragePool{}, fmt.Errorf("reading storage pool %s: %w", name, err)
	}
	definition, err := onPool(ctx, s, name, "storagePoolGetXMLDesc", func(pool *libvirt.StoragePool) (string, error) {
		return pool.GetXMLDesc(0)
	})
	if err != nil {
		return StoragePool{}, fmt.Errorf("reading storage pool %s: %w", name, err)
	}
	var parsed libvirtxml.StoragePool
	if err := parsed.Unmarshal(definition); err != nil {
		return StoragePool{}, fmt.Errorf("parsing storage pool %s: %w", name, err)
	}
	pool := StoragePool{
		Name:           name,
		Active:         info.State != libvirt.STORAGE_POOL_INACTIVE,
		CapacityBytes:  int64(info.Capacity),
		AvailableBytes: int64(info.Available),
	}
	if parsed.Target != nil {
		pool.Path = parsed.Target.Path
	}
	return pool, nil
}

// EnsureDirPool makes sure that a pool of that name exists and is active. It creates one over the directory path, which
// is made if need be, and started with the host; an existing pool is left as it is and only started.
func (h *Host) EnsureDirPool(ctx context.Context, name, path string) error {
	s, err := h.current()
	if err != nil {
		return err
	}
	unlock, err := s.storage.lock(ctx, &h.locks, "storage pool "+name)
	if err != nil {
		return err
	}
	defer unlock()

	_, err = s.startPool(ctx, name)
	if errors.Is(err, ErrNotFound) {
		err = s.createDirPool(ctx, name, path)
	}
	if err != nil {
		return fmt.Errorf("ensuring storage pool %s: %w", name, err)
	}
	return nil
}

func (s *session) createDirPool(ctx context.Context, name, path string) error {
	definition, err := (&libvirtxml.StoragePool{
		Type:   "dir",
		Name:   name,
		Target: &libvirtxml.StoragePoolTarget{Path: path},
	}).Marshal()
	if err != nil {
		return err
	}
	err = do(ctx, s.storage, "storagePoolDefineXML", func() error {
		pool, err := s.storage.libvirt.StoragePoolDefineXML(definition, 0)
		if err != nil {
			return err
		}
		s.pools.put(name, pool)
		return pool.Free()
	})
	if err != nil {
		return fmt.Errorf("defining: %w", err)
	}
	err = doOnPool(ctx, s, name, "storagePoolBuild", func(pool *libvirt.StoragePool) error { return pool.Build(0) })
	if err == nil {
		err = doOnPool(ctx, s, name, "storagePoolCreate", func(pool *libvirt.StoragePool) error { return pool.Create(0) })
	}
	if err == nil {
		err = doOnPool(ctx, s, name, "storagePoolSetAutostart", func(pool *libvirt.StoragePool) error { return pool.SetAutostart(true) })
	}
	if err == nil {
		return nil
	}
	// Leave nothing half-made, or the next attempt would take it for somebody's pool.
	undo := doOnPool(ctx, s, name, "storagePoolUndefine", func(pool *libvirt.StoragePool) error {
		_ = pool.Destroy()
		return pool.Undefine()
	})
	s.pools.drop(name)
	return errors.Join(err, undo)
}

// startPool starts a pool that is stopped and reports whether it was.
func (s *session) startPool(ctx context.Context, name string) (bool, error) {
	active, err := onPool(ctx, s, name, "storagePoolIsActive", (*libvirt.StoragePool).IsActive)
	if err != nil || active {
		return false, err
	}
	err = doOnPool(ctx, s, name, "storagePoolCreate", func(pool *libvirt.StoragePool) error { return pool.Create(0) })
	if err != nil {
		return false, fmt.Errorf("starting storage pool %s: %w: %w", name, ErrInactive, err)
	}
	return true, nil
}

// restarted makes a call on a pool or its volumes, and once more if it failed because the pool was stopped: libvirt
// stops a pool by itself when it can't read it for a moment.
func restarted[T any](ctx context.Context, s *session, pool string, attempt func() (T, error)) (T, error) {
	value, err := attempt()
	if code(err) != libvirt.ERR_OPERATION_INVALID {
		return value, err
	}
	started, startErr := s.startPool(ctx, pool)
	switch {
	case startErr != nil:
		return value, errors.Join(err, startErr)
	case !started:
		return value, err
	}
	return attempt()
}

// refreshPool has libvirt read the pool's directory anew. The caller must expect a failure to stop the pool.
func (s *session) refreshPool(ctx context.Context, name string) error {
	return doOnPool(ctx, s, name, "storagePoolRefresh", func(pool *libvirt.StoragePool) error { return pool.Refresh(0) })
}

// fullIfShort adds ErrNoSpace to the error of a failed write if the pool has less space than that write needed: libvirt
// passes on only the text of what went wrong.
func (s *session) fullIfShort(ctx context.Context, pool string, needed int64, err error) error {
	switch code(err) {
	case libvirt.ERR_INTERNAL_ERROR, libvirt.ERR_SYSTEM_ERROR, libvirt.ERR_OPERATION_FAILED, libvirt.ERR_WRITE_FAILED:
	default:
		return err
	}
	if errors.Is(err, ErrUnreachable) {
		return err
	}
	// Without a refresh the figure is that of before the write. If it fails the old one has to do.
	_ = s.refreshPool(ctx, pool)
	info, infoErr := onPool(ctx, s, pool, "storagePoolGetInfo", (*libvirt.StoragePool).GetInfo)
	if infoErr == nil && info.State != libvirt.STORAGE_POOL_INACTIVE && int64(info.Available) < needed {
		return fmt.Errorf("%w: %d bytes needed, %d available: %w", ErrNoSpace, needed, info.Available, err)
	}
	return err
}
