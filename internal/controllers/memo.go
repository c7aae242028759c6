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

import "sync"

// memo remembers what was seen on hosts, so that looking again costs them nothing. What was seen in one epoch of a host
// (see HostEvents) isn't believed in the next. The zero value is empty. It is safe for concurrent use.
type memo[K comparable, V any] struct {
	mu   sync.Mutex
	seen map[K]sighting[V]
}

type sighting[V any] struct {
	epoch uint64
	value V
}

func (m *memo[K, V]) get(key K, epoch uint64) (V, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s, ok := m.seen[key]
	return s.value, ok && s.epoch == epoch
}

func (m *memo[K, V]) set(key K, epoch uint64, value V) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.seen == nil {
		m.seen = map[K]sighting[V]{}
	}
	m.seen[key] = sighting[V]{epoch, value}
}

func (m *memo[K, V]) forget(key K) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.seen, key)
}

func (m *memo[K, V]) forgetWhere(match func(K) bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for key := range m.seen {
		if match(key) {
			delete(m.seen, key)
		}
	}
}
