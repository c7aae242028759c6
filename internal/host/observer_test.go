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
	"testing"
	"time"

	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/hosttest"
)

// TestObserver has each call told that was counted, a dial that fails and a call that does among them.
func TestObserver(t *testing.T) {
	type sighting struct {
		host, procedure string
		kind            error
	}
	var (
		mu   sync.Mutex
		seen []sighting
	)
	p, _ := newPool(t, quickly, WithObserver(func(host, procedure string, took time.Duration, err error) {
		if took < 0 || took > testTimeout {
			t.Errorf("%s took %s", procedure, took)
		}
		kind := err
		for _, known := range []error{ErrNotFound, ErrUnreachable} {
			if errors.Is(err, known) {
				kind = known
			}
		}
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, sighting{host, procedure, kind})
	}))
	told := func(host, procedure string, kind error) (times uint64) {
		mu.Lock()
		defer mu.Unlock()
		for _, s := range seen {
			if s.host == host && s.procedure == procedure && (kind == nil || s.kind == kind) {
				times++
			}
		}
		return times
	}

	const away = "default/away"
	p.Set(testKey, Config{URI: hosttest.TestDriver(t)})
	p.Set(away, Config{URI: "qemu+unix:///system?socket=" + t.TempDir() + "/nobody"})
	h := connected(t, p, testKey)
	if connections := p.Connections(); len(connections) != 2 || !connections[testKey] || connections[away] {
		t.Errorf("connections: %v", connections)
	}
	must(t, h.DefineDomain(testContext(t), domainXML("test", 1)))
	if err := h.StartDomain(testContext(t), domainUUID(2)); !errors.Is(err, ErrNotFound) {
		t.Errorf("got %v", err)
	}
	eventually(t, "a ping and a failed dial are told", func() error {
		if told(testKey, "connectGetLibVersion", nil) < 2 || told(away, "connectOpen", ErrUnreachable) == 0 {
			return errors.New("not yet")
		}
		return nil
	})
	if told(testKey, "domainLookupByUUID", ErrNotFound) != 1 || told(testKey, "domainDefineXML", nil) != 1 {
		mu.Lock()
		defer mu.Unlock()
		t.Errorf("told: %v", seen)
	}
	p.Remove(away)
	if connections := p.Connections(); len(connections) != 1 || !connections[testKey] {
		t.Errorf("connections: %v", connections)
	}
	calls := h.Calls()
	for _, procedure := range []string{"connectOpen", "domainDefineXML", "connectListAllDomains"} {
		if n := told(testKey, procedure, nil); n != calls[procedure] {
			t.Errorf("%s: told of %d, counted %d", procedure, n, calls[procedure])
		}
	}
}

// TestObserverOfRemovedHost has a call come back when its host was removed long ago: nobody is told.
func TestObserverOfRemovedHost(t *testing.T) {
	told, comeBack := make(chan string, 100), make(chan struct{})
	p, h, _ := connect(t, hosttest.TestDriver(t), seldom,
		WithObserver(func(_, procedure string, _ time.Duration, _ error) { told <- procedure }),
		WithIntercept(func(procedure string, call func() error) error {
			if procedure == "domainDefineXML" {
				<-comeBack
			}
			return call()
		}))
	ctx, cancel := context.WithTimeout(testContext(t), 10*time.Millisecond)
	defer cancel()
	if err := h.DefineDomain(ctx, domainXML("test", 1)); !errors.Is(err, ErrTimeout) {
		t.Errorf("got %v", err)
	}
	s, err := h.current()
	must(t, err)
	p.Remove(testKey)
	close(comeBack)
	eventually(t, "the call has come back", func() error {
		if n := len(s.control.slots.taken); n > 0 {
			return fmt.Errorf("%d are under way", n)
		}
		return nil
	})
	for range len(told) {
		if <-told == "domainDefineXML" {
			t.Error("it was told")
		}
	}
}
