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

// Package image brings disk images into a host's storage pool: from a URL and a digest to a verified volume.
//
// libvirt cannot rename a volume. So an image is streamed into its final volume, and only when its digest, length
// and header are verified a marker volume is created beside it. A volume without its marker is no image: it is what
// a crash left behind, and the next import replaces it.
package image

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"

	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/host"
)

// The disk formats that are served, in libvirt's words.
const (
	FormatQCOW2 = "qcow2"
	FormatRaw   = "raw"
)

// Info is a disk image in a storage pool.
type Info struct {
	// Volume is the name of the volume in its pool, Path its file on the host.
	Volume, Path string
	// Format is FormatQCOW2 or FormatRaw.
	Format string
	// VirtualSizeBytes is the size of the disk that a guest sees.
	VirtualSizeBytes int64
}

// Source is where an image comes from.
type Source struct {
	// URL is an https URL of the image file, or an http URL where Policy allows it.
	URL string
	// SHA256 is the digest of the file, as it is downloaded, as 64 lower-case hexadecimal digits; see ParseChecksum.
	SHA256 string
	// Policy says what is allowed.
	Policy Policy
}

var sha256Pattern = regexp.MustCompile(`^[0-9a-f]{64}$`)

// ParseChecksum returns the digest in a checksum of the form "sha256:<64 hexadecimal digits>".
func ParseChecksum(checksum string) (string, error) {
	digest, found := strings.CutPrefix(strings.ToLower(checksum), "sha256:")
	if !found || !sha256Pattern.MatchString(digest) {
		return "", fmt.Errorf("spec.image.checksum %q must be sha256: followed by 64 hexadecimal digits", checksum)
	}
	return digest, nil
}

// VolumeName is the name of the volume that holds the image with this digest.
func VolumeName(sha256 string) string { return "image-" + sha256 }

// DigestOf is the digest of the image that a volume of this name holds. False for a name that isn't an image's.
func DigestOf(volume string) (sha256 string, ok bool) {
	digest, ok := strings.CutPrefix(volume, VolumeName(""))
	return digest, ok && sha256Pattern.MatchString(digest)
}

const markerSuffix = ".verified"

func markerName(sha256 string) string { return VolumeName(sha256) + markerSuffix }

// validate returns the URL, parsed.
func (s Source) validate() (*url.URL, error) {
	if !sha256Pattern.MatchString(s.SHA256) {
		return nil, fail(ReasonUnsupported, "spec.image.checksum must be sha256: followed by 64 hexadecimal digits")
	}
	location, err := url.Parse(s.URL)
	if err != nil || location.Host == "" || (location.Scheme != "http" && location.Scheme != "https") {
		return nil, fail(ReasonUnsupported, "spec.image.url must be an https URL")
	}
	return location, nil
}

// Lookup returns the imported image with this digest. It costs two calls at most. The error is host.ErrNotFound if
// the image was never imported completely, or if the pool does not exist.
func Lookup(ctx context.Context, h *host.Host, pool, sha256 string) (Info, error) {
	vol, err := h.Volume(ctx, pool, VolumeName(sha256))
	if err != nil {
		return Info{}, fmt.Errorf("looking up image sha256:%s in pool %s: %w", sha256, pool, err)
	}
	if _, err := h.Volume(ctx, pool, markerName(sha256)); err != nil {
		return Info{}, fmt.Errorf("looking up the mark of image sha256:%s in pool %s: %w", sha256, pool, err)
	}
	return infoOf(VolumeName(sha256), pool, vol)
}

// LookupVolume returns a disk image that the host's administrator put into the pool. It costs one call. The error is
// host.ErrNotFound if the volume or the pool does not exist. An imported image can be named that way, too, and counts
// only when it was imported completely.
func LookupVolume(ctx context.Context, h *host.Host, pool, name string) (Info, error) {
	if digest, ok := DigestOf(name); ok {
		return Lookup(ctx, h, pool, digest)
	}
	vol, err := h.Volume(ctx, pool, name)
	if errors.Is(err, host.ErrNotFound) {
		return Info{}, fmt.Errorf("there is no volume %s in pool %s: upload it, or correct spec.image.volume: %w", name, pool, err)
	}
	if err != nil {
		return Info{}, fmt.Errorf("looking up volume %s in pool %s: %w", name, pool, err)
	}
	return infoOf(name, pool, vol)
}

func infoOf(name, pool string, vol host.Volume) (Info, error) {
	switch {
	case vol.Format != FormatQCOW2 && vol.Format != FormatRaw:
		return Info{}, fail(ReasonUnsupported, "volume %s in pool %s has the format %s: images are qcow2 or raw, %s", name, pool, vol.Format, convertRemedy)
	case vol.BackingPath != "":
		return Info{}, fail(ReasonHostileImage, "volume %s in pool %s has the backing file %s, but an image must stand by itself: flatten it with qemu-img convert -O qcow2", name, pool, vol.BackingPath)
	case vol.CapacityBytes <= 0:
		return Info{}, fail(ReasonUnsupported, "volume %s in pool %s is empty: upload a disk image to it", name, pool)
	}
	return Info{Volume: name, Path: vol.Path, Format: vol.Format, VirtualSizeBytes: vol.CapacityBytes}, nil
}
