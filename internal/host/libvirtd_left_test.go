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
	"os"
	"strings"
	"testing"

	"libvirt.org/go/libvirt"

	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/hosttest"
)

// TestLibvirtdForeignDomains has domains that somebody else defined: the first connection tells of those that are there,
// and one whose size can't be had at once is asked again, because it would count as nothing.
func TestLibvirtdForeignDomains(t *testing.T) {
	lab := hosttest.Libvirtd(t)
	_, somebody, _ := connect(t, socketURI(lab))
	ctx := testContext(t)
	must(t, somebody.DefineDomain(ctx, domainXML("qemu", 1)))

	asked := make(chan struct{}, 100)
	_, h, events := connect(t, socketURI(lab), WithIntercept(func(procedure string, call func() error) error {
		if procedure != "domainGetInfo" {
			return call()
		}
		if asked <- struct{}{}; len(asked) == 1 {
			return libvirt.Error{Code: libvirt.ERR_OPERATION_TIMEOUT, Domain: libvirt.FROM_QEMU, Message: "cannot acquire state change lock"}
		}
		return call()
	}))
	events.expect(t, Event{Kind: DomainChanged, UUID: domainUUID(1)})

	must(t, somebody.DefineDomain(ctx, domainXML("qemu", 2)))
	eventually(t, "its size is known", func() error {
		if domain, err := h.Domain(domainUUID(2)); err != nil || domain.MaxMemoryBytes != 64<<20 {
			return fmt.Errorf("got %+v, %w", domain, err)
		}
		return nil
	})
	if len(asked) != 2 {
		t.Errorf("the host was asked %d times", len(asked))
	}
}

// TestLibvirtdPoolGone has a pool removed with a volume in it: that isn't known to be gone.
func TestLibvirtdPoolGone(t *testing.T) {
	lab := hosttest.Libvirtd(t)
	_, h, _ := connect(t, socketURI(lab))
	ctx := testContext(t)
	const dir = "/var/lib/libvirt/disks"
	must(t, h.EnsureDirPool(ctx, "disks", dir))
	must(t, h.CreateVolume(ctx, "disks", volumeXML("a", "raw", 1<<20)))
	s, err := h.current()
	must(t, err)
	must(t, doOnPool(ctx, s, "disks", "storagePoolUndefine", func(pool *libvirt.StoragePool) error {
		return errors.Join(pool.Destroy(), pool.Undefine())
	}))
	_, fresh, _ := connect(t, socketURI(lab))
	for name, h := range map[string]*Host{"who knew the volume": h, "who didn't": fresh} {
		if err := h.DeleteVolume(ctx, "disks", "a"); !errors.Is(err, ErrNoPool) {
			t.Errorf("%s deletes it: %v", name, err)
		}
		if _, err := h.Volume(ctx, "disks", "a"); !errors.Is(err, ErrNoPool) {
			t.Errorf("%s reads it: %v", name, err)
		}
	}
	must(t, h.EnsureDirPool(ctx, "disks", dir))
	must(t, h.DeleteVolume(ctx, "disks", "a"))
	if err := h.DeleteVolume(ctx, "disks", "a"); !errors.Is(err, ErrNotFound) || errors.Is(err, ErrNoPool) {
		t.Errorf("deleting it again: %v", err)
	}
}

// TestLibvirtdLeftTransfer has a caller leave just as its transfer is opened. Nobody holds the connection open after that.
func TestLibvirtdLeftTransfer(t *testing.T) {
	lab := hosttest.Libvirtd(t)
	before := sockets(t)
	opened, comeBack := make(chan struct{}), make(chan struct{})
	p, h, _ := connect(t, socketURI(lab), WithIntercept(func(procedure string, call func() error) error {
		err := call()
		if procedure == "storageVolUpload" {
			close(opened)
			<-comeBack
		}
		return err
	}))
	ctx, leave := context.WithCancel(testContext(t))
	must(t, h.CreateVolume(ctx, "default", volumeXML("a", "raw", 1<<10)))
	left := make(chan error, 1)
	go func() { left <- h.UploadVolume(ctx, "default", "a", 1<<10, bytes.NewReader(make([]byte, 1<<10))) }()
	<-opened
	leave()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	close(comeBack)
	p.Remove(testKey)
	eventually(t, "the connections are closed", func() error {
		if now := sockets(t); now > before {
			return fmt.Errorf("%d sockets are open, and %d were before", now, before)
		}
		return nil
	})
}

// sockets counts the sockets of this process.
func sockets(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	count := 0
	for _, entry := range entries {
		if target, err := os.Readlink("/proc/self/fd/" + entry.Name()); err == nil && strings.HasPrefix(target, "socket:") {
			count++
		}
	}
	return count
}
