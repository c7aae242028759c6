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

package controllers

import (
	"context"
	"fmt"
	"sync"

	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/image"
)

// images is what the controllers know of the images on the hosts, and what keeps an image from being removed from under a
// machine that is about to use it: an image is held from when it is looked for until the disk over it is there, and while
// it is moved; and it is removed only by who has it alone. Images are told apart by digest, whatever the host: two
// LibvirtHosts may be the same host. The zero value knows of none. It is safe for concurrent use.
type images struct {
	known memo[imageKey, image.Info]

	mu    sync.Mutex
	holds map[string]*imageHold
}

// imageHold is who has an image.
type imageHold struct {
	// users is how many have it, removing that one is to remove it.
	users    int
	removing bool
	// changed is closed when the one that removes it has done.
	changed chan struct{}
}

// hold keeps the image with a digest from being removed until release is called. It waits while the image is being removed;
// the error is that of ctx. Whoever holds an image has to look for it anew: what was known from before may be gone.
func (i *images) hold(ctx context.Context, digest string) (release func(), err error) {
	for {
		i.mu.Lock()
		h := i.of(digest)
		if !h.removing {
			h.users++
			i.mu.Unlock()
			return sync.OnceFunc(func() { i.drop(digest, h) }), nil
		}
		changed := h.changed
		i.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for image sha256:%s, which is being removed: %w", digest, ctx.Err())
		}
	}
}

// holdToRemove gives the image with a digest to the caller alone until release is called. False when somebody has it.
func (i *images) holdToRemove(digest string) (release func(), ok bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	h := i.of(digest)
	if h.users > 0 || h.removing {
		return nil, false
	}
	h.removing, h.changed = true, make(chan struct{})
	return sync.OnceFunc(func() {
		i.mu.Lock()
		defer i.mu.Unlock()
		close(h.changed)
		delete(i.holds, digest)
	}), true
}

// of is who has an image. The caller has the lock.
func (i *images) of(digest string) *imageHold {
	h, ok := i.holds[digest]
	if !ok {
		if i.holds == nil {
			i.holds = map[string]*imageHold{}
		}
		h = &imageHold{}
		i.holds[digest] = h
	}
	return h
}

func (i *images) drop(digest string, h *imageHold) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if h.users--; h.users == 0 {
		delete(i.holds, digest)
	}
}

// forgetDigest has an image looked for anew on every host.
func (i *images) forgetDigest(digest string) {
	i.known.forgetWhere(func(key imageKey) bool { return key.digest == digest || key.volume == image.VolumeName(digest) })
}
