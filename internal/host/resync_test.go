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
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"libvirt.org/go/libvirt"

	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/hosttest"
)

// lose makes the inventory miss an event.
func lose(t *testing.T, h *Host, change func(entries map[string]entry)) {
	t.Helper()
	s, err := h.current()
	must(t, err)
	s.inventory.mu.Lock()
	defer s.inventory.mu.Unlock()
	change(s.inventory.entries)
}

func TestResync(t *testing.T) {
	_, h, events := connect(t, hosttest.TestDriver(t), quickly)
	ctx := testContext(t)
	for n := 1; n <= 20; n++ {
		must(t, h.DefineDomain(ctx, domainXML("test", n)))
	}
	must(t, h.StartDomain(ctx, domainUUID(1)))
	events.expect(t, Event{Kind: DomainChanged, UUID: domainUUID(20)})
	s, err := h.current()
	must(t, err)

	before := h.Calls()
	must(t, s.resync(ctx))
	if total, list := spent(before, h.Calls()); total != 2 {
		t.Errorf("with nothing to repair it took %d calls: %s", total, list)
	}
	const ghost = "6a3e0b52-9c1d-4f7e-8b20-999999999999"
	lose(t, h, func(entries map[string]entry) {
		stopped := entries[domainUUID(1)]
		stopped.State, stopped.Reason = Shutoff, ReasonUnknown
		entries[domainUUID(1)] = stopped
		delete(entries, domainUUID(2))
		entries[ghost] = entry{Domain: Domain{UUID: ghost, State: Running}}
	})
	events.forget()
	must(t, s.resync(ctx))
	if domain, err := h.Domain(domainUUID(1)); err != nil || domain.State != Running {
		t.Errorf("the one that was started: %+v, %v", domain, err)
	}
	if domain, err := h.Domain(domainUUID(2)); err != nil || domain.State != Shutoff || domain.Name != "guest-2" || domain.MaxMemoryBytes != 64<<20 {
		t.Errorf("the one that was defined: %+v, %v", domain, err)
	}
	if _, err := h.Domain(ghost); !errors.Is(err, ErrNotFound) {
		t.Errorf("the one that was removed: %v", err)
	}
	for _, uuid := range []string{domainUUID(1), domainUUID(2), ghost} {
		events.expect(t, Event{Kind: DomainChanged, UUID: uuid})
	}
}

// TestResyncIsLate has a domain come and go while the list that shows it is on its way.
func TestResyncIsLate(t *testing.T) {
	var before, after func()
	_, h, _ := connect(t, hosttest.TestDriver(t), quickly, WithIntercept(func(procedure string, call func() error) error {
		if procedure == "connectListAllDomains" && before != nil {
			before()
		}
		err := call()
		if procedure == "connectGetAllDomainStats" && after != nil {
			after()
		}
		return err
	}))
	ctx := testContext(t)
	s, err := h.current()
	must(t, err)
	uuid := domainUUID(1)
	before = func() { must(t, h.DefineDomain(ctx, domainXML("test", 1))) }
	after = func() { must(t, h.UndefineDomain(ctx, uuid)) }
	must(t, s.resync(ctx))
	if domain, err := h.Domain(uuid); !errors.Is(err, ErrNotFound) {
		t.Errorf("a domain is known that has been removed: %+v, %v", domain, err)
	}
}

// TestResyncRuns has it done by itself.
func TestResyncRuns(t *testing.T) {
	_, h, _ := connect(t, hosttest.TestDriver(t), quickly, func(p *Pool) { p.timing.secondLook, p.timing.resync = 20*time.Millisecond, 20*time.Millisecond })
	must(t, h.DefineDomain(testContext(t), domainXML("test", 1)))
	lose(t, h, func(entries map[string]entry) { delete(entries, domainUUID(1)) })
	eventually(t, "the domain is found again", func() error {
		_, err := h.Domain(domainUUID(1))
		return err
	})
}

// TestDoubt has libvirt forget to say that a domain, which was shutting down, stopped.
func TestDoubt(t *testing.T) {
	_, h, events := connect(t, hosttest.TestDriver(t))
	must(t, h.DefineDomain(testContext(t), domainXML("test", 1)))
	s, err := h.current()
	must(t, err)
	lose(t, h, func(entries map[string]entry) {
		ending := entries[domainUUID(1)]
		ending.State = ShuttingDown
		entries[domainUUID(1)] = ending
	})
	events.forget()
	s.doubt(domainUUID(1), false)
	s.doubt(domainUUID(1), false) // once is enough
	eventually(t, "the end is noticed", func() error {
		if domain, err := h.Domain(domainUUID(1)); err != nil || domain.State != Shutoff {
			return fmt.Errorf("got %+v, %w", domain, err)
		}
		return nil
	})
	events.expect(t, Event{Kind: DomainChanged, UUID: domainUUID(1)})
	if n := h.Calls()["domainGetState"]; n != 1 {
		t.Errorf("it was asked %d times", n)
	}
}

// TestLibvirtdLeavesNothing counts the sockets of this process.
func TestLibvirtdLeavesNothing(t *testing.T) {
	lab := hosttest.Libvirtd(t)
	p, _ := newPool(t, quickly)
	sockets := func() int {
		t.Helper()
		fds, err := os.ReadDir("/proc/self/fd")
		must(t, err)
		count := 0
		for _, fd := range fds {
			if target, err := os.Readlink(filepath.Join("/proc/self/fd", fd.Name())); err == nil && strings.HasPrefix(target, "socket:") {
				count++
			}
		}
		return count
	}
	var before int
	eventually(t, "the connections of earlier tests are closed", func() error {
		was := before
		if before = sockets(); before != was {
			return fmt.Errorf("%d, then %d sockets", was, before)
		}
		return nil
	})
	ctx := testContext(t)
	for n := range 4 {
		p.Set(testKey, Config{URI: socketURI(lab)})
		h := connected(t, p, testKey)
		must(t, h.DefineDomain(ctx, domainXML("qemu", 1)))
		must(t, h.CreateVolume(ctx, "default", volumeXML(fmt.Sprintf("v%d", n), "qcow2", 1<<20)))
		must(t, h.UploadVolume(ctx, "default", fmt.Sprintf("v%d", n), 4, strings.NewReader("seed")))
		if n == 2 { // be it that the host hangs
			must(t, lab.SignalDaemon(syscall.SIGSTOP))
			eventually(t, "the host is given up", func() error {
				if _, err := p.Get(testKey); !errors.Is(err, ErrUnreachable) {
					return fmt.Errorf("got %w", err)
				}
				return nil
			})
			must(t, lab.SignalDaemon(syscall.SIGCONT))
			h = connected(t, p, testKey)
		}
		if n == 3 { // or that somebody else had things to tell
			s, err := h.current()
			must(t, err)
			must(t, doOnPool(ctx, s, "default", "storagePoolRefresh", func(pool *libvirt.StoragePool) error { return pool.Refresh(0) }))
		}
		p.Remove(testKey)
	}
	eventually(t, "its connections are closed", func() error {
		if now := sockets(); now > before {
			return fmt.Errorf("%d sockets before, %d now", before, now)
		}
		return nil
	})
}
