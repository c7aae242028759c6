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
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"libvirt.org/go/libvirt"

	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/hosttest"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/lab/privatehost"
)

// maxCallsToReconnect is what a new session may cost until it knows all that changed on the host, from dialling on.
const maxCallsToReconnect = 10

// TestLibvirtdReconnect has 200 of 1,000 domains change while the host is out of reach. The new session learns of each
// in a handful of calls; the daemon's own log is the witness.
func TestLibvirtdReconnect(t *testing.T) {
	lab := hosttest.Libvirtd(t, func(o *privatehost.Options) { o.Libvirtd = []string{privatehost.CallLog} })
	socket := filepath.Join(t.TempDir(), "sock") // which goes away and comes back
	must(t, os.Symlink(lab.Socket(), socket))
	p, h, events := connect(t, "qemu+unix:///system?socket="+socket, quickly, seldom)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()

	// Domains by what happens to them. A started guest takes a process, so there are few of those.
	type fate struct {
		first, last int
		runs        bool // before the outage
		act         func(somebody *Host, uuid string) error
		want        State // none: it is gone
		reason      string
	}
	raw := func(procedure string, f func(*libvirt.Domain) error) func(*Host, string) error {
		return func(somebody *Host, uuid string) error {
			s, err := somebody.current()
			if err != nil {
				return err
			}
			return doOnDomain(ctx, s, uuid, procedure, f)
		}
	}
	start := raw("domainCreateWithFlags", func(dom *libvirt.Domain) error { return dom.CreateWithFlags(libvirt.DOMAIN_START_PAUSED) })
	define := func(somebody *Host, uuid string) error {
		n := 0
		if _, err := fmt.Sscanf(uuid[len(uuid)-12:], "%d", &n); err != nil {
			return err
		}
		return somebody.DefineDomain(ctx, domainXML("qemu", n))
	}
	fates := []fate{
		{1, 5, true, func(_ *Host, uuid string) error {
			signalGuest(t, lab, "-KILL", "guest-"+strings.TrimLeft(uuid[len(uuid)-12:], "0"))
			return nil
		}, Shutoff, ReasonCrashed},
		{6, 10, true, func(somebody *Host, uuid string) error { return somebody.DestroyDomain(ctx, uuid) }, Shutoff, ReasonDestroyed},
		{11, 15, true, raw("domainSuspend", (*libvirt.Domain).Suspend), Paused, ReasonUser},
		{16, 20, false, start, Paused, ReasonUser},
		{21, 25, false, func(somebody *Host, uuid string) error { return somebody.StartDomain(ctx, uuid) }, Running, ""},
		{26, 110, false, func(somebody *Host, uuid string) error { return somebody.UndefineDomain(ctx, uuid) }, "", ""},
		{1001, 1090, false, define, Shutoff, ReasonUnknown},
	}
	for n := 1; n <= 1000; n++ {
		must(t, h.DefineDomain(ctx, domainXML("qemu", n)))
	}
	for n := 1; n <= 15; n++ {
		must(t, h.StartDomain(ctx, domainUUID(n)))
	}
	const steady = 999 // runs all the time
	must(t, h.StartDomain(ctx, domainUUID(steady)))

	// The connection breaks, and others go on.
	must(t, os.Remove(socket))
	must(t, lab.StopDaemon(ctx, syscall.SIGKILL))
	events.expect(t, Event{Kind: HostDisconnected})
	must(t, lab.StartDaemon(ctx))
	others, _, _ := connect(t, socketURI(lab), seldom)
	somebody := connected(t, others, testKey)
	changes := map[string]fate{}
	for _, f := range fates {
		for n := f.first; n <= f.last; n++ {
			if err := f.act(somebody, domainUUID(n)); err != nil {
				t.Fatalf("guest %d: %v", n, err)
			}
			changes[domainUUID(n)] = f
		}
	}
	if len(changes) != 200 {
		t.Fatalf("%d domains change", len(changes))
	}
	const grown = 998 // is defined anew, with more memory
	must(t, somebody.DefineDomain(ctx, strings.Replace(domainXML("qemu", grown), ">64<", ">128<", 1)))
	eventually(t, "the crashes are noticed", func() error {
		for n := 1; n <= 5; n++ {
			if domain, err := somebody.Domain(domainUUID(n)); err != nil || domain.State != Shutoff {
				return fmt.Errorf("got %+v, %w", domain, err)
			}
		}
		return nil
	})
	others.Remove(testKey)
	var logged []string
	eventually(t, "nobody else calls", func() (err error) {
		before := len(logged)
		time.Sleep(300 * time.Millisecond)
		if logged, err = lab.Calls(); err == nil && len(logged) != before {
			err = fmt.Errorf("%d calls", len(logged))
		}
		return err
	})
	events.forget()
	counted := h.Calls()

	must(t, os.Symlink(lab.Socket(), socket))
	connected(t, p, testKey)
	events.expect(t, Event{Kind: HostConnected})
	for uuid := range changes {
		events.expect(t, Event{Kind: DomainChanged, UUID: uuid})
	}
	dials := h.Calls()["connectOpen"] - counted["connectOpen"] - 2 // that failed
	total, list := spent(counted, h.Calls())
	now, err := lab.Calls()
	must(t, err)
	seen := now[len(logged):]
	t.Logf("%d calls: %s; %d dials among them failed. The daemon saw %d: %s", total, list, dials, len(seen), seen)
	if total-dials > maxCallsToReconnect || len(seen) > maxCallsToReconnect {
		t.Errorf("that is more than %d", maxCallsToReconnect)
	}

	told := 0
	for _, e := range events.seen() {
		if _, changed := changes[e.UUID]; e.Kind == DomainChanged && !changed {
			t.Errorf("%s is said to have changed", e.UUID)
		} else if e.Kind == DomainChanged {
			told++
		}
	}
	if told != len(changes) {
		t.Errorf("%d changes were told", told)
	}
	for uuid, want := range changes {
		domain, err := h.Domain(uuid)
		if domain.State != want.want || domain.Reason != want.reason || (err == nil) != (want.want != "") {
			t.Errorf("%s: got %+v, %v; want %s %s", uuid, domain, err, want.want, want.reason)
		}
	}
	for _, domain := range h.Domains() {
		want := int64(64 << 20)
		if domain.UUID == domainUUID(grown) {
			want = 128 << 20
		}
		if domain.MaxMemoryBytes != want {
			t.Errorf("%s has %d bytes", domain.Name, domain.MaxMemoryBytes)
		}
	}
	if domain, err := h.Domain(domainUUID(steady)); err != nil || domain.State != Running {
		t.Errorf("got %+v, %v", domain, err)
	}
	if n := len(h.Domains()); n != 1000-85+90 {
		t.Errorf("%d domains", n)
	}
	// Its handles are there, too.
	counted = h.Calls()
	must(t, h.UndefineDomain(ctx, domainUUID(1001)))
	if total, list := spent(counted, h.Calls()); total != 1 {
		t.Errorf("undefining one took %d calls: %s", total, list)
	}
}

// TestLibvirtdHungGuest has a hypervisor that answers nobody: its host can be used all the same.
func TestLibvirtdHungGuest(t *testing.T) {
	lab := hosttest.Libvirtd(t)
	_, h, _ := connect(t, socketURI(lab))
	ctx := testContext(t)
	for n := 1; n <= 2; n++ {
		must(t, h.DefineDomain(ctx, domainXML("qemu", n)))
		must(t, h.StartDomain(ctx, domainUUID(n)))
	}
	signalGuest(t, lab, "-STOP", "guest-1")
	defer signalGuest(t, lab, "-CONT", "guest-1")
	start := time.Now()
	_, h, _ = connect(t, socketURI(lab))
	t.Logf("Connected after %s", time.Since(start))
	for n := 1; n <= 2; n++ {
		if domain, err := h.Domain(domainUUID(n)); err != nil || domain.State != Running || domain.MaxMemoryBytes != 64<<20 {
			t.Errorf("got %+v, %v", domain, err)
		}
	}
	// A call that takes long is no reason to refuse others, because pings come back.
	s, err := h.current()
	must(t, err)
	long := make(chan error, 1)
	go func() {
		bounded, cancel := context.WithTimeout(ctx, 3*defaultTiming.silence)
		defer cancel()
		_, err := s.stats(bounded, libvirt.DOMAIN_STATS_BALLOON, 0)
		long <- err
	}()
	for others := true; others; time.Sleep(50 * time.Millisecond) {
		if _, err := h.DomainXML(ctx, domainUUID(2)); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-long:
			if others = false; !errors.Is(err, ErrTimeout) {
				t.Errorf("a call that waits for a guest that hangs: %v", err)
			}
		default:
		}
	}
	must(t, h.DestroyDomain(ctx, domainUUID(2)))
}
