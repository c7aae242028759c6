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
	"os/exec"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// forgeQCOW2 writes a qcow2 image by hand, for tests to break: its clusters are the header, the refcount table, a refcount
// block, the L1 table, an L2 table, and one with data, of which the disk begins.
func forgeQCOW2(version uint32, clusterBits uint, size uint64) []byte {
	cluster := 1 << clusterBits
	perTable := uint64(cluster) / 8
	l1Entries := (size + uint64(cluster)*perTable - 1) / (uint64(cluster) * perTable)
	file := make([]byte, 6*cluster)
	put32, put64 := binary.BigEndian.PutUint32, binary.BigEndian.PutUint64
	copy(file, qcow2Magic)
	put32(file[4:], version)
	put32(file[20:], uint32(clusterBits))
	put64(file[24:], size)
	put32(file[36:], uint32(l1Entries))
	put64(file[40:], uint64(3*cluster))
	put64(file[48:], uint64(cluster))
	put32(file[56:], 1)
	if version == 3 {
		put32(file[96:], 4)
		put32(file[100:], v3HeaderLength)
	}
	put64(file[cluster:], uint64(2*cluster))
	for k := range 6 {
		binary.BigEndian.PutUint16(file[2*cluster+2*k:], 1)
	}
	put64(file[3*cluster:], uint64(4*cluster)|entryCopied)
	put64(file[4*cluster:], uint64(5*cluster)|entryCopied)
	copy(file[5*cluster:], bytes.Repeat([]byte("data"), cluster/4))
	return file
}

// A change of a forged image.
type forge func([]byte) []byte

func u32(offset int, value uint32) forge {
	return func(b []byte) []byte { binary.BigEndian.PutUint32(b[offset:], value); return b }
}

func u64(offset int, value uint64) forge {
	return func(b []byte) []byte { binary.BigEndian.PutUint64(b[offset:], value); return b }
}

func text(offset int, value string) forge {
	return func(b []byte) []byte { copy(b[offset:], value); return b }
}

func cut(length int) forge { return func(b []byte) []byte { return b[:length] } }

func both(changes ...forge) forge {
	return func(b []byte) []byte {
		for _, change := range changes {
			b = change(b)
		}
		return b
	}
}

// packers compress as publishers do.
var packers = []struct {
	name string
	pack func(t testing.TB, data []byte) []byte
}{
	{"gzip", packGzip}, {"xz", packXZ}, {"zstd", packZstd},
}

func packGzip(t testing.TB, data []byte) []byte {
	t.Helper()
	var packed bytes.Buffer
	writer := gzip.NewWriter(&packed)
	if _, err := writer.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := writer.Close(); err != nil {
		t.Fatal(err)
	}
	return packed.Bytes()
}

func packZstd(t testing.TB, data []byte) []byte {
	t.Helper()
	encoder, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer encoder.Close()
	return encoder.EncodeAll(data, nil)
}

func packXZ(t testing.TB, data []byte) []byte {
	t.Helper()
	command := exec.CommandContext(t.Context(), "xz", "-1", "-c")
	command.Stdin = bytes.NewReader(data)
	packed, err := command.Output()
	if err != nil {
		t.Fatalf("xz: %v", err)
	}
	return packed
}
