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

import "sync"

// locks is a set of named locks. See connection.lock.
type locks struct {
	mu   sync.Mutex
	held map[string]*turns
}

// named returns a lock, which is a single turn.
func (l *locks) named(name string) *turns {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held == nil {
		l.held = map[string]*turns{}
	}
	lock, ok := l.held[name]
	if !ok {
		lock = newTurns(1)
		l.held[name] = lock
	}
	return lock
}
