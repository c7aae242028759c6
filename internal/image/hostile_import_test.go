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
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/host"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/lab/privatehost"
)

// everyNth of the corpus is imported for real.
const everyNth = 19

// TestHostileImports imports a sample of the corpus into a real pool, by the way that images come.
func TestHostileImports(t *testing.T) {
	t.Parallel()
	private, h := connect(t)
	images := slices.Concat(hostileQCOW2(), hostileOthers(), hostileCompressed(t))
	count := 0
	for n, image := range images {
		if n%everyNth != 0 {
			continue
		}
		count++
		base := serve(t, map[string]http.HandlerFunc{"disk": file(image.file)})
		importing := importInto(h, imagePool, base+"/disk", digestOf(image.file), silent)
		importing.source.Policy.MaxFileBytes = judgedMost
		if got, err := importing.run(t.Context()); err == nil {
			t.Errorf("%s became %+v", image.name, got)
		} else if refused := (*Error)(nil); !errors.As(err, &refused) || refused.Reason == ReasonStorageFailed {
			t.Errorf("%s: got error %v", image.name, err)
		}
		if left := inPool(t, private); len(left) != 0 {
			t.Fatalf("%s left %v", image.name, left)
		}
	}
	t.Logf("%d of %d were imported", count, len(images))
}

// secretPath is a file of the host, as QEMU sees it, and secret what it begins with.
const (
	secretPath = "/var/lib/libvirt/secret"
	secret     = "the host's secret bytes"
)

// TestNoHostByteReachesAGuest makes images that have QEMU read a file of the host, shows that it does when it opens them,
// and that none gets as far as a guest. Then it attaches, as a machine's disk is, images that are accepted and hold the
// like within: their guest reads what is in the image.
func TestNoHostByteReachesAGuest(t *testing.T) {
	t.Parallel()
	private, h := connect(t)
	hostFile := append([]byte(secret), make([]byte, 1<<20)...)
	if err := os.WriteFile(private.Path(secretPath), hostFile, 0o644); err != nil {
		t.Fatal(err)
	}

	for name, file := range leaking() {
		t.Run(name, func(t *testing.T) {
			path := "/var/lib/libvirt/leaking"
			if err := os.WriteFile(private.Path(path), file, 0o644); err != nil {
				t.Fatal(err)
			}
			if read := readAsGuest(t, private, "qcow2", path); !bytes.Contains(read, []byte(secret)) {
				t.Fatal("QEMU doesn't read the secret by this image: it proves nothing")
			}
			for _, packed := range append([][]byte{file}, packXZ(t, file), packGzip(t, file), packZstd(t, file)) {
				base := serve(t, map[string]http.HandlerFunc{"disk": fileHandler(packed)})
				_, err := importInto(h, imagePool, base+"/disk", digestOf(packed), silent).run(t.Context())
				expectReason(t, err, ReasonHostileImage)
			}
			if left := inPool(t, private); len(left) != 0 {
				t.Errorf("left over: %v", left)
			}
		})
	}

	for name, file := range nested() {
		t.Run(name, func(t *testing.T) {
			base := serve(t, map[string]http.HandlerFunc{"disk": fileHandler(file)})
			got, err := importInto(h, imagePool, base+"/disk", digestOf(file), silent).run(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			overlay := "overlay-of-" + got.Volume
			if err := h.CreateVolume(t.Context(), imagePool, overlayOver(overlay, got)); err != nil {
				t.Fatal(err)
			}
			read := readAsGuest(t, private, "qcow2", "/var/lib/libvirt/images/"+overlay)
			if bytes.Contains(read, []byte(secret)) {
				t.Error("the guest reads the host's secret")
			}
			if !bytes.Contains(read, []byte("backing_file="+secretPath)) {
				t.Error("the guest doesn't read what is in the image")
			}
		})
	}
}

// fileHandler is file, which a variable hides.
func fileHandler(content []byte) http.HandlerFunc { return file(content) }

// leaking are images by which QEMU reads the secret.
func leaking() map[string][]byte {
	const clusters, size = forgedBits, 1 << 20
	empty := func(version uint32) []byte {
		return u64(forgedL2, 0)(u64(forgedL1, 0)(forgeQCOW2(version, clusters, size)))
	}
	backing := func(version uint32, name string) []byte {
		return both(u64(8, room), u32(16, uint32(len(name))), text(room, name))(empty(version))
	}
	asRaw := func(name string) []byte {
		return both(u32(104, 0xe2792aca), u32(108, 3), text(112, "raw"))(backing(3, name))
	}
	dataFile := func(b []byte) []byte {
		return both(u64(72, featureExternalData), u64(88, 2), u32(104, extensionExternalData), u32(108, uint32(len(secretPath))), text(112, secretPath),
			// With raw external data, the n-th cluster is where the guest sees it.
			u64(forgedL1, forgedL2|entryCopied), u64(forgedL2, entryCopied))(b)
	}
	json := fmt.Sprintf(`json:{"driver":"raw","file":{"driver":"file","filename":%q}}`, secretPath)
	return map[string][]byte{
		"version 2 over a raw file": backing(2, secretPath),
		"version 3 over a raw file": asRaw(secretPath),
		"version 3 over JSON":       backing(3, json),
		"version 2 over JSON":       backing(2, json),
		"a relative path":           asRaw(filepath.Base(secretPath)),
		"a protocol":                asRaw("file:" + secretPath),
		"external data":             dataFile(empty(3)),
	}
}

// nested are good images of disks that hold, or begin like, images over the secret: whoever guessed the format of what
// the guest sees would be led to it.
func nested() map[string][]byte {
	inner := both(u64(8, room), u32(16, uint32(len(secretPath))), text(room, secretPath), text(2048, "backing_file="+secretPath))(forgeQCOW2(2, forgedBits, 1<<20))
	outer := forgeQCOW2(3, forgedBits, 1<<20)
	copy(outer[5*forgedCluster:], inner[:forgedCluster])
	raw := rawDisk(1 << 20)
	copy(raw[rawSector:], inner[:forgedCluster])
	return map[string][]byte{"a qcow2 image in a qcow2 image": outer, "a qcow2 image in a raw disk": raw}
}

// overlayOver is the volume of a root disk.
func overlayOver(name string, image Info) string {
	return fmt.Sprintf(`<volume><name>%s</name><capacity unit="bytes">%d</capacity><allocation unit="bytes">0</allocation>
<target><format type="qcow2"/><permissions><mode>0600</mode></permissions></target>
<backingStore><path>%s</path><format type=%q/></backingStore></volume>`, name, 1<<21, image.Path, image.Format)
}

// readAsGuest is what the guest reads from a disk of a format, on the host.
func readAsGuest(t *testing.T, private *privatehost.Host, format, path string) []byte {
	t.Helper()
	const disk = "/var/lib/libvirt/read"
	if out, err := private.Inside(t.Context(), "qemu-img", "convert", "-f", format, "-O", "raw", path, disk).CombinedOutput(); err != nil {
		t.Fatalf("qemu-img: %v\n%s", err, out)
	}
	read, err := os.ReadFile(private.Path(disk))
	if err != nil {
		t.Fatal(err)
	}
	return read
}

// TestCompressedImports has good images come compressed, and read as they are.
func TestCompressedImports(t *testing.T) {
	t.Parallel()
	private, h := connect(t)
	dir := t.TempDir()
	raw := disk(t, 5<<20)
	if err := os.WriteFile(filepath.Join(dir, "raw"), raw, 0o600); err != nil {
		t.Fatal(err)
	}
	qemuImg(t, dir, "convert", "-f", "raw", "-O", "qcow2", "raw", "disk")
	qcow2, err := os.ReadFile(filepath.Join(dir, "disk"))
	if err != nil {
		t.Fatal(err)
	}
	for format, content := range map[string][]byte{FormatRaw: raw, FormatQCOW2: qcow2} {
		for _, packer := range packers {
			t.Run(format+" by "+packer.name, func(t *testing.T) {
				packed := packer.pack(t, content)
				base := serve(t, map[string]http.HandlerFunc{"disk": file(packed)})
				last := int64(0)
				got, err := importInto(h, imagePool, base+"/disk", digestOf(packed), func(done, total int64) {
					if last = done; total != int64(len(packed)) {
						t.Errorf("%d of %d", done, total)
					}
				}).run(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if got.Format != format || got.VirtualSizeBytes != int64(len(raw)) || last != int64(len(packed)) {
					t.Errorf("got %+v after %d bytes", got, last)
				}
				stored, err := os.ReadFile(private.Path(got.Path))
				if err != nil || !bytes.Equal(stored, content) {
					t.Errorf("%d bytes were stored (%v), want %d", len(stored), err, len(content))
				}
				if again, err := Lookup(t.Context(), h, imagePool, digestOf(packed)); err != nil || again != got {
					t.Errorf("looked up %+v, %v, want %+v", again, err, got)
				}
			})
		}
	}
}

// TestLimits has images that are larger than the administrator allows, each in one way.
func TestLimits(t *testing.T) {
	t.Parallel()
	private, h := connect(t)
	raw, qcow2 := disk(t, 4<<20), forgeQCOW2(3, forgedBits, 1<<30)
	for name, test := range map[string]struct {
		file   []byte
		policy Policy
		words  string
	}{
		"a file":                     {raw, Policy{MaxFileBytes: 4<<20 - 1}, "--image-max-size"},
		"what comes out of a file":   {packZstd(t, rawDisk(4<<20)), Policy{MaxFileBytes: 4<<20 - 1}, "--image-max-size"},
		"a raw disk":                 {raw, Policy{MaxDiskBytes: 4<<20 - 1}, "4194304"},
		"a compressed raw disk":      {packZstd(t, rawDisk(4<<20)), Policy{MaxDiskBytes: 4<<20 - 1}, "4194304"},
		"the disk in a qcow2 image":  {qcow2, Policy{MaxDiskBytes: 1<<30 - 1}, "1073741824"},
		"a disk in a compressed one": {packGzip(t, qcow2), Policy{MaxDiskBytes: 1<<30 - 1}, "1073741824"},
	} {
		importing := importInto(h, imagePool, serve(t, map[string]http.HandlerFunc{"disk": file(test.file)})+"/disk", digestOf(test.file), silent)
		importing.source.Policy.MaxFileBytes, importing.source.Policy.MaxDiskBytes = test.policy.MaxFileBytes, test.policy.MaxDiskBytes
		_, err := importing.run(t.Context())
		if err == nil {
			t.Errorf("%s that is too large was imported", name)
			continue
		}
		expectReason(t, err, ReasonTooLarge, test.words)
		if left := inPool(t, private); len(left) != 0 {
			t.Errorf("%s left %v", name, left)
		}
		importing.source.Policy.MaxFileBytes, importing.source.Policy.MaxDiskBytes = test.policy.MaxFileBytes+1, test.policy.MaxDiskBytes+1
		if test.policy.MaxFileBytes == 0 {
			importing.source.Policy.MaxFileBytes = 0
		} else {
			importing.source.Policy.MaxDiskBytes = 0
		}
		if _, err := importing.run(t.Context()); err != nil {
			t.Errorf("%s that is just small enough: %v", name, err)
		}
		if err := Remove(t.Context(), h, imagePool, digestOf(test.file)); err != nil {
			t.Error(err)
		}
	}
}

// TestGoodImages are those that are accepted, by what QEMU made them with.
func TestGoodImages(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "raw"), disk(t, 3<<20+512), 0o600); err != nil {
		t.Fatal(err)
	}
	convert := func(options ...string) func(string) [][]string {
		return func(name string) [][]string {
			return [][]string{slices.Concat([]string{"convert", "-f", "raw", "-O", "qcow2"}, options, []string{"raw", name})}
		}
	}
	then := func(made func(string) [][]string, more ...string) func(string) [][]string {
		return func(name string) [][]string {
			var command []string
			for _, word := range more {
				command = append(command, strings.ReplaceAll(word, "IMAGE", name))
			}
			return append(made(name), command)
		}
	}
	for name, commands := range map[string]func(string) [][]string{
		"version-2":              convert("-o", "compat=0.10"),
		"version-3":              convert("-o", "compat=1.1"),
		"lazy-refcounts":         convert("-o", "lazy_refcounts=on"),
		"compressed-clusters":    convert("-c"),
		"zstd-clusters":          convert("-c", "-o", "compression_type=zstd"),
		"version-2-compressed":   convert("-c", "-o", "compat=0.10"),
		"extended-L2":            convert("-o", "extended_l2=on,cluster_size=128k"),
		"small-clusters":         convert("-o", "cluster_size=512"),
		"large-clusters":         convert("-o", "cluster_size=2M"),
		"narrow-refcounts":       convert("-o", "refcount_bits=1"),
		"wide-refcounts":         convert("-o", "refcount_bits=64"),
		"preallocated-metadata":  convert("-o", "preallocation=metadata"),
		"preallocated-full":      convert("-o", "preallocation=full"),
		"snapshot":               then(convert(), "snapshot", "-c", "before", "IMAGE"),
		"grown":                  then(convert("-o", "cluster_size=4k"), "resize", "-q", "IMAGE", "200G"),
		"shrunk":                 then(convert(), "resize", "-q", "--shrink", "IMAGE", "1M"),
		"amended-to-version-3":   then(convert("-o", "compat=0.10"), "amend", "-q", "-o", "compat=1.1", "IMAGE"),
		"amended-to-version-2":   then(convert(), "amend", "-q", "-o", "compat=0.10", "IMAGE"),
		"with-a-dirty-bitmap":    then(convert(), "bitmap", "--add", "IMAGE", "backup"),
		"rebased-onto-no-file":   then(convert(), "rebase", "-q", "-u", "-b", "", "IMAGE"),
		"grown-and-preallocated": then(convert(), "resize", "-q", "--preallocation=metadata", "IMAGE", "3333K"),
	} {
		for _, command := range commands(name) {
			qemuImg(t, dir, command...)
		}
		file, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if len(file) > judgedMost {
			t.Errorf("%s has %d bytes", name, len(file))
		}
		if _, err := judge(file); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	raw, err := os.ReadFile(filepath.Join(dir, "raw"))
	if err != nil {
		t.Fatal(err)
	}
	for _, packer := range packers {
		// Several streams one after the other are what parallel compressors write.
		file := append(packer.pack(t, raw[:1<<20]), packer.pack(t, raw[1<<20:])...)
		if got, err := judge(file); err != nil || got.virtualSize != int64(len(raw)) {
			t.Errorf("two streams of %s: %+v, %v", packer.name, got, err)
		}
	}
}

// TestRemove removes images, and nothing that only has such a name.
func TestRemove(t *testing.T) {
	t.Parallel()
	private, h := connect(t)
	content, another := disk(t, 1<<20), disk(t, 1<<20)
	base := serve(t, map[string]http.HandlerFunc{"disk": file(content), "another": file(another)})
	for path, digest := range map[string]string{"/disk": digestOf(content), "/another": digestOf(another)} {
		if _, err := importInto(h, imagePool, base+path, digest, silent).run(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	unmarked := digestOf([]byte("somebody else's"))
	virsh(t, private, "vol-create-as", imagePool, VolumeName(unmarked), "1M")
	virsh(t, private, "vol-create-as", imagePool, "image-of-mine.verified", "0")
	virsh(t, private, "vol-create-as", imagePool, "image-of-mine", "1M")
	got, err := Cached(t.Context(), h, imagePool)
	want := []string{digestOf(content), digestOf(another)}
	slices.Sort(want)
	slices.Sort(got)
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("cached are %v, %v, want %v", got, err, want)
	}
	if got, err := LookupVolume(t.Context(), h, imagePool, VolumeName(unmarked)); !errors.Is(err, host.ErrNotFound) {
		t.Errorf("what has no mark is used as %+v, %v", got, err)
	}
	if err := Remove(t.Context(), h, imagePool, unmarked); err != nil {
		t.Error(err)
	}
	for range 2 {
		if err := Remove(t.Context(), h, imagePool, digestOf(content)); err != nil {
			t.Error(err)
		}
	}
	if _, err := Lookup(t.Context(), h, imagePool, digestOf(content)); !errors.Is(err, host.ErrNotFound) {
		t.Errorf("looking it up: %v", err)
	}
	left := inPool(t, private)
	slices.Sort(left)
	wantLeft := []string{VolumeName(digestOf(another)), markerName(digestOf(another)), VolumeName(unmarked), "image-of-mine", "image-of-mine.verified"}
	slices.Sort(wantLeft)
	if !slices.Equal(left, wantLeft) {
		t.Errorf("left are %v, want %v", left, wantLeft)
	}
	// A marker that isn't empty is none of ours.
	virsh(t, private, "vol-create-as", imagePool, markerName(unmarked), "1M")
	if err := Remove(t.Context(), h, imagePool, unmarked); !errors.Is(err, host.ErrInvalid) {
		t.Errorf("got error %v for a marker with something in it", err)
	}
}
