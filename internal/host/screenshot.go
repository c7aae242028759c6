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
	"bytes"
	"context"
	"errors"
	"fmt"

	"libvirt.org/go/libvirt"
)

// maxScreenshotBytes bounds a picture: 8K in 24 bits has less.
const maxScreenshotBytes = 128 << 20

// Screenshot takes a picture of the first display of a running domain, and returns it as the host encodes it: mimeType is
// image/x-portable-pixmap or image/png. ErrNotFound: there is no such domain.
func (h *Host) Screenshot(ctx context.Context, uuid string) (mimeType string, picture []byte, err error) {
	s, err := h.current()
	if err != nil {
		return "", nil, err
	}
	mimeType, picture, err = s.screenshot(ctx, uuid)
	if err != nil {
		return "", nil, fmt.Errorf("taking a picture of domain %s: %w", uuid, err)
	}
	return mimeType, picture, nil
}

func (s *session) screenshot(ctx context.Context, uuid string) (string, []byte, error) {
	var opened handover
	mimeType, err := onDomain(ctx, s, uuid, "domainScreenshot", func(dom *libvirt.Domain) (string, error) {
		stream, err := s.control.libvirt.NewStream(0)
		if err != nil {
			return "", err
		}
		mimeType, err := dom.Screenshot(stream, 0, 0)
		if err != nil {
			return "", errors.Join(err, stream.Free())
		}
		opened.give(stream)
		return mimeType, nil
	})
	if err != nil {
		opened.leave()
		return "", nil, err
	}
	t, err := opened.transfer(ctx, s.control)
	if err != nil {
		return "", nil, err
	}
	var picture bytes.Buffer
	if err := t.receive(ctx, &limited{to: &picture, left: maxScreenshotBytes}); err != nil {
		return "", nil, err
	}
	return mimeType, picture.Bytes(), nil
}

// limited refuses to be written more than a number of bytes.
type limited struct {
	to   *bytes.Buffer
	left int
}

func (l *limited) Write(p []byte) (int, error) {
	if l.left -= len(p); l.left < 0 {
		return 0, fmt.Errorf("%w: the picture is larger than %d MiB", ErrInvalid, maxScreenshotBytes>>20)
	}
	return l.to.Write(p)
}
