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
	"sync"

	"libvirt.org/go/libvirt"
)

// handle is a reference-counted libvirt object. Ref and Free are local to this process; they make no call to the host.
type handle interface {
	Ref() error
	Free() error
}

// handles keeps the libvirt objects of one connection, so that using them again needs no look-up.
type handles[T handle] struct {
	mu     sync.Mutex
	known  map[string]T
	closed bool
}

// take returns a reference to a known object. The caller frees it.
func (h *handles[T]) take(key string) (T, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	obj, ok := h.known[key]
	if !ok || obj.Ref() != nil {
		var none T
		return none, false
	}
	return obj, true
}

func (h *handles[T]) has(key string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	_, ok := h.known[key]
	return ok
}

// put keeps a reference of its own to the object and leaves the caller's alone.
func (h *handles[T]) put(key string, obj T) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed || obj.Ref() != nil {
		return
	}
	if h.known == nil {
		h.known = map[string]T{}
	}
	if old, ok := h.known[key]; ok {
		_ = old.Free()
	}
	h.known[key] = obj
}

// drop forgets an object.
func (h *handles[T]) drop(key string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if obj, ok := h.known[key]; ok {
		_ = obj.Free()
		delete(h.known, key)
	}
}

// close forgets all objects for good: an object that is still referenced keeps its connection open.
func (h *handles[T]) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	for _, obj := range h.known {
		_ = obj.Free()
	}
	h.known = nil
}

var errRemoved = fmt.Errorf("%w: it was removed just now", ErrNotFound)

// using makes one call on a known object. An object that is not known yet is looked up with find, which must put it
// among the known ones; so is one, once, that turns out to be stale. missing is the code that says the object itself
// does not exist: a domain that doesn't start for want of its network has been found. But a volume is gone with its pool.
func using[T any, H handle](ctx context.Context, c *connection, known *handles[H], key string, missing libvirt.ErrorNumber,
	find func(context.Context) error, procedure string, f func(H) (T, error),
) (T, error) {
	for found := false; ; {
		if !known.has(key) {
			if err := find(ctx); err != nil {
				var none T
				return none, err
			}
			found = true
		}
		value, err := call(ctx, c, procedure, func() (T, error) {
			obj, ok := known.take(key)
			if !ok {
				var none T
				return none, errRemoved
			}
			defer func() { _ = obj.Free() }()
			return f(obj)
		})
		var cause *Error
		if errors.Is(err, ErrNotFound) && errors.As(err, &cause) && cause.cause.Code != missing && missing != libvirt.ERR_NO_STORAGE_VOL {
			return value, &Error{cause: cause.cause}
		}
		if found || !errors.Is(err, ErrNotFound) {
			return value, err
		}
		known.drop(key)
	}
}
