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

package image

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr/testr"

	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/host"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/hosttest"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/lab/privatehost"
)

const imagePool = "default"

// connect starts a private libvirtd and connects to it.
func connect(t *testing.T) (*privatehost.Host, *host.Host) {
	t.Helper()
	private := hosttest.Libvirtd(t)
	hosts := host.NewPool(testr.New(t))
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- hosts.Start(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	hosts.Set("home/kvm1", host.Config{URI: "qemu+unix:///system?socket=" + private.Socket()})
	deadline, cancelWait := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancelWait()
	for {
		select {
		case event := <-hosts.Events():
			if event.Kind != host.HostConnected {
				continue
			}
			h, err := hosts.Get("home/kvm1")
			if err != nil {
				t.Fatal(err)
			}
			go func() { // nobody else listens
				for {
					select {
					case <-hosts.Events():
					case <-ctx.Done():
						return
					}
				}
			}()
			return private, h
		case <-deadline.Done():
			_, err := hosts.Get("home/kvm1")
			t.Fatalf("The host did not connect: %v", err)
		}
	}
}

// inPool lists the files that are really there.
func inPool(t *testing.T, private *privatehost.Host) []string {
	t.Helper()
	entries, err := os.ReadDir(private.Path("/var/lib/libvirt/images"))
	if err != nil {
		t.Fatal(err)
	}
	names := []string{}
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}

func virsh(t *testing.T, private *privatehost.Host, args ...string) {
	t.Helper()
	if out, err := private.Command(t.Context(), "virsh", args...).CombinedOutput(); err != nil {
		t.Fatalf("virsh %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func importInto(h *host.Host, pool, url, digest string, report func(done, total int64)) importer {
	return importer{host: h, pool: pool, source: Source{URL: url, SHA256: digest, Policy: local}, report: report, patience: hurried}
}

func silent(int64, int64) {}

// disk returns a raw disk with content that differs at every place.
func disk(t *testing.T, length int) []byte {
	t.Helper()
	content := rawDisk(length)
	if _, err := rand.Read(content[rawSector:]); err != nil {
		t.Fatal(err)
	}
	return content
}

func TestImport(t *testing.T) {
	private, h := connect(t)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "raw"), disk(t, 5<<20+512), 0o600); err != nil {
		t.Fatal(err)
	}
	qemuImg(t, dir, "convert", "-f", "raw", "-O", "qcow2", "-c", "raw", "packed")
	qemuImg(t, dir, "create", "-q", "-f", "qcow2", "large", "20G")

	for name, want := range map[string]Info{
		"raw":    {Format: FormatRaw, VirtualSizeBytes: 5<<20 + 512},
		"packed": {Format: FormatQCOW2, VirtualSizeBytes: 5<<20 + 512},
		"large":  {Format: FormatQCOW2, VirtualSizeBytes: 20 << 30},
	} {
		t.Run(name, func(t *testing.T) {
			content, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			base := serve(t, map[string]http.HandlerFunc{"disk": file(content)})
			digest := digestOf(content)
			want.Volume = "image-" + digest
			want.Path = "/var/lib/libvirt/images/image-" + digest
			if _, err := Lookup(t.Context(), h, imagePool, digest); !errors.Is(err, host.ErrNotFound) {
				t.Fatalf("got error %v before the import", err)
			}

			done := int64(0)
			got, err := Import(t.Context(), h, imagePool, Source{URL: base + "/disk", SHA256: digest, Policy: local}, func(d, total int64) {
				if d < done || total != int64(len(content)) {
					t.Errorf("progress went from %d to %d of %d", done, d, total)
				}
				done = d
			})
			if err != nil {
				t.Fatal(err)
			}
			if got != want || done != int64(len(content)) {
				t.Errorf("got %+v after %d bytes, want %+v", got, done, want)
			}
			stored, err := os.ReadFile(private.Path(got.Path))
			if err != nil || !bytes.Equal(stored, content) {
				t.Errorf("%d bytes were stored (%v), want %d", len(stored), err, len(content))
			}

			before := total(h.Calls())
			found, err := Lookup(t.Context(), h, imagePool, digest)
			if err != nil || found != want {
				t.Errorf("looked up %+v, %v, want %+v", found, err, want)
			}
			if calls := total(h.Calls()) - before; calls > 2 {
				t.Errorf("the look-up took %d calls, want 2 at most", calls)
			}
			byName, err := LookupVolume(t.Context(), h, imagePool, want.Volume)
			if err != nil || byName != want {
				t.Errorf("looked up by name %+v, %v, want %+v", byName, err, want)
			}
			// Nothing is asked of the server for an image that is there.
			if again, err := Import(t.Context(), h, imagePool, Source{URL: "http://127.0.0.1:1/", SHA256: digest}, silent); err != nil || again != want {
				t.Errorf("imported again: %+v, %v", again, err)
			}
		})
	}
}

func total(calls map[string]uint64) (sum uint64) {
	for _, n := range calls {
		sum += n
	}
	return sum
}

func TestFailedImportLeavesNothing(t *testing.T) {
	private, h := connect(t)
	content := disk(t, 3<<20)
	overlayDir := t.TempDir()
	qemuImg(t, overlayDir, "create", "-q", "-u", "-f", "qcow2", "-b", "/etc/shadow", "-F", "raw", "overlay", "1M")
	overlay, err := os.ReadFile(filepath.Join(overlayDir, "overlay"))
	if err != nil {
		t.Fatal(err)
	}
	base := serve(t, map[string]http.HandlerFunc{
		"disk":    file(content),
		"cut":     cutOff(content),
		"stalled": stalled(content),
		"short":   cutOff(content[:headLength]),
		"overlay": file(overlay),
		"page":    file([]byte("<html>It works!</html>")),
	})
	tests := map[string]struct {
		url, digest string
		reason      Reason
	}{
		"missing":  {"/missing", digestOf(content), ReasonNotFound},
		"mismatch": {"/disk", digestOf([]byte("another")), ReasonDigestMismatch},
		"cut off":  {"/cut", digestOf(content), ReasonTruncated},
		"stalled":  {"/stalled", digestOf(content), ReasonDownloadFailed},
		"too soon": {"/short", digestOf(content), ReasonTruncated},
		"hostile":  {"/overlay", digestOf(overlay), ReasonHostileImage},
		"web page": {"/page", digestOf(content), ReasonUnsupported},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := importInto(h, imagePool, base+test.url, test.digest, silent).run(t.Context())
			expectReason(t, err, test.reason, "spec.image.")
			if left := inPool(t, private); len(left) != 0 {
				t.Errorf("left over: %v", left)
			}
			if _, err := Lookup(t.Context(), h, imagePool, test.digest); !errors.Is(err, host.ErrNotFound) {
				t.Errorf("looking it up: %v", err)
			}
		})
	}

	t.Run("cancelled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		_, err := importInto(h, imagePool, base+"/disk", digestOf(content), func(done, total int64) {
			if done > total/2 {
				cancel()
			}
		}).run(ctx)
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got error %v, want the context's", err)
		}
		if left := inPool(t, private); len(left) != 0 {
			t.Errorf("left over: %v", left)
		}
	})

	t.Run("no pool", func(t *testing.T) {
		_, err := importInto(h, "absent", base+"/disk", digestOf(content), silent).run(t.Context())
		expectReason(t, err, ReasonStorageFailed, "spec.storage.imagePool", "absent")
	})

	t.Run("works afterwards", func(t *testing.T) {
		if _, err := importInto(h, imagePool, base+"/disk", digestOf(content), silent).run(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestImportReplacesWhatACrashLeft(t *testing.T) {
	private, h := connect(t)
	content := disk(t, 1<<20)
	digest := digestOf(content)
	base := serve(t, map[string]http.HandlerFunc{"disk": file(content)})
	image, mark := private.Path("/var/lib/libvirt/images/"+VolumeName(digest)), private.Path("/var/lib/libvirt/images/"+markerName(digest))

	for name, left := range map[string][]string{
		"image without mark": {image},
		"mark without image": {mark},
	} {
		t.Run(name, func(t *testing.T) {
			for _, path := range left {
				if err := os.WriteFile(path, disk(t, 4096), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := Lookup(t.Context(), h, imagePool, digest); !errors.Is(err, host.ErrNotFound) {
				t.Fatalf("looked up before the import: %v", err)
			}
			if _, err := importInto(h, imagePool, base+"/disk", digest, silent).run(t.Context()); err != nil {
				t.Fatal(err)
			}
			if stored, err := os.ReadFile(image); err != nil || !bytes.Equal(stored, content) {
				t.Errorf("%d bytes were stored (%v), want %d", len(stored), err, len(content))
			}
			virsh(t, private, "vol-delete", "--pool", imagePool, VolumeName(digest))
			virsh(t, private, "vol-delete", "--pool", imagePool, markerName(digest))
		})
	}
}

func TestImportSurvivesAStoppedPool(t *testing.T) {
	private, h := connect(t)
	content := disk(t, 1<<20)
	base := serve(t, map[string]http.HandlerFunc{"disk": file(content)})
	stopped := false
	got, err := importInto(h, imagePool, base+"/disk", digestOf(content), func(done, total int64) {
		if done == total && !stopped {
			stopped = true
			virsh(t, private, "pool-destroy", imagePool)
		}
	}).run(t.Context())
	if err != nil || !stopped {
		t.Fatalf("stopped: %v, error: %v", stopped, err)
	}
	if found, err := Lookup(t.Context(), h, imagePool, digestOf(content)); err != nil || found != got {
		t.Errorf("looked up %+v, %v, want %+v", found, err, got)
	}
}

func TestImportIntoAFullPool(t *testing.T) {
	private, h := connect(t)
	inside := func(name string, args ...string) {
		t.Helper()
		if out, err := private.Inside(t.Context(), name, args...).CombinedOutput(); err != nil {
			t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
		}
	}
	inside("mkdir", "-p", "/var/lib/libvirt/small")
	inside("mount", "-t", "tmpfs", "-o", "size=8m", "none", "/var/lib/libvirt/small")
	if err := h.EnsureDirPool(t.Context(), "small", "/var/lib/libvirt/small"); err != nil {
		t.Fatal(err)
	}
	content := disk(t, 6<<20)
	large := disk(t, 9<<20)
	base := serve(t, map[string]http.HandlerFunc{"disk": file(content), "large": file(large)})

	_, err := importInto(h, "small", base+"/large", digestOf(large), silent).run(t.Context())
	expectReason(t, err, ReasonStorageFailed, "small", "free")

	// Somebody else fills the pool, which libvirt has not noticed yet.
	inside("dd", "if=/dev/zero", "of=/var/lib/libvirt/small/other", "bs=1M", "count=4", "status=none")
	_, err = importInto(h, "small", base+"/disk", digestOf(content), silent).run(t.Context())
	expectReason(t, err, ReasonStorageFailed, "small")
	if !errors.Is(err, host.ErrNoSpace) {
		t.Errorf("got error %v, want one for no space", err)
	}
	left, err := private.Inside(t.Context(), "ls", "/var/lib/libvirt/small").Output()
	if err != nil || strings.TrimSpace(string(left)) != "other" {
		t.Errorf("in the pool: %q, %v", left, err)
	}

	inside("rm", "/var/lib/libvirt/small/other")
	if _, err := importInto(h, "small", base+"/disk", digestOf(content), silent).run(t.Context()); err != nil {
		t.Errorf("importing when there is space again: %v", err)
	}
}

func TestLookupVolume(t *testing.T) {
	private, h := connect(t)
	dir := private.Path("/var/lib/libvirt/images")
	qemuImg(t, dir, "create", "-q", "-f", "qcow2", "good.qcow2", "2G")
	qemuImg(t, dir, "create", "-q", "-f", "qcow2", "-b", "good.qcow2", "-F", "qcow2", "overlay.qcow2")
	qemuImg(t, dir, "create", "-q", "-f", "vmdk", "foreign.vmdk", "1G")
	if err := os.WriteFile(filepath.Join(dir, "empty.raw"), nil, 0o600); err != nil {
		t.Fatal(err)
	}

	got, err := LookupVolume(t.Context(), h, imagePool, "good.qcow2")
	want := Info{Volume: "good.qcow2", Path: "/var/lib/libvirt/images/good.qcow2", Format: FormatQCOW2, VirtualSizeBytes: 2 << 30}
	if err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	_, err = LookupVolume(t.Context(), h, imagePool, "overlay.qcow2")
	expectReason(t, err, ReasonHostileImage, "backing file", "overlay.qcow2")
	_, err = LookupVolume(t.Context(), h, imagePool, "foreign.vmdk")
	expectReason(t, err, ReasonUnsupported, "vmdk")
	_, err = LookupVolume(t.Context(), h, imagePool, "empty.raw")
	expectReason(t, err, ReasonUnsupported, "empty")
	if _, err = LookupVolume(t.Context(), h, imagePool, "absent"); !errors.Is(err, host.ErrNotFound) || !strings.Contains(err.Error(), "spec.image.volume") {
		t.Errorf("got error %v for a volume that is absent", err)
	}
}
