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
)

// What a qcow2 header may say at most. QEMU has the same limits or wider ones.
const (
	maxVirtualSize = 2 << 40

	minClusterBits, maxClusterBits = 9, 21
	maxL1Bytes                     = 32 << 20
	maxRefcountTableBytes          = 8 << 20
	maxRefcountOrder               = 6
	maxSnapshots                   = 65536

	v2HeaderLength = 72
	v3HeaderLength = 104
)

// The incompatible features of qcow2 version 3.
const (
	featureDirty = 1 << iota
	featureCorrupt
	featureExternalData
	featureCompressionType
	featureExtendedL2

	featuresServed = featureCompressionType | featureExtendedL2
)

// The header extensions that matter here.
const (
	extensionEnd          = 0
	extensionExternalData = 0x44415441
	extensionLUKS         = 0x0537be77
)

var qcow2Magic = []byte("QFI\xfb")

// inspectQCOW2 reads a qcow2 header, versions 2 and 3. Numbers in it are big endian. A head that is too short is the whole
// file.
func inspectQCOW2(head []byte) (header, error) {
	length := int64(len(head))
	if len(head) < v2HeaderLength {
		return header{}, truncated("its header", v2HeaderLength, length)
	}
	u32 := func(offset int) uint32 { return binary.BigEndian.Uint32(head[offset:]) }
	u64 := func(offset int) uint64 { return binary.BigEndian.Uint64(head[offset:]) }

	version := u32(4)
	if version != 2 && version != 3 {
		return header{}, fail(ReasonUnsupported, "the file at spec.image.url is a qcow image of version %d, not 2 or 3: %s", version, convertRemedy)
	}
	if u64(8) != 0 || u32(16) != 0 {
		return header{}, fail(ReasonHostileImage, "the qcow2 image at spec.image.url has a backing file, which would be looked up on the host: publish it flattened by qemu-img convert -O qcow2")
	}
	if u32(32) != 0 {
		return header{}, encrypted()
	}

	clusterBits := u32(20)
	if clusterBits < minClusterBits || clusterBits > maxClusterBits {
		return header{}, nonsense("its cluster size is 2^%d", clusterBits)
	}
	cluster := uint64(1) << clusterBits
	size := u64(24)
	if size == 0 {
		return header{}, fail(ReasonHostileImage, "the qcow2 image at spec.image.url is a disk of no size: publish an installed disk image")
	}
	if size > maxVirtualSize {
		return header{}, tooLargeDisk(size, maxVirtualSize)
	}

	headerLength, refcountOrder, features := uint64(v2HeaderLength), uint32(4), uint64(0)
	if version == 3 {
		if len(head) < v3HeaderLength {
			return header{}, truncated("its header", v3HeaderLength, length)
		}
		features, refcountOrder, headerLength = u64(72), u32(96), uint64(u32(100))
		if headerLength < v3HeaderLength || headerLength > cluster || headerLength%8 != 0 {
			return header{}, nonsense("its header claims a length of %d", headerLength)
		}
		if headerLength > uint64(len(head)) {
			return header{}, truncated("its header", headerLength, length)
		}
		if err := checkFeatures(features); err != nil {
			return header{}, err
		}
		if features&featureCompressionType != 0 && (headerLength <= v3HeaderLength || head[v3HeaderLength] > 1) {
			return header{}, fail(ReasonUnsupported, "the qcow2 image at spec.image.url compresses its clusters in an unknown way: %s", convertRemedy)
		}
	}
	if refcountOrder > maxRefcountOrder {
		return header{}, nonsense("its reference counts are 2^%d bits wide", refcountOrder)
	}
	if err := checkExtensions(head, headerLength, cluster); err != nil {
		return header{}, err
	}

	l1Entries, l1Offset := uint64(u32(36)), u64(40)
	entryBytes := uint64(8)
	if features&featureExtendedL2 != 0 {
		entryBytes = 16
	}
	coveredByEntry := cluster * (cluster / entryBytes)
	if needed := (size + coveredByEntry - 1) / coveredByEntry; l1Entries < needed || l1Entries*8 > maxL1Bytes {
		return header{}, nonsense("its L1 table has %d entries and the disk needs %d", l1Entries, needed)
	}
	refcountBytes, refcountOffset := uint64(u32(56))*cluster, u64(48)
	if refcountBytes == 0 || refcountBytes > maxRefcountTableBytes {
		return header{}, nonsense("its refcount table has %d bytes", refcountBytes)
	}
	snapshots, snapshotOffset := u32(60), u64(64)
	if snapshots > maxSnapshots {
		return header{}, nonsense("it claims %d snapshots", snapshots)
	}

	found := layout{
		cluster: cluster, l2Entry: entryBytes,
		l1:        table{"its L1 table", l1Offset, l1Entries * 8},
		refcounts: table{"its refcount table", refcountOffset, refcountBytes},
	}
	if snapshots > 0 {
		const smallestSnapshot = 40
		found.snapshots = table{"its snapshot table", snapshotOffset, uint64(snapshots) * smallestSnapshot}
	}
	for _, t := range found.tables() {
		if t.offset == 0 || t.offset%cluster != 0 || t.offset > 1<<62 {
			return header{}, nonsense("%s is said to begin at byte %d", t.what, t.offset)
		}
	}
	return header{format: FormatQCOW2, virtualSize: int64(size), qcow2: found}, nil
}

// layout is where a qcow2 header says that the parts of the file are.
type layout struct {
	// cluster is the size of a cluster and l2Entry that of an entry in an L2 table, in bytes.
	cluster, l2Entry uint64
	// snapshots is the zero table when there are none.
	l1, refcounts, snapshots table
}

func (l layout) tables() []table {
	tables := []table{l.l1, l.refcounts}
	if l.snapshots.bytes > 0 {
		tables = append(tables, l.snapshots)
	}
	return tables
}

// check refuses a file that ends before what its header points at, or in which two tables overlap.
func (l layout) check(length int64) error {
	for k, t := range l.tables() {
		if t.offset+t.bytes > uint64(length) {
			return truncated(t.what, t.offset+t.bytes, length)
		}
		for _, other := range l.tables()[:k] {
			if t.offset < other.offset+other.bytes && other.offset < t.offset+t.bytes {
				return nonsense("%s and %s are in the same place", other.what, t.what)
			}
		}
	}
	return nil
}

// table is a part of the file that the header points at.
type table struct {
	what          string
	offset, bytes uint64
}

func checkFeatures(features uint64) error {
	switch {
	case features&featureExternalData != 0:
		return externalData()
	case features&(featureDirty|featureCorrupt) != 0:
		return fail(ReasonUnsupported, "the qcow2 image at spec.image.url was not closed cleanly: repair it with qemu-img check -r all and publish it again")
	case features&^featuresServed != 0:
		return fail(ReasonUnsupported, "the qcow2 image at spec.image.url needs unknown features (%#x): %s", features&^featuresServed, convertRemedy)
	}
	return nil
}

// checkExtensions walks the header extensions, which end with a zero one or with the first cluster.
func checkExtensions(head []byte, offset, cluster uint64) error {
	end := min(cluster, uint64(len(head)))
	for offset+8 <= end {
		kind, size := binary.BigEndian.Uint32(head[offset:]), uint64(binary.BigEndian.Uint32(head[offset+4:]))
		switch kind {
		case extensionEnd:
			return nil
		case extensionExternalData:
			return externalData()
		case extensionLUKS:
			return encrypted()
		}
		offset += 8 + (size+7)/8*8
	}
	if offset == cluster {
		return nil
	}
	return nonsense("its header extensions have no end")
}

func truncated(what string, needed uint64, length int64) error {
	return fail(ReasonTruncated, "the qcow2 image at spec.image.url has %d bytes, but %s ends at byte %d: publish the whole file and set spec.image.checksum to its digest", length, what, needed)
}

func nonsense(format string, args ...any) error {
	return failWith(fail(ReasonHostileImage, format, args...), ReasonHostileImage, "the qcow2 image at spec.image.url has a broken header, publish it anew with qemu-img convert -O qcow2")
}

func encrypted() error {
	return fail(ReasonUnsupported, "the qcow2 image at spec.image.url is encrypted, which is not served: publish it decrypted")
}

func externalData() error {
	return fail(ReasonHostileImage, "the qcow2 image at spec.image.url keeps its data in another file, which would be looked up on the host: publish it flattened by qemu-img convert -O qcow2")
}

func tooLargeDisk(size uint64, most int64) error {
	return fail(ReasonTooLarge, "the image at spec.image.url is a disk of %d bytes, more than the %d that are served: publish a smaller disk, the machine's is grown to spec.rootDisk.size anyway", size, most)
}
