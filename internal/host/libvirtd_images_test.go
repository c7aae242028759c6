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
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/hosttest"
)

// TestLibvirtdTransferUntilEnd uploads what has no length that is known before, and reads parts of it.
func TestLibvirtdTransferUntilEnd(t *testing.T) {
	private := hosttest.Libvirtd(t)
	_, h, _ := connect(t, socketURI(private))
	ctx := testContext(t)
	for _, length := range []int{0, 1, chunkBytes, 3*chunkBytes + 12345} {
		content := make([]byte, length)
		_, _ = rand.Read(content)
		name := fmt.Sprintf("until-end-%d", length)
		must(t, h.CreateVolume(ctx, "default", volumeXML(name, "raw", 0)))
		must(t, h.UploadVolume(ctx, "default", name, UntilEnd, bytes.NewReader(content)))
		stored, err := os.ReadFile(private.Path("/var/lib/libvirt/images/" + name))
		if err != nil || !bytes.Equal(stored, content) {
			t.Errorf("%d bytes of %d were stored: %v", len(stored), length, err)
		}
		for _, part := range []struct{ offset, limit int }{{0, length + 1}, {length / 2, 512}, {length / 3, length}} {
			var got bytes.Buffer
			must(t, h.DownloadVolume(ctx, "default", name, &got, int64(part.offset), int64(part.limit)))
			if want := content[part.offset:min(part.offset+part.limit, length)]; !bytes.Equal(got.Bytes(), want) {
				t.Errorf("%d bytes from %d of %d gave %d", part.limit, part.offset, length, got.Len())
			}
		}
	}
	broken := errors.New("the download broke")
	must(t, h.CreateVolume(ctx, "default", volumeXML("broken", "raw", 0)))
	if err := h.UploadVolume(ctx, "default", "broken", UntilEnd, io.MultiReader(bytes.NewReader(make([]byte, 2*chunkBytes)), failing{broken})); !errors.Is(err, broken) {
		t.Errorf("a reader that fails: %v", err)
	}
}

// TestLibvirtdBackingFiles has overlays in two pools, one of which was made beside libvirt.
func TestLibvirtdBackingFiles(t *testing.T) {
	private := hosttest.Libvirtd(t)
	_, h, _ := connect(t, socketURI(private))
	ctx := testContext(t)
	virsh := func(args ...string) {
		t.Helper()
		arguments := append([]string{"--connect", socketURI(private)}, args...)
		if out, err := exec.CommandContext(ctx, "virsh", arguments...).CombinedOutput(); err != nil {
			t.Fatalf("virsh: %v: %s", err, out)
		}
	}
	qemuImg := func(args ...string) {
		t.Helper()
		if out, err := private.Inside(ctx, "qemu-img", args...).CombinedOutput(); err != nil {
			t.Fatalf("qemu-img: %v: %s", err, out)
		}
	}
	const images = "/var/lib/libvirt/images/"
	must(t, h.CreateVolume(ctx, "default", volumeXML("base", "qcow2", 1<<20)))
	must(t, h.CreateVolume(ctx, "default", volumeXML("alone", "qcow2", 1<<20)))
	must(t, os.Mkdir(private.Path("/var/lib/libvirt/more"), 0o755))
	virsh("pool-create-as", "more", "dir", "--target", "/var/lib/libvirt/more")
	qemuImg("create", "-q", "-f", "qcow2", "-b", images+"base", "-F", "qcow2", "/var/lib/libvirt/more/overlay")
	qemuImg("create", "-q", "-f", "qcow2", "-b", "/var/lib/libvirt/more/overlay", "-F", "qcow2", images+"second")

	files, err := h.BackingFiles(ctx)
	must(t, err)
	want := map[string]string{images + "base": "volume overlay in storage pool more", "/var/lib/libvirt/more/overlay": "volume second in storage pool default"}
	if len(files) != len(want) {
		t.Errorf("got %v", files)
	}
	for file, volume := range want {
		if files[file] != volume {
			t.Errorf("%s is needed by %q, want %q", file, files[file], volume)
		}
	}

	// Of a pool that can't be read, nobody knows what it needs.
	virsh("pool-define-as", "stopped", "dir", "--target", "/var/lib/libvirt/more2")
	if _, err := h.BackingFiles(ctx); !errors.Is(err, ErrInactive) || !strings.Contains(err.Error(), "pool stopped") {
		t.Errorf("with a stopped pool: %v", err)
	}
	virsh("pool-undefine", "stopped")
	if _, err := h.BackingFiles(ctx); err != nil {
		t.Errorf("after it was undefined: %v", err)
	}
}
