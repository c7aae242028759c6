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
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"libvirt.org/go/libvirt"

	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/hosttest"
)

func TestLibvirtdTransfer(t *testing.T) {
	_, h, _ := connect(t, socketURI(hosttest.Libvirtd(t)))
	ctx := testContext(t)
	content := make([]byte, 3<<20+12345)
	_, _ = rand.Read(content)
	must(t, h.CreateVolume(ctx, "default", volumeXML("seed", "raw", len(content))))
	must(t, h.UploadVolume(ctx, "default", "seed", int64(len(content)), bytes.NewReader(content)))

	for _, limit := range []int{1, 64 << 10, len(content), len(content) + 1<<20} {
		var got bytes.Buffer
		must(t, h.DownloadVolume(ctx, "default", "seed", &got, 0, int64(limit)))
		if want := content[:min(limit, len(content))]; !bytes.Equal(got.Bytes(), want) {
			t.Errorf("downloading %d bytes gave %d, which are the same: %t", limit, got.Len(), bytes.HasPrefix(content, got.Bytes()))
		}
	}
	size := int64(len(content))
	if err := h.UploadVolume(ctx, "default", "seed", size, bytes.NewReader(content[1:])); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "shorter") {
		t.Errorf("too little content: %v", err)
	}
	if err := h.UploadVolume(ctx, "default", "seed", size-1, bytes.NewReader(content)); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "longer") {
		t.Errorf("too much content: %v", err)
	}
	broken := errors.New("the download broke")
	if err := h.UploadVolume(ctx, "default", "seed", size, io.MultiReader(bytes.NewReader(content[:100]), failing{broken})); !errors.Is(err, broken) {
		t.Errorf("a reader that fails: %v", err)
	}
	if err := h.DownloadVolume(ctx, "default", "seed", failing{broken}, 0, size); !errors.Is(err, broken) {
		t.Errorf("a writer that fails: %v", err)
	}
	if err := h.UploadVolume(ctx, "default", "missing", 1, bytes.NewReader(content)); !errors.Is(err, ErrNotFound) {
		t.Errorf("into a missing volume: %v", err)
	}
	cancelled, cancel := context.WithCancel(ctx)
	if err := h.UploadVolume(cancelled, "default", "seed", size, io.MultiReader(bytes.NewReader(content[:1<<20]), doing(cancel), bytes.NewReader(content[1<<20:]))); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled half-way: %v", err)
	}
	// All of that left the connection in order.
	must(t, h.UploadVolume(ctx, "default", "seed", size, bytes.NewReader(content)))
	var got bytes.Buffer
	must(t, h.DownloadVolume(ctx, "default", "seed", &got, 0, size))
	if !bytes.Equal(got.Bytes(), content) {
		t.Error("the content got damaged")
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error)  { return 0, f.err }
func (f failing) Write([]byte) (int, error) { return 0, f.err }

// doing is an empty reader that does something when it is its turn.
type doing func()

func (d doing) Read([]byte) (int, error) { d(); return 0, io.EOF }

func TestLibvirtdVolumeErrors(t *testing.T) {
	lab := hosttest.Libvirtd(t)
	_, h, _ := connect(t, socketURI(lab))
	ctx := testContext(t)

	must(t, h.CreateVolume(ctx, "default", volumeXML("a", "qcow2", 1<<20)))
	if err := h.CreateVolume(ctx, "default", volumeXML("a", "qcow2", 1<<20)); !errors.Is(err, ErrExists) {
		t.Errorf("creating it again: %v", err)
	}
	if err := h.CreateVolume(ctx, "nowhere", volumeXML("a", "qcow2", 1<<20)); !errors.Is(err, ErrNotFound) {
		t.Errorf("in a missing pool: %v", err)
	}
	if err := h.CreateVolume(ctx, "default", `<volume><name>a/b</name><capacity>1</capacity></volume>`); err == nil || errors.Is(err, ErrNoSpace) {
		t.Errorf("a name with a slash: %v", err)
	}
	if err := h.DeleteVolume(ctx, "default", "b"); !errors.Is(err, ErrNotFound) {
		t.Errorf("deleting a missing one: %v", err)
	}
	overlay := func(name string) string {
		return fmt.Sprintf(`<volume><name>%s</name><capacity unit='MiB'>2</capacity><target><format type='qcow2'/></target>
			<backingStore><path>/var/lib/libvirt/images/a</path><format type='qcow2'/></backingStore></volume>`, name)
	}
	must(t, h.CreateVolume(ctx, "default", overlay("root")))
	root, err := h.Volume(ctx, "default", "root")
	if err != nil || root.BackingPath != "/var/lib/libvirt/images/a" || root.Format != "qcow2" || root.CapacityBytes != 2<<20 || root.AllocationBytes == 0 {
		t.Errorf("got %+v, %v", root, err)
	}

	// A file that came by another way is found by a refresh, and one that went is not found.
	must(t, os.WriteFile(lab.Path("/var/lib/libvirt/images/copied"), make([]byte, 1<<20), 0o600))
	if copied, err := h.Volume(ctx, "default", "copied"); err != nil || copied.CapacityBytes != 1<<20 {
		t.Errorf("got %+v, %v", copied, err)
	}
	must(t, os.Remove(lab.Path("/var/lib/libvirt/images/root")))
	must(t, h.DeleteVolume(ctx, "default", "copied"))
	if err := h.DeleteVolume(ctx, "default", "copied"); !errors.Is(err, ErrNotFound) {
		t.Errorf("deleting it again: %v", err)
	}
}

func TestLibvirtdNoSpace(t *testing.T) {
	lab := hosttest.Libvirtd(t)
	_, h, _ := connect(t, socketURI(lab))
	ctx := testContext(t)
	const dir = "/var/lib/libvirt/small"
	must(t, os.Mkdir(lab.Path(dir), 0o755))
	if out, err := lab.Inside(ctx, "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	must(t, h.EnsureDirPool(ctx, "small", dir))
	err := h.CreateVolume(ctx, "small", volumeXML("seed", "raw", 2<<20))
	if !errors.Is(err, ErrNoSpace) {
		t.Errorf("a raw volume larger than the disk: %v", err)
	}
	t.Logf("libvirt says %v (code %d)", err, code(err))
	must(t, h.CreateVolume(ctx, "small", volumeXML("most", "raw", 900<<10)))
	if err := h.CreateVolume(ctx, "small", volumeXML("root", "qcow2", 1<<30)); !errors.Is(err, ErrNoSpace) {
		t.Errorf("an overlay on a full disk: %v", err)
	}
	must(t, h.DeleteVolume(ctx, "small", "most"))
	sparse := `<volume><name>sparse</name><capacity>4194304</capacity><allocation>0</allocation><target><format type='raw'/></target></volume>`
	must(t, h.CreateVolume(ctx, "small", sparse))
	if err := h.UploadVolume(ctx, "small", "sparse", 4<<20, io.LimitReader(rand.Reader, 4<<20)); !errors.Is(err, ErrNoSpace) {
		t.Errorf("uploading more than fits: %v", err)
	}
	must(t, h.DeleteVolume(ctx, "small", "sparse"))
	must(t, h.CreateVolume(ctx, "small", volumeXML("root", "qcow2", 1<<30)))
}

// TestLibvirtdCreatesDuringUpload has volumes come into being while an upload into the same pool is under way, and then
// while its refresh runs.
func TestLibvirtdCreatesDuringUpload(t *testing.T) {
	_, h, _ := connect(t, socketURI(hosttest.Libvirtd(t)))
	ctx := testContext(t)
	const size = 8 << 20
	must(t, h.CreateVolume(ctx, "default", volumeXML("image", "raw", size)))
	halfway, goOn, uploaded := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	content := io.MultiReader(
		io.LimitReader(rand.Reader, size/2),
		doing(func() { close(halfway); <-goOn }),
		io.LimitReader(rand.Reader, size/2),
	)
	go func() { uploaded <- h.UploadVolume(ctx, "default", "image", size, content) }()
	<-halfway
	if _, err := h.Volume(ctx, "default", "another"); !errors.Is(err, ErrNotFound) {
		t.Errorf("looking for a missing volume meanwhile: %v", err)
	}
	var wg sync.WaitGroup
	for n := range 20 {
		wg.Go(func() {
			name := fmt.Sprintf("root-%d", n)
			if err := h.CreateVolume(ctx, "default", volumeXML(name, "qcow2", 1<<30)); err != nil {
				t.Error(err)
			}
			if n == 10 {
				close(goOn)
			}
		})
	}
	wg.Wait()
	must(t, <-uploaded)
	for n := range 20 {
		if err := h.DeleteVolume(ctx, "default", fmt.Sprintf("root-%d", n)); err != nil {
			t.Error(err)
		}
	}
	if pool, err := h.StoragePool(ctx, "default"); err != nil || !pool.Active {
		t.Errorf("afterwards the pool is %+v, %v", pool, err)
	}
}

func TestLibvirtdPoolIsStopped(t *testing.T) {
	lab := hosttest.Libvirtd(t)
	_, h, events := connect(t, socketURI(lab))
	ctx := testContext(t)
	must(t, h.CreateVolume(ctx, "default", volumeXML("a", "qcow2", 1<<20)))
	stop := func() {
		t.Helper()
		s, err := h.current()
		must(t, err)
		must(t, doOnPool(ctx, s, "default", "storagePoolDestroy", (*libvirt.StoragePool).Destroy))
	}
	stop()
	events.expect(t, Event{Kind: StoragePoolChanged, Name: "default"})
	if pool, err := h.StoragePool(ctx, "default"); err != nil || pool.Active {
		t.Fatalf("got %+v, %v", pool, err)
	}
	must(t, h.CreateVolume(ctx, "default", volumeXML("b", "qcow2", 1<<20)))
	stop()
	if _, err := h.Volume(ctx, "default", "b"); err != nil {
		t.Error(err)
	}
	stop()
	must(t, h.DeleteVolume(ctx, "default", "a"))
	stop()
	must(t, h.EnsureDirPool(ctx, "default", "/anywhere"))
	if pool, err := h.StoragePool(ctx, "default"); err != nil || !pool.Active || pool.Path != "/var/lib/libvirt/images" {
		t.Errorf("got %+v, %v", pool, err)
	}
	// One that can't be started says why.
	stop()
	must(t, os.Rename(lab.Path("/var/lib/libvirt/images"), lab.Path("/var/lib/libvirt/elsewhere")))
	if err := h.CreateVolume(ctx, "default", volumeXML("c", "qcow2", 1<<20)); !errors.Is(err, ErrInactive) || !strings.Contains(err.Error(), "images") {
		t.Errorf("a pool whose directory is gone: %v", err)
	}
}

// TestLibvirtdStorageHangs fills the storage connection with transfers that don't end: only storage calls have to wait,
// and no longer than their deadline.
func TestLibvirtdStorageHangs(t *testing.T) {
	_, h, _ := connect(t, socketURI(hosttest.Libvirtd(t)), quickly)
	ctx := testContext(t)
	stuck, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	reading := make(chan struct{}, callsInFlight)
	for n := range callsInFlight {
		name := fmt.Sprintf("image-%d", n)
		must(t, h.CreateVolume(ctx, "default", volumeXML(name, "raw", 1<<10)))
		wg.Go(func() {
			err := h.UploadVolume(stuck, "default", name, 1<<10, io.MultiReader(
				doing(func() { reading <- struct{}{}; <-stuck.Done() }), failing{io.ErrClosedPipe}))
			if err == nil {
				t.Error("a hung upload came to an end")
			}
		})
	}
	for range callsInFlight {
		<-reading
	}
	short, cancelShort := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancelShort()
	start := time.Now()
	if err := h.CreateVolume(short, "default", volumeXML("root", "qcow2", 1<<20)); !errors.Is(err, ErrTimeout) {
		t.Errorf("a storage call: %v", err)
	}
	if waited := time.Since(start); waited > 2*time.Second {
		t.Errorf("its caller was let go after %s", waited)
	}
	must(t, h.DefineDomain(ctx, domainXML("qemu", 1)))
	if _, err := h.DomainXML(ctx, domainUUID(1)); err != nil {
		t.Error(err)
	}
	cancel()
	wg.Wait()
	must(t, h.CreateVolume(ctx, "default", volumeXML("root", "qcow2", 1<<20)))
}

// TestLibvirtdSeedPool makes a pool over a directory that does not exist yet.
func TestLibvirtdSeedPool(t *testing.T) {
	lab := hosttest.Libvirtd(t)
	_, h, _ := connect(t, socketURI(lab))
	ctx := testContext(t)
	const dir = "/var/lib/libvirt/deep/seeds"
	must(t, h.EnsureDirPool(ctx, "seeds", dir))
	if info, err := os.Stat(lab.Path(dir)); err != nil || !info.IsDir() {
		t.Error(info, err)
	}
	seed := `<volume><name>seed</name><capacity>1024</capacity><target><format type='raw'/>
		<permissions><mode>0600</mode><owner>0</owner><group>0</group></permissions></target></volume>`
	must(t, h.CreateVolume(ctx, "seeds", seed))
	if info, err := os.Stat(filepath.Join(lab.Path(dir), "seed")); err != nil || info.Mode().Perm() != 0o600 {
		t.Error(info.Mode(), err)
	}
	// What can't be made leaves nothing behind.
	must(t, os.WriteFile(lab.Path("/var/lib/libvirt/file"), nil, 0o600))
	if err := h.EnsureDirPool(ctx, "bad", "/var/lib/libvirt/file/below"); err == nil {
		t.Error("a directory below a file")
	}
	if _, err := h.StoragePool(ctx, "bad"); !errors.Is(err, ErrNotFound) {
		t.Errorf("a half-made pool is left: %v", err)
	}
}
