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
	"strconv"
	"strings"
	"time"

	"libvirt.org/go/libvirt"
)

// VolumeNames returns the names of a pool's volumes, in one call. ErrNoPool: there is no such pool.
func (h *Host) VolumeNames(ctx context.Context, pool string) ([]string, error) {
	s, err := h.current()
	if err != nil {
		return nil, err
	}
	names, err := s.volumeNames(ctx, pool)
	if err != nil {
		return nil, fmt.Errorf("listing the volumes of storage pool %s: %w", pool, err)
	}
	return names, nil
}

func (s *session) volumeNames(ctx context.Context, pool string) ([]string, error) {
	return onPool(ctx, s, pool, "storagePoolListAllVolumes", func(p *libvirt.StoragePool) ([]string, error) {
		vols, err := p.ListAllStorageVolumes(0)
		names := make([]string, 0, len(vols))
		for k := range vols {
			name, nameErr := vols[k].GetName()
			names = append(names, name)
			err = errors.Join(err, nameErr, vols[k].Free())
		}
		return names, err
	})
}

// timestamp reads a time as libvirt writes it: seconds since 1970, a dot and nanoseconds. Zero when it isn't one.
func timestamp(text string) time.Time {
	whole, fraction, _ := strings.Cut(text, ".")
	seconds, err := strconv.ParseInt(whole, 10, 64)
	if err != nil {
		return time.Time{}
	}
	nanoseconds, err := strconv.ParseInt((fraction + "000000000")[:9], 10, 64)
	if err != nil {
		return time.Time{}
	}
	return time.Unix(seconds, nanoseconds)
}
