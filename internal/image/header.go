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
)

// headLength is how much of a file inspect wants to see, if the file is that long.
const headLength = 64 << 10

const rawSector = 512

// header is what the first bytes of a disk image say about it.
type header struct {
	format string
	// virtualSize is the size of the disk in bytes. That of a raw disk is the length of the file.
	virtualSize int64
	// sectors is where the partition table of a raw disk says that the disk ends.
	sectors uint64
	// qcow2 is what a qcow2 header says of the rest of the file.
	qcow2 layout
}

// inspect reads the first bytes of an image file, headLength of them or all that it has, and refuses what must not become
// the backing file of a machine's disk. An image is input from outside: nothing in it is believed. What can be told only
// from the length of the file is up to header.complete.
func inspect(head []byte) (header, error) {
	if bytes.HasPrefix(head, qcow2Magic) {
		return inspectQCOW2(head)
	}
	if name, remedy := foreignFormat(head); name != "" {
		return header{}, fail(ReasonUnsupported, "the file at spec.image.url is %s, not a qcow2 or raw disk image: %s", name, remedy)
	}
	return inspectRaw(head)
}

// complete judges an image by its length and its last bytes, and returns its header with the size of the disk.
func (h header) complete(length int64, tail []byte) (header, error) {
	if name := foreignTail(tail); name != "" {
		return header{}, fail(ReasonUnsupported, "the file at spec.image.url is %s, not a qcow2 or raw disk image: %s", name, convertRemedy)
	}
	if h.format == FormatQCOW2 {
		return h, h.qcow2.check(length)
	}
	if length%rawSector != 0 {
		return header{}, fail(ReasonTruncated, "the raw disk at spec.image.url has %d bytes, which is no whole number of sectors: publish the whole file", length)
	}
	if h.sectors > uint64(length)/rawSector {
		return header{}, fail(ReasonTruncated, "the raw disk at spec.image.url has %d bytes, but its partition table ends at sector %d: publish the whole file", length, h.sectors-1)
	}
	h.virtualSize = length
	return h, nil
}

// fits refuses a disk that is larger than allowed.
func (h header) fits(most int64) error {
	if h.virtualSize > most {
		return tooLargeDisk(uint64(h.virtualSize), most)
	}
	return nil
}

// inspectRaw accepts a disk with an MBR or a GPT.
func inspectRaw(head []byte) (header, error) {
	if len(head) < rawSector || head[510] != 0x55 || head[511] != 0xaa {
		return header{}, fail(ReasonUnsupported, "the file at spec.image.url is neither a qcow2 image nor a raw disk with a partition table: name a disk image there")
	}
	sectors := endOfMBR(head)
	if gpt := head[rawSector:]; len(gpt) >= 40 && bytes.HasPrefix(gpt, []byte("EFI PART")) {
		backup := binary.LittleEndian.Uint64(gpt[32:])
		if backup > maxVirtualSize/rawSector {
			return header{}, fail(ReasonTruncated, "the raw disk at spec.image.url can't be whole: its partition table ends at sector %d, which is more than any disk that is served has; publish it anew", backup)
		}
		sectors = max(sectors, backup+1)
	}
	return header{format: FormatRaw, sectors: sectors}, nil
}

// endOfMBR is the sector after the last partition in an MBR. What follows the code of a boot sector may be no partition
// table at all, and a GPT's protective partition is often longer than the disk.
func endOfMBR(head []byte) uint64 {
	const table, entry, entries, protective = 446, 16, 4, 0xee
	end := uint64(0)
	for k := range entries {
		partition := head[table+k*entry:]
		if status := partition[0]; status&0x7f != 0 {
			return 0
		}
		if kind := partition[4]; kind == 0 || kind == protective {
			continue
		}
		start, sectors := binary.LittleEndian.Uint32(partition[8:]), binary.LittleEndian.Uint32(partition[12:])
		end = max(end, uint64(start)+uint64(sectors))
	}
	return end
}

// foreignTail names the format of a file that is told by its end.
func foreignTail(tail []byte) string {
	switch {
	case len(tail) < rawSector:
		return ""
	case bytes.HasPrefix(tail, []byte("conectix")):
		return "a VHD image"
	case bytes.HasPrefix(tail, []byte("koly")):
		return "a DMG image"
	}
	return ""
}

const (
	convertRemedy    = "convert it with qemu-img convert -O qcow2"
	decompressRemedy = "publish the disk image in it, as it is or compressed once by xz, zstd or gzip"
)

// foreign lists the formats that are not served by what stands at an offset. It holds at least every format that
// libvirt recognises, so that a file which passes as raw here is raw there too.
var foreign = []struct {
	offset       int
	magic        string
	name, remedy string
}{
	{0, "\x1f\x8b", "compressed with gzip", decompressRemedy},
	{0, "\xfd7zXZ\x00", "compressed with xz", decompressRemedy},
	{0, "\x28\xb5\x2f\xfd", "compressed with zstd", decompressRemedy},
	{0, "BZh", "compressed with bzip2", decompressRemedy},
	{0, "\x04\x22\x4d\x18", "compressed with lz4", decompressRemedy},
	{0, "LZIP", "compressed with lzip", decompressRemedy},
	{0, "PK\x03\x04", "a zip archive", decompressRemedy},
	{0, "7z\xbc\xaf\x27\x1c", "a 7z archive", decompressRemedy},
	{257, "ustar", "a tar archive", "publish the disk image in it by itself"},
	{0, "QFI\xfb", "a qcow image of an unknown version", convertRemedy},
	{0, "KDMV", "a VMDK image", convertRemedy},
	{0, "COWD", "a VMDK image", convertRemedy},
	{0, "# Disk DescriptorFile", "a VMDK descriptor", convertRemedy},
	{0, "vhdxfile", "a VHDX image", convertRemedy},
	{0, "conectix", "a VHD image", convertRemedy},
	{0x40, "\x7f\x10\xda\xbe", "a VDI image", convertRemedy},
	{0, "QED\x00", "a QED image", convertRemedy},
	{0, "OOOM\x00", "a COW image", convertRemedy},
	{0, "WithoutFreeSpace", "a Parallels image", convertRemedy},
	{0, "WithouFreSpacExt", "a Parallels image", convertRemedy},
	{0, "Bochs Virtual HD Image", "a Bochs image", convertRemedy},
	{0, "#!/bin/sh\n#V2.0 Format", "a cloop image", convertRemedy},
	{0, "LUKS\xba\xbe", "encrypted with LUKS", "encrypted images are not served, publish it decrypted"},
	{0x8001, "CD001", "an ISO 9660 image", "name an installed disk image, not an installation medium"},
}

// foreignFormat names the format of a file that is not served and what to do about it.
func foreignFormat(head []byte) (name, remedy string) {
	for _, f := range foreign {
		if len(head) >= f.offset+len(f.magic) && string(head[f.offset:f.offset+len(f.magic)]) == f.magic {
			return f.name, f.remedy
		}
	}
	text := bytes.ToLower(bytes.TrimLeft(head[:min(len(head), rawSector)], "\xef\xbb\xbf \t\r\n"))
	for _, start := range []string{"<!doctype", "<html", "<?xml", "<head", "<error"} {
		if bytes.HasPrefix(text, []byte(start)) {
			return "a web page", "the server answers with a page instead of the image, open the URL in a browser to see it"
		}
	}
	return "", ""
}
