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
	"encoding/binary"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// qemuImg runs qemu-img in dir.
func qemuImg(t *testing.T, dir string, args ...string) {
	t.Helper()
	for tries := 1; ; tries++ {
		command := exec.CommandContext(t.Context(), "qemu-img", args...)
		command.Dir = dir
		out, err := command.CombinedOutput()
		switch {
		case err == nil:
			return
		// To choose how often a key is hashed it measures itself, which fails on a busy machine.
		case tries == 20 || !strings.Contains(string(out), "accurate CPU usage"):
			t.Fatalf("qemu-img %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}

// inspectFile inspects a file as an import would.
func inspectFile(t *testing.T, path string) (header, error) {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	stat, err := file.Stat()
	if err != nil {
		t.Fatal(err)
	}
	head := make([]byte, min(headLength, stat.Size()))
	if _, err := io.ReadFull(file, head); err != nil {
		t.Fatal(err)
	}
	found, err := inspect(head)
	if err != nil {
		return header{}, err
	}
	return found.complete(stat.Size(), nil)
}

// inspectWhole inspects a file as an import would.
func inspectWhole(data []byte) (header, error) {
	found, err := inspect(data[:min(headLength, len(data))])
	if err != nil {
		return header{}, err
	}
	return found.complete(int64(len(data)), data[max(0, len(data)-tailLength):])
}

func expectReason(t *testing.T, err error, reason Reason, words ...string) {
	t.Helper()
	var failure *Error
	if !errors.As(err, &failure) || failure.Reason != reason {
		t.Errorf("got error %v, want one with reason %s", err, reason)
		return
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("the error %q does not say %q", err, word)
		}
	}
}

func TestInspectAcceptsWhatQEMUMakes(t *testing.T) {
	const size = 3 << 30
	for name, options := range map[string]string{
		"default":          "compat=1.1",
		"version 2":        "compat=0.10",
		"cluster of 512 B": "cluster_size=512",
		"cluster of 2 MiB": "cluster_size=2M",
		"extended L2":      "extended_l2=on,cluster_size=128k",
		"zstd clusters":    "compression_type=zstd",
		"lazy refcounts":   "lazy_refcounts=on",
		"1-bit refcounts":  "refcount_bits=1",
		"preallocated":     "preallocation=metadata",
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			qemuImg(t, dir, "create", "-q", "-f", "qcow2", "-o", options, "disk", "3G")
			got, err := inspectFile(t, filepath.Join(dir, "disk"))
			if err != nil {
				t.Fatal(err)
			}
			if got.format != FormatQCOW2 || got.virtualSize != size {
				t.Errorf("got %+v", got)
			}
		})
	}

	t.Run("snapshot", func(t *testing.T) {
		dir := t.TempDir()
		qemuImg(t, dir, "create", "-q", "-f", "qcow2", "disk", "1G")
		qemuImg(t, dir, "snapshot", "-c", "before", "disk")
		if _, err := inspectFile(t, filepath.Join(dir, "disk")); err != nil {
			t.Error(err)
		}
	})
}

func TestInspectRefusesHostileImagesOfQEMU(t *testing.T) {
	dir := t.TempDir()
	qemuImg(t, dir, "create", "-q", "-f", "raw", "base", "1M")
	secret := []string{"--object", "secret,id=key,data=password"}
	tests := map[string]struct {
		args   []string
		reason Reason
		words  string
	}{
		"backing file":        {[]string{"create", "-q", "-f", "qcow2", "-b", "base", "-F", "raw", "disk"}, ReasonHostileImage, "backing file"},
		"version 2 overlay":   {[]string{"create", "-q", "-f", "qcow2", "-o", "compat=0.10", "-b", "base", "-F", "raw", "disk"}, ReasonHostileImage, "backing file"},
		"absolute backing":    {[]string{"create", "-q", "-u", "-f", "qcow2", "-b", "/etc/shadow", "-F", "raw", "disk", "1M"}, ReasonHostileImage, "backing file"},
		"protocol as backing": {[]string{"create", "-q", "-u", "-f", "qcow2", "-b", "nbd://127.0.0.1/x", "-F", "raw", "disk", "1M"}, ReasonHostileImage, "backing file"},
		"data file":           {[]string{"create", "-q", "-f", "qcow2", "-o", "data_file=data", "disk", "1M"}, ReasonHostileImage, "another file"},
		"raw data file":       {[]string{"create", "-q", "-f", "qcow2", "-o", "data_file=data2,data_file_raw=on", "disk", "1M"}, ReasonHostileImage, "another file"},
		"LUKS in qcow2":       {append([]string{"create", "-q", "-f", "qcow2", "-o", "encrypt.format=luks,encrypt.key-secret=key,encrypt.iter-time=10"}, append(secret, "disk", "1M")...), ReasonUnsupported, "encrypted"},
		"AES in qcow2":        {append([]string{"create", "-q", "-f", "qcow2", "-o", "encrypt.format=aes,encrypt.key-secret=key"}, append(secret, "disk", "1M")...), ReasonUnsupported, "encrypted"},
		"LUKS":                {append([]string{"create", "-q", "-f", "luks", "-o", "key-secret=key,iter-time=10"}, append(secret, "disk", "1M")...), ReasonUnsupported, "LUKS"},
		"3 TiB":               {[]string{"create", "-q", "-f", "qcow2", "disk", "3T"}, ReasonTooLarge, "3298534883328"},
		"no size":             {[]string{"create", "-q", "-f", "qcow2", "disk", "0"}, ReasonHostileImage, "no size"},
		"VMDK":                {[]string{"create", "-q", "-f", "vmdk", "disk", "1M"}, ReasonUnsupported, "VMDK"},
		"VMDK descriptor":     {[]string{"create", "-q", "-f", "vmdk", "-o", "subformat=monolithicFlat", "disk", "1M"}, ReasonUnsupported, "VMDK"},
		"VHDX":                {[]string{"create", "-q", "-f", "vhdx", "disk", "1M"}, ReasonUnsupported, "VHDX"},
		"VHD":                 {[]string{"create", "-q", "-f", "vpc", "disk", "1M"}, ReasonUnsupported, "VHD"},
		"VDI":                 {[]string{"create", "-q", "-f", "vdi", "disk", "1M"}, ReasonUnsupported, "VDI"},
		"QED":                 {[]string{"create", "-q", "-f", "qed", "disk", "1M"}, ReasonUnsupported, "QED"},
		"qcow":                {[]string{"create", "-q", "-f", "qcow", "disk", "1M"}, ReasonUnsupported, "version 1"},
		"parallels":           {[]string{"create", "-q", "-f", "parallels", "disk", "1M"}, ReasonUnsupported, "Parallels"},
		"blank":               {[]string{"create", "-q", "-f", "raw", "disk", "1M"}, ReasonUnsupported, "partition table"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if err := os.Remove(filepath.Join(dir, "disk")); err != nil && !os.IsNotExist(err) {
				t.Fatal(err)
			}
			qemuImg(t, dir, test.args...)
			_, err := inspectFile(t, filepath.Join(dir, "disk"))
			expectReason(t, err, test.reason, "spec.image.url", test.words)
		})
	}
}

// realQCOW2 returns a small image of QEMU's.
func realQCOW2(t *testing.T, options string) []byte {
	t.Helper()
	dir := t.TempDir()
	qemuImg(t, dir, "create", "-q", "-f", "qcow2", "-o", options, "disk", "1G")
	data, err := os.ReadFile(filepath.Join(dir, "disk"))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestInspectRefusesForgedHeaders(t *testing.T) {
	intact := realQCOW2(t, "compat=1.1")
	u32 := func(offset int, value uint32) func([]byte) []byte {
		return func(b []byte) []byte { binary.BigEndian.PutUint32(b[offset:], value); return b }
	}
	u64 := func(offset int, value uint64) func([]byte) []byte {
		return func(b []byte) []byte { binary.BigEndian.PutUint64(b[offset:], value); return b }
	}
	extension := func(kind, size uint32) func([]byte) []byte {
		return func(b []byte) []byte { return u32(112, kind)(u32(116, size)(b)) }
	}
	tests := map[string]struct {
		forge  func([]byte) []byte
		reason Reason
	}{
		"version 1":                   {u32(4, 1), ReasonUnsupported},
		"version 4":                   {u32(4, 4), ReasonUnsupported},
		"backing offset only":         {u64(8, 1), ReasonHostileImage},
		"backing size only":           {u32(16, 9), ReasonHostileImage},
		"cluster bits 8":              {u32(20, 8), ReasonHostileImage},
		"cluster bits 22":             {u32(20, 22), ReasonHostileImage},
		"cluster bits 64":             {u32(20, 64), ReasonHostileImage},
		"cluster bits all":            {u32(20, 1<<32-1), ReasonHostileImage},
		"size 0":                      {u64(24, 0), ReasonHostileImage},
		"size over 2 TiB":             {u64(24, maxVirtualSize+1), ReasonTooLarge},
		"size negative":               {u64(24, 1<<63), ReasonTooLarge},
		"size not covered by L1":      {u64(24, maxVirtualSize), ReasonHostileImage},
		"encryption AES":              {u32(32, 1), ReasonUnsupported},
		"encryption LUKS":             {u32(32, 2), ReasonUnsupported},
		"L1 empty":                    {u32(36, 0), ReasonHostileImage},
		"L1 huge":                     {u32(36, 1<<32-1), ReasonHostileImage},
		"L1 beyond the file":          {u32(36, 4<<20), ReasonTruncated},
		"L1 at 0":                     {u64(40, 0), ReasonHostileImage},
		"L1 unaligned":                {u64(40, 3<<16+8), ReasonHostileImage},
		"L1 offset wraps":             {u64(40, 1<<64-1<<16), ReasonHostileImage},
		"L1 offset far":               {u64(40, 1<<40), ReasonTruncated},
		"refcounts at 0":              {u64(48, 0), ReasonHostileImage},
		"refcounts far":               {u64(48, 1<<40), ReasonTruncated},
		"refcounts empty":             {u32(56, 0), ReasonHostileImage},
		"refcounts huge":              {u32(56, 1<<32-1), ReasonHostileImage},
		"snapshots huge":              {u32(60, 1<<32-1), ReasonHostileImage},
		"snapshots at 0":              {u32(60, 1), ReasonHostileImage},
		"snapshots far":               {func(b []byte) []byte { return u64(64, 1<<40)(u32(60, 1)(b)) }, ReasonTruncated},
		"feature dirty":               {u64(72, featureDirty), ReasonUnsupported},
		"feature corrupt":             {u64(72, featureCorrupt), ReasonUnsupported},
		"feature data file":           {u64(72, 4), ReasonHostileImage},
		"feature unknown":             {u64(72, 1<<5), ReasonUnsupported},
		"feature unknown, high":       {u64(72, 1<<63), ReasonUnsupported},
		"compression type unknown":    {func(b []byte) []byte { b[104] = 2; return u64(72, featureCompressionType)(b) }, ReasonUnsupported},
		"refcount order 7":            {u32(96, 7), ReasonHostileImage},
		"header length 0":             {u32(100, 0), ReasonHostileImage},
		"header length odd":           {u32(100, 105), ReasonHostileImage},
		"header length over cluster":  {u32(100, 1<<16+8), ReasonHostileImage},
		"extension data file":         {extension(extensionExternalData, 8), ReasonHostileImage},
		"extension data file, later":  {func(b []byte) []byte { return u32(128, extensionExternalData)(extension(0x12345678, 8)(b)) }, ReasonHostileImage},
		"extension LUKS":              {extension(extensionLUKS, 16), ReasonUnsupported},
		"extension of endless length": {extension(0x12345678, 1<<32-1), ReasonHostileImage},
		"extension over the cluster":  {extension(0x12345678, 1<<16), ReasonHostileImage},
		"cut in the magic":            {func(b []byte) []byte { return b[:3] }, ReasonUnsupported},
		"cut in the header":           {func(b []byte) []byte { return b[:71] }, ReasonTruncated},
		"cut in the v3 header":        {func(b []byte) []byte { return b[:100] }, ReasonTruncated},
		"cut after the header":        {func(b []byte) []byte { return b[:112] }, ReasonHostileImage},
		"cut before the tables":       {func(b []byte) []byte { return b[:1<<16] }, ReasonTruncated},
		"cut in the L1 table":         {func(b []byte) []byte { return b[:3<<16+8] }, ReasonTruncated},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			forged := test.forge(append([]byte(nil), intact...))
			_, err := inspectWhole(forged)
			expectReason(t, err, test.reason, "spec.image.url")
		})
	}
	if _, err := inspectWhole(intact); err != nil {
		t.Errorf("the header that was forged from is refused itself: %v", err)
	}
}

// rawDisk returns a disk with an MBR, as long as asked for.
func rawDisk(length int) []byte {
	disk := make([]byte, length)
	if length >= rawSector {
		disk[510], disk[511] = 0x55, 0xaa
	}
	return disk
}

func TestInspectRaw(t *testing.T) {
	gpt := func(backupSector uint64) []byte {
		disk := rawDisk(1 << 20)
		copy(disk[512:], "EFI PART")
		binary.LittleEndian.PutUint64(disk[512+32:], backupSector)
		return disk
	}
	for name, disk := range map[string][]byte{"MBR": rawDisk(1 << 20), "one sector": rawDisk(512), "GPT": gpt(2047)} {
		got, err := inspectWhole(disk)
		if err != nil || got.format != FormatRaw || got.virtualSize != int64(len(disk)) {
			t.Errorf("%s: got %+v, %v", name, got, err)
		}
	}

	iso := rawDisk(1 << 20) // a hybrid one, with an MBR
	copy(iso[0x8001:], "CD001")
	tests := map[string]struct {
		data   []byte
		reason Reason
		words  string
	}{
		"no signature":    {make([]byte, 4096), ReasonUnsupported, "partition table"},
		"too short":       {rawDisk(511), ReasonUnsupported, "partition table"},
		"part of sector":  {rawDisk(1<<20 + 1), ReasonTruncated, "sectors"},
		"GPT, cut":        {gpt(2048), ReasonTruncated, "partition table ends"},
		"GPT, absurd":     {gpt(1<<64 - 1), ReasonTruncated, "partition table ends"},
		"gzip":            {[]byte("\x1f\x8b\x08\x00rest"), ReasonUnsupported, "gzip"},
		"xz":              {[]byte("\xfd7zXZ\x00rest"), ReasonUnsupported, "xz"},
		"zstd":            {[]byte("\x28\xb5\x2f\xfdrest"), ReasonUnsupported, "zstd"},
		"bzip2":           {[]byte("BZh91AY"), ReasonUnsupported, "bzip2"},
		"zip":             {[]byte("PK\x03\x04rest"), ReasonUnsupported, "zip"},
		"tar":             {append(make([]byte, 257), "ustar\x0000"...), ReasonUnsupported, "tar"},
		"ISO":             {iso, ReasonUnsupported, "ISO 9660"},
		"web page":        {[]byte("\n <!DOCTYPE html><html>"), ReasonUnsupported, "a web page"},
		"XML error":       {[]byte("<?xml version=\"1.0\"?><Error>"), ReasonUnsupported, "a web page"},
		"text":            {[]byte("not found"), ReasonUnsupported, "neither"},
		"nothing":         {nil, ReasonUnsupported, "neither"},
		"cow with an MBR": {append([]byte("OOOM\x00"), rawDisk(1 << 20)[5:]...), ReasonUnsupported, "COW"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := inspectWhole(test.data)
			expectReason(t, err, test.reason, "spec.image.url", test.words)
		})
	}
}
