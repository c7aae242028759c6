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

package bootstrap

import (
	"encoding/binary"
	"strings"
)

// The seed is written here and not by a library: the Go libraries for ISO 9660 stage every file, join tokens and
// keys included, in a temporary directory and stamp the current time into the image. A flat directory needs little.
//
// The layout, in sectors: 0 to 15 system area, 16 primary volume descriptor, 17 terminator, 18 and 19 path tables
// (little and big endian), 20 root directory, 21 and up the files. Rock Ridge entries carry the exact names.
const (
	sectorSize = 2048

	descriptorSector = 16
	terminatorSector = 17
	pathTableLSector = 18
	pathTableMSector = 19
	rootSector       = 20
	firstFileSector  = 21

	pathTableSize = 10 // one record: the root

	// Modes as POSIX has them: type bits and permissions. Only root may read the files: they hold secrets.
	modeDirectory = 0o040500
	modeFile      = 0o100400
)

// recordingTime is a fixed date, 1 January 1970, so that images are reproducible.
var recordingTime = []byte{70, 1, 1, 0, 0, 0, 0}

// isoFile is a file in the root directory. Its name has at most 29 characters.
type isoFile struct {
	name string
	data []byte
}

// renderISO writes files, sorted by name, into the root directory of an ISO 9660 image with the given label.
func renderISO(label string, files []isoFile) []byte {
	root := append(
		directoryRecord("\x00", rootSector, sectorSize, true, rockRidgeRoot()),
		directoryRecord("\x01", rootSector, sectorSize, true, posixAttributes(modeDirectory, 2))...)

	sectors := uint32(firstFileSector)
	for _, file := range files {
		size := uint32(len(file.data))
		// Readers without Rock Ridge see this name; Linux turns it into lower case and drops ".;1".
		identifier := strings.ToUpper(file.name) + ".;1"
		systemUse := append(posixAttributes(modeFile, 1), alternateName(file.name)...)
		root = append(root, directoryRecord(identifier, sectors, size, false, systemUse)...)
		sectors += (size + sectorSize - 1) / sectorSize
	}

	image := make([]byte, int(sectors)*sectorSize)
	at := func(sector uint32) []byte { return image[int(sector)*sectorSize:] }
	copy(at(descriptorSector), primaryDescriptor(label, sectors))
	copy(at(terminatorSector), "\xffCD001\x01")
	copy(at(pathTableLSector), pathTable(binary.LittleEndian))
	copy(at(pathTableMSector), pathTable(binary.BigEndian))
	copy(at(rootSector), root)
	next := uint32(firstFileSector)
	for _, file := range files {
		copy(at(next), file.data)
		next += (uint32(len(file.data)) + sectorSize - 1) / sectorSize
	}
	return image
}

// primaryDescriptor is the primary volume descriptor (ECMA-119, 8.4).
func primaryDescriptor(label string, sectors uint32) []byte {
	d := make([]byte, sectorSize)
	copy(d, "\x01CD001\x01")
	text := func(from, to int, value string) {
		copy(d[from:to], value+strings.Repeat(" ", to-from))
	}
	text(8, 40, "")
	text(40, 72, label)
	putBoth32(d[80:], sectors)
	putBoth16(d[120:], 1) // volumes in the set
	putBoth16(d[124:], 1) // number of this volume
	putBoth16(d[128:], sectorSize)
	putBoth32(d[132:], pathTableSize)
	binary.LittleEndian.PutUint32(d[140:], pathTableLSector)
	binary.BigEndian.PutUint32(d[148:], pathTableMSector)
	copy(d[156:190], directoryRecord("\x00", rootSector, sectorSize, true, nil))
	text(190, 813, "") // volume set, publisher, preparer, application and file identifiers
	for from := 813; from < 881; from += 17 {
		copy(d[from:], "0000000000000000\x00") // a time that is not specified
	}
	d[881] = 1 // structure version
	return d
}

// pathTable is the path table with its one record, the root (ECMA-119, 9.4).
func pathTable(order binary.AppendByteOrder) []byte {
	record := []byte{1, 0}
	record = order.AppendUint32(record, rootSector)
	record = order.AppendUint16(record, 1)
	return append(record, 0, 0)
}

// directoryRecord is one entry of a directory (ECMA-119, 9.1).
func directoryRecord(identifier string, sector, size uint32, directory bool, systemUse []byte) []byte {
	const fixed = 33
	length := fixed + len(identifier)
	length += length % 2
	r := make([]byte, length, length+len(systemUse)+1)
	r = append(r, systemUse...)
	if len(r)%2 == 1 {
		r = append(r, 0)
	}
	r[0] = byte(len(r))
	putBoth32(r[2:], sector)
	putBoth32(r[10:], size)
	copy(r[18:], recordingTime)
	if directory {
		r[25] = 2
	}
	putBoth16(r[28:], 1)
	r[32] = byte(len(identifier))
	copy(r[fixed:], identifier)
	return r
}

// rockRidgeRoot is the system use area of the root's own record, which announces Rock Ridge (SUSP 5.3 and 5.5).
func rockRidgeRoot() []byte {
	const (
		id          = "RRIP_1991A"
		description = "THE ROCK RIDGE INTERCHANGE PROTOCOL PROVIDES SUPPORT FOR POSIX FILE SYSTEM SEMANTICS"
	)
	area := []byte{'S', 'P', 7, 1, 0xbe, 0xef, 0}
	area = append(area, posixAttributes(modeDirectory, 2)...)
	area = append(area, 'E', 'R', byte(8+len(id)+len(description)), 1, byte(len(id)), byte(len(description)), 0, 1)
	return append(area, id+description...)
}

// posixAttributes is the Rock Ridge entry PX: mode, links, and root as user and group.
func posixAttributes(mode, links uint32) []byte {
	px := make([]byte, 36)
	copy(px, "PX\x24\x01")
	putBoth32(px[4:], mode)
	putBoth32(px[12:], links)
	return px
}

// alternateName is the Rock Ridge entry NM: the file's exact name.
func alternateName(name string) []byte {
	return append([]byte{'N', 'M', byte(5 + len(name)), 1, 0}, name...)
}

func putBoth32(b []byte, v uint32) {
	binary.LittleEndian.PutUint32(b, v)
	binary.BigEndian.PutUint32(b[4:], v)
}

func putBoth16(b []byte, v uint16) {
	binary.LittleEndian.PutUint16(b, v)
	binary.BigEndian.PutUint16(b[2:], v)
}
