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
	"compress/gzip"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"slices"
	"testing"
)

// hostile is an image file that must not be accepted.
type hostile struct {
	name string
	file []byte
}

// Places in forged images of clusters of 64 KiB.
const (
	forgedBits    = 16
	forgedCluster = 1 << forgedBits
	forgedL1      = 3 * forgedCluster
	forgedL2      = 4 * forgedCluster
	forgedSize    = 1 << 30
	// room is where the header has room for names.
	room = 1024
)

// hostileQCOW2 are qcow2 images that are made to be read with other files, in the place of other files, or not at all.
func hostileQCOW2() []hostile {
	var images []hostile
	for _, version := range []uint32{2, 3} {
		add := func(name string, change forge) {
			images = append(images, hostile{fmt.Sprintf("version %d: %s", version, name), change(forgeQCOW2(version, forgedBits, forgedSize))})
		}
		addBacking(version, add)
		addNumbers(add)
		addTables(add)
		addCuts(version, add)
		if version == 3 {
			addFeatures(add)
		}
	}
	return images
}

// addBacking adds images with a backing file, in all the ways that QEMU can be told of one.
func addBacking(version uint32, add func(string, forge)) {
	const backingFormat = 0xe2792aca
	for _, name := range []string{
		"/etc/shadow", "shadow", "../../../etc/shadow", "file:/etc/shadow", "raw:/etc/shadow", "/dev/sda", "/dev/stdin", "/proc/self/environ",
		"nbd://127.0.0.1/secret", "nbd:unix:/run/secret.sock", "http://169.254.169.254/latest/user-data", "ssh://root@127.0.0.1/etc/shadow",
		"fat:/etc", "fat:rw:/etc", "blkdebug::/etc/shadow", "iscsi://127.0.0.1/iqn/0", "rbd:pool/image",
		`json:{"driver":"raw","file":{"driver":"file","filename":"/etc/shadow"}}`,
		`json:{"driver":"raw","offset":0,"size":1048576,"file":{"driver":"host_device","filename":"/dev/sda"}}`,
		`json:{"driver":"nbd","host":"127.0.0.1","port":"10809"}`,
		`json:{"driver":"qcow2","file.filename":"/etc/shadow"}`,
	} {
		backing := both(u64(8, room), u32(16, uint32(len(name))), text(room, name))
		add("backing "+name, backing)
		if version == 3 {
			add("backing "+name+" as raw", both(backing, u32(104, backingFormat), u32(108, 3), text(112, "raw")))
		}
	}
	add("backing name without a length", u64(8, room))
	add("backing name without a place", u32(16, 11))
	add("backing name behind the file", both(u64(8, 1<<40), u32(16, 11)))
	add("backing name of 4 GiB", both(u64(8, room), u32(16, 1<<32-1)))
}

// addNumbers adds images with numbers in their headers that no disk has.
func addNumbers(add func(string, forge)) {
	for _, number := range []uint32{0, 1, 4, 5, 1 << 31, 1<<32 - 1} {
		add(fmt.Sprintf("declared as version %d", number), u32(4, number))
	}
	for _, bits := range []uint32{0, 1, 7, 8, 22, 23, 31, 32, 63, 64, 255, 1<<32 - 1} {
		add(fmt.Sprintf("clusters of 2^%d bytes", bits), u32(20, bits))
	}
	for _, size := range []uint64{0, 1<<40 + 1, 1<<41 + 1, 1 << 50, 1<<62 - 1, 1 << 63, 1<<64 - 1, 1<<64 - 512} {
		add(fmt.Sprintf("a disk of %d bytes", size), u64(24, size))
	}
	for _, method := range []uint32{1, 2, 3, 1<<32 - 1} {
		add(fmt.Sprintf("encryption %d", method), u32(32, method))
	}
	for _, entries := range []uint32{0, 1, 1 << 22, 1<<22 + 1, 1 << 31, 1<<32 - 1} {
		add(fmt.Sprintf("%d entries in the L1 table", entries), u32(36, entries))
	}
	for _, count := range []uint32{0, 7, 129, 1 << 20, 1<<32 - 1} {
		add(fmt.Sprintf("%d clusters of refcounts", count), u32(56, count))
	}
	for _, count := range []uint32{65537, 1 << 31, 1<<32 - 1} {
		add(fmt.Sprintf("%d snapshots", count), both(u32(60, count), u64(64, 5*forgedCluster)))
	}
	for name, field := range map[string]int{"L1 table": 40, "refcount table": 48, "snapshot table": 64} {
		snapshots := u32(60, 0)
		if field == 64 {
			snapshots = u32(60, 1)
		}
		for _, offset := range []uint64{0, 1, 511, forgedCluster + 512, 6 * forgedCluster, 1 << 40, 1 << 62, 1 << 63, 1<<64 - forgedCluster} {
			add(fmt.Sprintf("%s at %d", name, offset), both(snapshots, u64(field, offset)))
		}
	}
	add("L1 table in the place of the refcounts", u64(40, forgedCluster))
	add("snapshots in the place of the L1 table", both(u32(60, 1), u64(64, forgedL1)))
	add("snapshots in the place of the refcounts", both(u32(60, 1), u64(64, forgedCluster)))
}

// addTables adds images whose header is good and whose tables aren't.
func addTables(add func(string, forge)) {
	for name, entry := range map[string]uint64{
		"behind the file": 1 << 40, "at the end of the file": 6 * forgedCluster, "unaligned": forgedL2 + 512, "far": offsetMask,
		"with low reserved bits": forgedL2 | 1, "with high reserved bits": forgedL2 | 1<<56, "all bits": 1<<64 - 1,
	} {
		add("L2 table "+name, u64(forgedL1, entry))
	}
	add("one L2 table named twice", u64(forgedL1+8, forgedL2|entryCopied))
	for name, entry := range map[string]uint64{
		"behind the file": 1 << 40, "at the end of the file": 6 * forgedCluster, "unaligned": 5*forgedCluster + 512, "far": offsetMask,
		"with low reserved bits": 5*forgedCluster | 2, "with high reserved bits": 5*forgedCluster | 1<<57, "all bits but one": (1<<64 - 1) &^ entryPacked,
		"compressed, behind the file": entryPacked | 1<<40, "compressed, at the end of the file": entryPacked | 6*forgedCluster,
		"compressed, endless": entryPacked | 5*forgedCluster | 0xff<<54, "all bits": 1<<64 - 1,
	} {
		add("data "+name, u64(forgedL2, entry))
		add("later data "+name, u64(forgedL2+8*1000, entry))
	}
}

// addCuts adds images that end too early.
func addCuts(version uint32, add func(string, forge)) {
	lengths := []int{4, 5, 8, 24, 71, 72, 511, 512, 4096, forgedCluster - 1, forgedCluster, forgedCluster + 1, 2*forgedCluster - 512}
	if version == 3 {
		lengths = append(lengths, 103, 104)
	}
	for place, start := range map[string]int{"L1 table": forgedL1, "L2 table": forgedL2, "data": 5 * forgedCluster} {
		for _, into := range []int{0, 1, 8, 512} {
			add(fmt.Sprintf("cut %d bytes into its %s", into, place), cut(start+into))
		}
	}
	for _, length := range lengths {
		add(fmt.Sprintf("cut after %d bytes", length), cut(length))
	}
	add("cut before its last byte", cut(6*forgedCluster-1))
	add("cut before its last sector", cut(6*forgedCluster-512))
}

// addFeatures adds images of version 3 with features that aren't served.
func addFeatures(add func(string, forge)) {
	extension := func(offset int, kind uint32, content string) forge {
		return both(u32(offset, kind), u32(offset+4, uint32(len(content))), text(offset+8, content))
	}
	for bit := 5; bit < 64; bit += 7 {
		add(fmt.Sprintf("feature %d", bit), u64(72, 1<<bit))
	}
	add("dirty", u64(72, featureDirty))
	add("corrupt", u64(72, featureCorrupt))
	for _, kind := range []byte{2, 3, 255} {
		add(fmt.Sprintf("compression %d", kind), both(u64(72, featureCompressionType), u32(100, 112), func(b []byte) []byte { b[104] = kind; return b }))
	}
	add("compression without its field", u64(72, featureCompressionType))
	add("data file, only the bit", u64(72, featureExternalData))
	add("data file, raw", both(u64(72, featureExternalData), u64(88, 2)))
	for _, name := range []string{
		"/etc/shadow", "data.raw", "../../../etc/shadow", "/dev/sda", "nbd://127.0.0.1/secret",
		`json:{"driver":"file","filename":"/etc/shadow"}`, "",
	} {
		add("data file "+name, both(u64(72, featureExternalData), extension(104, extensionExternalData, name)))
		add("data file without the bit "+name, extension(104, extensionExternalData, name))
		add("data file behind another extension "+name, both(extension(104, 0x6803f857, "features"), extension(120, extensionExternalData, name)))
	}
	add("LUKS", extension(104, extensionLUKS, "0123456789abcdef"))
	add("extension without an end", both(u32(104, 0x12345678), u32(108, 1<<32-1)))
	add("extension over the cluster", both(u32(104, 0x12345678), u32(108, forgedCluster)))
	for _, order := range []uint32{7, 8, 63, 1 << 31, 1<<32 - 1} {
		add(fmt.Sprintf("refcounts of 2^%d bits", order), u32(96, order))
	}
	for _, length := range []uint32{0, 8, 72, 96, 103, 105, 1<<16 + 8, 1<<32 - 8, 1<<32 - 1} {
		add(fmt.Sprintf("a header of %d bytes", length), u32(100, length))
	}
}

// hostileOthers are files that aren't qcow2 images, or aren't images at all.
func hostileOthers() []hostile {
	disk := func(change forge) []byte { return change(rawDisk(1 << 20)) }
	partition := func(start, sectors uint32) forge {
		return func(b []byte) []byte {
			b[446+4] = 0x83
			binary.LittleEndian.PutUint32(b[446+8:], start)
			binary.LittleEndian.PutUint32(b[446+12:], sectors)
			return b
		}
	}
	gpt := func(backup uint64) forge {
		return both(text(512, "EFI PART"), func(b []byte) []byte { binary.LittleEndian.PutUint64(b[512+32:], backup); return b })
	}
	images := []hostile{
		{"nothing", nil},
		{"a byte", []byte{0x51}},
		{"zeros", make([]byte, 1<<20)},
		{"text", []byte("404 page not found\n")},
		{"a web page", []byte("\n<!DOCTYPE html><html><body>It works!</body></html>")},
		{"an error of an object store", []byte(`<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>`)},
		{"JSON", []byte(`{"driver":"raw","file":{"driver":"file","filename":"/etc/shadow"}}`)},
		{"a JSON file name", []byte(`json:{"driver":"file","filename":"/etc/shadow"}`)},
		{"a program", append([]byte("\x7fELF\x02\x01\x01"), make([]byte, 4096)...)},
		{"a script", []byte("#!/bin/sh\ncat /etc/shadow\n")},
		{"a file system", text(1024+56, "\x53\xef")(make([]byte, 1<<20))},
		{"squashfs", append([]byte("hsqs"), make([]byte, 4096)...)},
		{"a disk of half a sector more", disk(func(b []byte) []byte { return append(b, make([]byte, 256)...) })},
		{"a disk shorter than a sector", rawDisk(512)[:511]},
		{"a disk cut in a partition", disk(partition(2048, 1<<20))},
		{"a disk whose partition begins behind it", disk(partition(1<<32-1, 1<<32-1))},
		{"a GPT that ends behind the disk", disk(gpt(2048))},
		{"a GPT that ends nowhere", disk(gpt(1<<64 - 1))},
		{"a disk that is a fixed VHD", disk(text(1<<20-512, "conectix"))},
		{"a disk that is a DMG", disk(text(1<<20-512, "koly"))},
		{"a disk that is an ISO too", disk(text(0x8001, "CD001"))},
		{"a disk that is a tar archive too", disk(text(257, "ustar"))},
		{"a disk that is a VDI too", disk(text(0x40, "\x7f\x10\xda\xbe"))},
	}
	for _, format := range foreign {
		if format.magic == string(qcow2Magic) {
			continue
		}
		images = append(images,
			hostile{format.name + " " + fmt.Sprintf("%q", format.magic), text(format.offset, format.magic)(make([]byte, 1<<20))},
			hostile{"a disk that is " + format.name + " too " + fmt.Sprintf("%q", format.magic), disk(text(format.offset, format.magic))},
		)
	}
	return images
}

// judgedMost is the largest file in tests of the judgement.
const judgedMost = 16 << 20

// hostileCompressed are files that decompress to something hostile, to too much, or not at all.
func hostileCompressed(t testing.TB) []hostile {
	t.Helper()
	var images []hostile
	good := forgeQCOW2(3, forgedBits, forgedSize)
	bomb := rawDisk(judgedMost + 512)
	for k, outer := range packers {
		pack := func(data []byte) []byte { return outer.pack(t, data) }
		add := func(name string, file []byte) { images = append(images, hostile{outer.name + ": " + name, file}) }
		packed := pack(good)
		add("a bomb", pack(bomb))
		add("a bomb with a qcow2 header", pack(append(bytes.Clone(good), bomb...)))
		add("a bomb in a bomb", pack(pack(bomb)))
		for _, inner := range packers {
			add("an image compressed before by "+inner.name, pack(inner.pack(t, good)))
		}
		for _, length := range []int{3, 6, 11, 12, 20, len(packed) / 2, len(packed) - 20, len(packed) - 4, len(packed) - 1} {
			add(fmt.Sprintf("cut after %d bytes", length), packed[:length])
		}
		for _, place := range []int{7, 12, len(packed) / 2, len(packed) - 2} {
			damaged := bytes.Clone(packed)
			damaged[place] ^= 0xff
			if outer.name == "gzip" && place == 7 { // its time, which nothing checks
				continue
			}
			add(fmt.Sprintf("damaged at byte %d", place), damaged)
		}
		add("more behind its end", append(bytes.Clone(packed), "more than that"...))
		add("nothing in it", pack(nil))
		// Whatever is refused as it is, is refused when it comes compressed.
		others := hostileOthers()
		for _, other := range others[1:] {
			add(other.name, pack(other.file))
		}
		for n, other := range hostileQCOW2() {
			if n%len(packers) == k {
				add(other.name, pack(other.file))
			}
		}
	}
	images = append(images,
		hostile{"zstd: a window of 2 GiB", []byte("\x28\xb5\x2f\xfd\x00\xa8\x01\x00\x00")},
		hostile{"zstd: a frame of 2^63 bytes", append([]byte("\x28\xb5\x2f\xfd\xe0"), bytes.Repeat([]byte{0x7f}, 16)...)},
		hostile{"xz: a dictionary of 4 GiB", xzWithDictionary(packXZ(t, good), 40)},
		hostile{"xz: a dictionary of 256 MiB", xzWithDictionary(packXZ(t, good), 32)},
		hostile{"gzip: a thousand empty members and no image", bytes.Repeat(packGzip(t, nil), 1000)},
		hostile{"gzip: stored blocks of zeros", storedZeros(t)},
	)
	return images
}

// xzWithDictionary makes an xz file ask for a dictionary of another size, in the code of the format.
func xzWithDictionary(file []byte, code byte) []byte {
	changed := bytes.Clone(file)
	const block = 12 // behind the header of the stream
	length := (int(changed[block]) + 1) * 4
	header := changed[block : block+length]
	filter := bytes.Index(header, []byte{0x21, 1})
	header[filter+2] = code
	binary.LittleEndian.PutUint32(header[length-4:], crc32.ChecksumIEEE(header[:length-4]))
	return changed
}

func storedZeros(t testing.TB) []byte {
	t.Helper()
	var packed bytes.Buffer
	writer, err := gzip.NewWriterLevel(&packed, gzip.NoCompression)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := writer.Write(make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	if err := writer.Close(); err != nil {
		t.Fatal(err)
	}
	return packed.Bytes()
}

// judge does with a file what an import does, but for writing it to a host.
func judge(file []byte) (header, error) {
	from, err := newContent(newVerifier(bytes.NewReader(file), "https://images.example.org/disk", digestOf(file), int64(len(file)), silent), judgedMost)
	if err != nil {
		return header{}, err
	}
	defer from.Close()
	head, err := from.head()
	if err != nil {
		return header{}, err
	}
	found, err := inspect(head)
	if err != nil {
		return header{}, err
	}
	if err := found.fits(maxVirtualSize); err != nil {
		return header{}, err
	}
	var stored bytes.Buffer
	stored.Write(head)
	if _, err := stored.ReadFrom(from); err != nil {
		return header{}, err
	}
	if found, err = found.complete(from.done, from.tail); err != nil {
		return header{}, err
	}
	if found.format != FormatQCOW2 {
		return found, nil
	}
	return found, found.checkTables(from.done, func(offset, n int64) ([]byte, error) {
		return stored.Bytes()[offset:min(offset+n, int64(stored.Len()))], nil
	})
}

// TestHostileImages has every one of the corpus judged.
func TestHostileImages(t *testing.T) {
	t.Parallel()
	images := slices.Concat(hostileQCOW2(), hostileOthers(), hostileCompressed(t))
	if len(images) < 200 {
		t.Fatalf("there are only %d", len(images))
	}
	distinct := map[string]string{}
	for _, image := range images {
		digest := digestOf(image.file)
		if before, ok := distinct[digest]; ok {
			t.Logf("the same: %s, and %s", before, image.name)
		}
		distinct[digest] = image.name
		if got, err := judge(image.file); err == nil {
			t.Errorf("%s was accepted as %+v", image.name, got)
		}
	}
	if len(distinct) < 200 {
		t.Errorf("only %d of them differ", len(distinct))
	}
	t.Logf("%d hostile images, of which %d differ", len(images), len(distinct))
	for _, version := range []uint32{2, 3} {
		if _, err := judge(forgeQCOW2(version, forgedBits, forgedSize)); err != nil {
			t.Errorf("the image that was forged from is refused itself: %v", err)
		}
	}
}
