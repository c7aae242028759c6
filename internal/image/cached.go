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

package image

import (
	"context"
	"errors"
	"fmt"

	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/host"
)

// Cached returns the digests of the images in a pool that were imported completely, in one call. The error is
// host.ErrNotFound if the pool does not exist.
func Cached(ctx context.Context, h *host.Host, pool string) ([]string, error) {
	names, err := h.VolumeNames(ctx, pool)
	if err != nil {
		return nil, err
	}
	return cached(names), nil
}

// cached are the digests of the images among volumes: a volume named as ours and its marker. A volume that only has such
// a name may be somebody else's, or an import that is under way.
func cached(names []string) []string {
	there := map[string]bool{}
	for _, name := range names {
		there[name] = true
	}
	var digests []string
	for _, name := range names {
		if digest, ok := DigestOf(name); ok && there[markerName(digest)] {
			digests = append(digests, digest)
		}
	}
	return digests
}

// Remove deletes an imported image. Its marker, which is empty, goes last: wherever this ends, there is either all of the
// image or none of what takes room. Who calls it sees to it that nothing uses the image. It is no error if the image is
// gone already.
func Remove(ctx context.Context, h *host.Host, pool, sha256 string) error {
	if !sha256Pattern.MatchString(sha256) {
		return fmt.Errorf("removing an image: %q is no digest", sha256)
	}
	marker, err := h.Volume(ctx, pool, markerName(sha256))
	switch {
	case errors.Is(err, host.ErrNotFound):
		return nil // never imported by us, or removed meanwhile
	case err != nil:
		return fmt.Errorf("looking at the mark of image sha256:%s: %w", sha256, err)
	case marker.CapacityBytes != 0:
		return fmt.Errorf("removing image sha256:%s: %w: volume %s is no mark of ours, because it isn't empty", sha256, host.ErrInvalid, marker.Name)
	}
	for _, name := range []string{VolumeName(sha256), markerName(sha256)} {
		if err := h.DeleteVolume(ctx, pool, name); err != nil && !errors.Is(err, host.ErrNotFound) {
			return fmt.Errorf("removing image sha256:%s: %w", sha256, err)
		}
	}
	return nil
}
