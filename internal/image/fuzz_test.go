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
	"encoding/binary"
	"errors"
	"io"
	"testing"
)

// FuzzInspect feeds the parser of headers. Whatever it accepts stands by itself, in a format and of a size that is served.
func FuzzInspect(f *testing.F) {
	f.Add(rawDisk(512), int64(512))
	for _, image := range hostileQCOW2() {
		f.Add(image.file[:min(len(image.file), 1<<12)], int64(len(image.file)))
	}
	for _, version := range []uint32{2, 3} {
		f.Add(forgeQCOW2(version, 9, 1<<20), int64(1<<20))
	}
	f.Fuzz(func(t *testing.T, head []byte, length int64) {
		head = head[:min(len(head), headLength)]
		length = max(length, int64(len(head)))
		got, err := inspect(head)
		if err == nil {
			got, err = got.complete(length, head[max(0, len(head)-tailLength):])
		}
		if err == nil {
			err = got.fits(maxVirtualSize)
		}
		if err != nil {
			var failure *Error
			if !errors.As(err, &failure) || failure.Reason == "" || failure.Message == "" {
				t.Errorf("the error %v has no reason", err)
			}
			return
		}
		if got.virtualSize <= 0 || got.virtualSize > maxVirtualSize {
			t.Errorf("a disk of %d bytes", got.virtualSize)
		}
		switch got.format {
		case FormatRaw:
			if bytes.HasPrefix(head, qcow2Magic) || got.virtualSize != length {
				t.Errorf("raw: %+v of %d bytes", got, length)
			}
		case FormatQCOW2:
			expectSelfContained(t, head, got)
			for _, table := range got.qcow2.tables() {
				if table.offset == 0 || table.offset+table.bytes > uint64(length) || table.bytes == 0 {
					t.Errorf("%+v in a file of %d bytes", table, length)
				}
			}
		default:
			t.Errorf("the format is %q", got.format)
		}
	})
}

// expectSelfContained checks by itself that a qcow2 header names no other file.
func expectSelfContained(t *testing.T, head []byte, got header) {
	t.Helper()
	if binary.BigEndian.Uint64(head[8:]) != 0 || binary.BigEndian.Uint32(head[16:]) != 0 {
		t.Error("it has a backing file")
	}
	if binary.BigEndian.Uint32(head[32:]) != 0 {
		t.Error("it is encrypted")
	}
	if uint64(got.virtualSize) != binary.BigEndian.Uint64(head[24:]) {
		t.Errorf("its size is %d", got.virtualSize)
	}
	if binary.BigEndian.Uint32(head[4:]) == 3 && binary.BigEndian.Uint64(head[72:])&(featureExternalData|featureDirty|featureCorrupt) != 0 {
		t.Error("its data is elsewhere, or it is dirty")
	}
}

// FuzzTables feeds the parser of tables with files that have a good header, of clusters of 512 bytes so that they are small.
func FuzzTables(f *testing.F) {
	good := forgeQCOW2(3, 9, 1<<20)
	f.Add(good[3*512:])
	f.Add(good[3*512 : 4*512])
	f.Add(bytes.Repeat([]byte{0xff}, 2048))
	f.Fuzz(func(t *testing.T, rest []byte) {
		file := append(bytes.Clone(good[:3*512]), rest...)
		found, err := inspectWhole(file)
		if err != nil {
			return
		}
		read := 0
		err = found.checkTables(int64(len(file)), func(offset, n int64) ([]byte, error) {
			if offset < 0 || n <= 0 || offset > int64(len(file)) || n > window+maxL1Bytes {
				t.Fatalf("it reads %d bytes at %d", n, offset)
			}
			data := file[offset:min(offset+n, int64(len(file)))]
			read += len(data)
			return data, nil
		})
		var failure *Error
		if err != nil && !errors.As(err, &failure) {
			t.Errorf("the error %v has no reason", err)
		}
		if read > 2*len(file)+window {
			t.Errorf("it read %d bytes of %d", read, len(file))
		}
	})
}

// FuzzContent feeds the decompressors. They end, within the limit, and say why.
func FuzzContent(f *testing.F) {
	disk := rawDisk(8192)
	f.Add(disk)
	for _, pack := range packers {
		packed := pack.pack(f, disk)
		f.Add(packed)
		f.Add(packed[:len(packed)/2])
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		const limit = 1 << 20
		from, err := newContent(newVerifier(bytes.NewReader(file), "https://images.example.org/disk", digestOf(file), int64(len(file)), silent), limit)
		if err == nil {
			var n int64
			n, err = io.Copy(io.Discard, from)
			if n > limit {
				t.Errorf("%d bytes came out", n)
			}
			if (err == nil) != from.complete {
				t.Errorf("complete is %t with error %v", from.complete, err)
			}
			_ = from.Close()
		}
		var failure *Error
		if err != nil && !errors.As(err, &failure) {
			t.Errorf("the error %v has no reason", err)
		}
	})
}
