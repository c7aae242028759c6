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
	"cmp"
	"encoding/binary"
	"slices"
)

// readRange reads n bytes of an image file from an offset. Fewer come only at the end of the file.
type readRange func(offset, n int64) ([]byte, error)

// window is how much of a file is read at once while its tables are looked at, if a table isn't larger.
const window = 1 << 20

// The bits of entries in L1 and L2 tables.
const (
	offsetMask     = 1<<56 - 1<<9
	entryCopied    = 1 << 63
	entryPacked    = 1 << 62
	entryAllZeroes = 1
	l1Reserved     = ^uint64(offsetMask | entryCopied)
	l2Reserved     = ^uint64(offsetMask | entryCopied | entryPacked | entryAllZeroes)
)

// l2Table is an L2 table, which tells where index-th part of the disk is.
type l2Table struct {
	offset, index uint64
}

// checkTables refuses a qcow2 image whose tables point out of the file, as those of one do that was cut off before its
// checksum was made. The header has been checked. It reads the L1 table and each L2 table once; the error is read's, or an
// *Error.
func (h header) checkTables(length int64, read readRange) error {
	l := h.qcow2
	l1, err := read(int64(l.l1.offset), int64(l.l1.bytes))
	if err != nil {
		return err
	}
	tables, err := h.l2Tables(l1, uint64(length))
	if err != nil {
		return err
	}
	for len(tables) > 0 {
		// Those that lie close together are read together.
		first := tables[0].offset
		count := 1
		for count < len(tables) && tables[count].offset+l.cluster-first <= window {
			count++
		}
		from := tables[:count]
		tables = tables[count:]
		data, err := read(int64(first), int64(from[count-1].offset+l.cluster-first))
		if err != nil {
			return err
		}
		for _, t := range from {
			at := t.offset - first
			if at+l.cluster > uint64(len(data)) {
				return truncated("an L2 table", t.offset+l.cluster, length)
			}
			if err := h.checkL2(data[at:at+l.cluster], t.index, uint64(length)); err != nil {
				return err
			}
		}
	}
	return nil
}

// l2Tables are the tables that an L1 table names for the disk, in the order in which they lie in the file.
func (h header) l2Tables(l1 []byte, length uint64) ([]l2Table, error) {
	l := h.qcow2
	if uint64(len(l1)) < l.l1.bytes {
		return nil, truncated(l.l1.what, l.l1.offset+l.l1.bytes, int64(length))
	}
	covered := l.cluster * (l.cluster / l.l2Entry)
	needed := (uint64(h.virtualSize) + covered - 1) / covered
	var tables []l2Table
	for index := range needed {
		entry := binary.BigEndian.Uint64(l1[index*8:])
		offset := entry & offsetMask
		switch {
		case entry&l1Reserved != 0 || offset%l.cluster != 0:
			return nil, nonsense("entry %d of its L1 table is %#x", index, entry)
		case offset == 0:
			continue
		case offset+l.cluster > length:
			return nil, truncated("an L2 table", offset+l.cluster, int64(length))
		}
		tables = append(tables, l2Table{offset, index})
	}
	slices.SortFunc(tables, func(a, b l2Table) int { return cmp.Compare(a.offset, b.offset) })
	for k := 1; k < len(tables); k++ {
		// Reading one table again and again would take forever.
		if tables[k].offset == tables[k-1].offset {
			return nil, nonsense("its L1 table names the table at byte %d twice", tables[k].offset)
		}
	}
	return tables, nil
}

// checkL2 checks the L2 table of the index-th part of the disk.
func (h header) checkL2(l2 []byte, index, length uint64) error {
	l := h.qcow2
	perTable := l.cluster / l.l2Entry
	for k := range perTable {
		guest := (index*perTable + k) * l.cluster
		if guest >= uint64(h.virtualSize) {
			return nil
		}
		entry := binary.BigEndian.Uint64(l2[k*l.l2Entry:])
		if entry&entryPacked != 0 {
			if end := l.packedEnd(entry); end > length {
				return truncated("a compressed cluster", end, int64(length))
			}
			continue
		}
		offset := entry & offsetMask
		if entry&l2Reserved != 0 || offset%l.cluster != 0 {
			return nonsense("entry %d of an L2 table is %#x", k, entry)
		}
		// Of the last cluster, a part may be missing that is beyond the disk's end.
		if end := offset + min(l.cluster, uint64(h.virtualSize)-guest); offset != 0 && end > length {
			return truncated("a cluster", end, int64(length))
		}
	}
	return nil
}

// packedEnd is where in the file the last sector of a compressed cluster begins, plus a byte: the file may end in it.
func (l layout) packedEnd(entry uint64) uint64 {
	clusterBits := uint64(0)
	for size := l.cluster; size > 1; size >>= 1 {
		clusterBits++
	}
	offsetBits := 62 - (clusterBits - 8)
	start := entry & (1<<offsetBits - 1)
	more := (entry &^ entryPacked &^ entryCopied) >> offsetBits
	return start&^(rawSector-1) + more*rawSector + 1
}
