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
	"runtime"
	"slices"
	"strings"
	"testing"

	"libvirt.org/go/libvirt"

	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/hosttest"
)

func TestLibvirtdFacts(t *testing.T) {
	lab := hosttest.Libvirtd(t)
	_, h, _ := connect(t, socketURI(lab))
	facts, err := h.Facts(testContext(t))
	must(t, err)
	if facts.Hostname != lab.Name() || facts.CPUs != runtime.NumCPU() || facts.MemoryBytes < 1<<30 ||
		!slices.Contains(facts.DomainTypes, "qemu") || strings.Count(facts.HypervisorVersion, ".") != 2 {
		t.Errorf("got %+v", facts)
	}
	t.Logf("%+v", facts)
}

func TestLibvirtdDomain(t *testing.T) {
	_, h, _ := connect(t, socketURI(hosttest.Libvirtd(t)))
	ctx, uuid := testContext(t), domainUUID(1)
	if err := h.StartDomain(ctx, uuid); !errors.Is(err, ErrNotFound) {
		t.Errorf("starting nothing: %v", err)
	}
	must(t, h.DefineDomain(ctx, domainXML("qemu", 1)))
	if err := h.DefineDomain(ctx, strings.Replace(domainXML("qemu", 1), uuid, domainUUID(2), 1)); !errors.Is(err, ErrExists) {
		t.Errorf("a name that is taken: %v", err)
	}
	must(t, h.SetAutostart(ctx, uuid))
	must(t, h.StartDomain(ctx, uuid))
	must(t, h.StartDomain(ctx, uuid))
	if domain, err := h.Domain(uuid); err != nil || domain.State != Running || domain.MaxMemoryBytes != 64<<20 {
		t.Errorf("got %+v, %v", domain, err)
	}
	if _, err := h.InterfaceAddresses(ctx, uuid, AddressFromLease); err != nil {
		t.Errorf("addresses by lease: %v", err)
	}
	if _, err := h.InterfaceAddresses(ctx, uuid, AddressFromAgent); err == nil {
		t.Error("addresses from an agent that isn't there")
	} else {
		t.Logf("libvirt says: %v", err)
	}
	must(t, h.DestroyDomain(ctx, uuid))
	must(t, h.DestroyDomain(ctx, uuid))
	must(t, h.ShutdownDomain(ctx, uuid))
	must(t, h.UndefineDomain(ctx, uuid))
	if err := h.UndefineDomain(ctx, uuid); !errors.Is(err, ErrNotFound) {
		t.Errorf("undefining nothing: %v", err)
	}
	if err := h.DestroyDomain(ctx, uuid); !errors.Is(err, ErrNotFound) {
		t.Errorf("destroying nothing: %v", err)
	}
	if err := h.DefineDomain(ctx, strings.Replace(domainXML("qemu", 1), "x86_64", "vax", 1)); err == nil {
		t.Error("a VAX")
	}
}

// TestLibvirtdForeignChanges has somebody else do things: their events keep the inventory.
func TestLibvirtdForeignChanges(t *testing.T) {
	lab := hosttest.Libvirtd(t)
	_, h, events := connect(t, socketURI(lab))
	_, other, _ := connect(t, socketURI(lab))
	ctx, uuid := testContext(t), domainUUID(1)
	is := func(want State, reason string) {
		t.Helper()
		eventually(t, "the inventory follows", func() error {
			domain, err := h.Domain(uuid)
			if err == nil && (domain.State != want || domain.Reason != reason || domain.MaxMemoryBytes != 64<<20) {
				err = fmt.Errorf("got %+v, want %s %s", domain, want, reason)
			}
			return err
		})
		events.expect(t, Event{Kind: DomainChanged, UUID: uuid})
		events.forget()
	}
	must(t, other.DefineDomain(ctx, domainXML("qemu", 1)))
	is(Shutoff, ReasonUnknown)
	must(t, other.StartDomain(ctx, uuid))
	is(Running, "")
	s, err := other.current()
	must(t, err)
	_, err = onDomain(ctx, s, uuid, "domainSuspend", func(dom *libvirt.Domain) (struct{}, error) { return struct{}{}, dom.Suspend() })
	must(t, err)
	is(Paused, ReasonUser)
	must(t, h.ResumeDomain(ctx, uuid))
	must(t, h.ResumeDomain(ctx, uuid))
	is(Running, "")
	must(t, other.DestroyDomain(ctx, uuid))
	is(Shutoff, ReasonDestroyed)
	must(t, other.UndefineDomain(ctx, uuid))
	eventually(t, "the inventory forgets", func() error {
		if _, err := h.Domain(uuid); !errors.Is(err, ErrNotFound) {
			return errors.New("it is still there")
		}
		return nil
	})
	if err := h.StartDomain(ctx, uuid); !errors.Is(err, ErrNotFound) {
		t.Errorf("starting it with a stale handle: %v", err)
	}
}
