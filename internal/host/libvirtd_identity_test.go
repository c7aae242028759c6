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
	"testing"

	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/hosttest"
)

// TestLibvirtdOtherHost has a URI lead to another host than before.
func TestLibvirtdOtherHost(t *testing.T) {
	lab, other := hosttest.Libvirtd(t), hosttest.Libvirtd(t)
	p, h, _ := connect(t, socketURI(lab), quickly)
	ctx := testContext(t)
	must(t, h.DefineDomain(ctx, domainXML("qemu", 1)))
	facts, err := h.Facts(ctx)
	must(t, err)
	if facts.UUID == "" {
		t.Fatal("the host has no UUID")
	}
	known := Identity{UUID: facts.UUID, Domains: []string{domainUUID(2), domainUUID(1)}}
	link := filepath.Join(t.TempDir(), "sock")
	must(t, os.Symlink(lab.Socket(), link))
	// lead has the host dialled anew, and tells whether it is the one.
	lead := func(uri string, identity Identity, want error) {
		t.Helper()
		dials := h.Calls()["connectOpen"]
		p.Set(testKey, Config{URI: uri, Identity: identity})
		eventually(t, "it is dialled", func() error {
			_, err := p.Get(testKey)
			if now := h.Calls()["connectOpen"]; now < dials+2 || !errors.Is(err, want) || (err == nil) != (want == nil) {
				return fmt.Errorf("%d dials, %w", now-dials, err)
			}
			return nil
		})
	}

	// Nothing is expected of a host that is connected.
	p.Set(testKey, Config{URI: socketURI(lab), Identity: known})
	if _, err := p.Get(testKey); err != nil {
		t.Error(err)
	}
	lead(socketURI(other), known, ErrOtherHost)
	if err := h.DefineDomain(ctx, domainXML("qemu", 3)); !errors.Is(err, ErrUnreachable) {
		t.Errorf("a call: %v", err)
	}
	lead(socketURI(lab), known, nil)
	// One whose UUID is made up at each start is known by its domains.
	lead("qemu+unix:///system?socket="+link, Identity{UUID: domainUUID(9), Domains: known.Domains}, nil)
	// And where all domains were removed, by its UUID.
	must(t, h.UndefineDomain(ctx, domainUUID(1)))
	lead(socketURI(lab), known, nil)
	lead(socketURI(other), known, ErrOtherHost)
	// Who doesn't know the UUID takes the host that answers.
	p.Set(testKey, Config{URI: socketURI(other), Identity: Identity{Domains: known.Domains}})
	connected(t, p, testKey)
}
