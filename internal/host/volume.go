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
	"encoding/xml"
	"errors"
	"fmt"
	"time"

	"libvirt.org/go/libvirt"
	"libvirt.org/go/libvirtxml"
)

// Volume is a storage volume.
type Volume struct {
	Name            string
	Path            string
	CapacityBytes   int64
	AllocationBytes int64
	// Format is libvirt's name of it: qcow2, raw, …
	Format string
	// BackingPath is the file the volume is an overlay of, if any.
	BackingPath string
	// ModifiedAt is when the volume was last written to. Zero where libvirt doesn't tell.
	ModifiedAt time.Time
}

func volumeKey(pool, name string) string { return pool + "/" + name }

// onVolume makes one call on a volume of a pool.
func onVolume[T any](ctx context.Context, s *session, pool, name, procedure string, f func(*libvirt.StorageVol) (T, error)) (T, error) {
	find := func(ctx context.Context) error { return s.findVolume(ctx, pool, name) }
	return restarted(ctx, s, pool, func() (T, error) {
		return using(ctx, s.storage, &s.volumes, volumeKey(pool, name), libvirt.ERR_NO_STORAGE_VOL, find, procedure, f)
	})
}

// findVolume gets the handle of a volume. The first time it lists the whole pool, in one call, because the first miss
// of a session is followed by one for every other volume; after that it looks up a single name.
func (s *session) findVolume(ctx context.Context, pool, name string) error {
	if _, listed := s.listed.LoadOrStore(pool, true); !listed {
		err := doOnPool(ctx, s, pool, "storagePoolListAllVolumes", func(p *libvirt.StoragePool) error {
			vols, err := p.ListAllStorageVolumes(0)
			for k := range vols {
				volName, nameErr := vols[k].GetName()
				s.volumes.put(volumeKey(pool, volName), &vols[k])
				err = errors.Join(err, nameErr, vols[k].Free())
			}
			return err
		})
		if err != nil {
			s.listed.Delete(pool)
			return err
		}
		if !s.volumes.has(volumeKey(pool, name)) {
			return fmt.Errorf("volume %s in storage pool %s: %w", name, pool, ErrNotFound)
		}
		return nil
	}
	return s.lookupVolume(ctx, pool, name)
}

func (s *session) lookupVolume(ctx context.Context, pool, name string) error {
	found, err := onPool(ctx, s, pool, "storageVolLookupByName", func(p *libvirt.StoragePool) (bool, error) {
		vol, err := p.LookupStorageVolByName(name)
		if errors.Is(err, libvirt.ERR_NO_STORAGE_VOL) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		s.volumes.put(volumeKey(pool, name), vol)
		return true, vol.Free()
	})
	if err == nil && !found {
		return fmt.Errorf("volume %s in storage pool %s: %w", name, pool, ErrNotFound)
	}
	return err
}

// volumeHead is the part of a volume's XML that this package needs to know.
type volumeHead struct {
	Name       string  `xml:"name"`
	Capacity   scaled  `xml:"capacity"`
	Allocation *scaled `xml:"allocation"`
	Format     struct {
		Type string `xml:"type,attr"`
	} `xml:"target>format"`
}

// qcow2Overhead is about what an empty qcow2 file takes.
const qcow2Overhead = 256 << 10

// neededBytes is the space that creating the volume takes at once.
func (v volumeHead) neededBytes() int64 {
	switch {
	case v.Format.Type != "" && v.Format.Type != "raw":
		return qcow2Overhead
	case v.Allocation != nil:
		return max(v.Allocation.bytes("bytes"), 1)
	default:
		return max(v.Capacity.bytes("bytes"), 1)
	}
}

// CreateVolume creates a volume in a pool, which is started if it is stopped.
// ErrExists: the pool has a volume of that name. ErrNoPool: there is no such pool. ErrNoSpace: the pool is full.
func (h *Host) CreateVolume(ctx context.Context, pool, definition string) error {
	s, err := h.current()
	if err != nil {
		return err
	}
	var head volumeHead
	if err := xml.Unmarshal([]byte(definition), &head); err != nil {
		return fmt.Errorf("parsing the volume's XML: %w: %w", ErrInvalid, err)
	}
	_, err = restarted(ctx, s, pool, func() (struct{}, error) {
		return struct{}{}, doOnPool(ctx, s, pool, "storageVolCreateXML", func(p *libvirt.StoragePool) error {
			vol, err := p.StorageVolCreateXML(definition, 0)
			if err != nil {
				return err
			}
			s.volumes.put(volumeKey(pool, head.Name), vol)
			return vol.Free()
		})
	})
	if err != nil {
		needed := head.neededBytes()
		if s.test { // which allocates everything, and has no code of its own for a name that is taken
			needed = head.Capacity.bytes("bytes")
			if code(err) == libvirt.ERR_OPERATION_FAILED && s.lookupVolume(ctx, pool, head.Name) == nil {
				err = fmt.Errorf("%w: %w", ErrExists, err)
			}
		}
		err = s.fullIfShort(ctx, pool, needed, err)
		return fmt.Errorf("creating volume %s in storage pool %s: %w", head.Name, pool, err)
	}
	return nil
}

// Volume returns a volume. A file that libvirt has not noticed yet is found by one refresh of the pool.
// ErrNotFound: there is no such volume. ErrNoPool: there is no such pool.
func (h *Host) Volume(ctx context.Context, pool, name string) (Volume, error) {
	s, err := h.current()
	if err != nil {
		return Volume{}, err
	}
	read := func() (string, error) {
		return onVolume(ctx, s, pool, name, "storageVolGetXMLDesc", func(vol *libvirt.StorageVol) (string, error) {
			return vol.GetXMLDesc(0)
		})
	}
	definition, err := read()
	if errors.Is(err, ErrNotFound) && !errors.Is(err, ErrNoPool) {
		if refreshErr := s.refreshPool(ctx, pool); refreshErr == nil {
			definition, err = read()
		} else if started, poolErr := s.startPool(ctx, pool); poolErr != nil || started {
			err = errors.Join(refreshErr, poolErr) // libvirt stopped the pool over it: nothing is known
		}
		// Otherwise something is being written to the pool, which can't be refreshed meanwhile.
	}
	if err != nil {
		return Volume{}, fmt.Errorf("reading volume %s in storage pool %s: %w", name, pool, err)
	}
	return parseVolume(definition)
}

func parseVolume(definition string) (Volume, error) {
	var parsed libvirtxml.StorageVolume
	if err := parsed.Unmarshal(definition); err != nil {
		return Volume{}, fmt.Errorf("parsing a volume: %w", err)
	}
	size := func(s *libvirtxml.StorageVolumeSize) int64 {
		if s == nil {
			return 0
		}
		return scaled{Value: int64(s.Value), Unit: s.Unit}.bytes("bytes")
	}
	volume := Volume{Name: parsed.Name, CapacityBytes: size(parsed.Capacity), AllocationBytes: size(parsed.Allocation)}
	if parsed.Target != nil {
		volume.Path = parsed.Target.Path
		if parsed.Target.Timestamps != nil {
			volume.ModifiedAt = timestamp(parsed.Target.Timestamps.Mtime)
		}
		if parsed.Target.Format != nil {
			volume.Format = parsed.Target.Format.Type
		}
	}
	if parsed.BackingStore != nil {
		volume.BackingPath = parsed.BackingStore.Path
	}
	return volume, nil
}

// DeleteVolume deletes a volume. ErrNotFound: there is no such volume. ErrNoPool: there is no such pool.
func (h *Host) DeleteVolume(ctx context.Context, pool, name string) error {
	s, err := h.current()
	if err != nil {
		return err
	}
	_, err = onVolume(ctx, s, pool, name, "storageVolDelete", func(vol *libvirt.StorageVol) (struct{}, error) {
		return struct{}{}, vol.Delete(libvirt.STORAGE_VOL_DELETE_NORMAL)
	})
	if err != nil {
		return fmt.Errorf("deleting volume %s in storage pool %s: %w", name, pool, err)
	}
	s.volumes.drop(volumeKey(pool, name))
	return nil
}
