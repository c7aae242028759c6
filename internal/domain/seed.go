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

package domain

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"libvirt.org/go/libvirtxml"
)

// ignitionConfig is the item of QEMU's firmware configuration in which Ignition looks for its config.
const ignitionConfig = "opt/com.coreos/config"

// Drive is where a CD-ROM drive is in a guest.
type Drive struct {
	Device, Bus string
}

// Seed is how a domain gets at the volume with its bootstrap data.
type Seed struct {
	// Drive has it as its medium; nil when none has.
	Drive *Drive
	// Firmware tells that it is in the firmware configuration.
	Firmware bool
}

// SeedOf tells how the domain of a definition gets at the volume with its bootstrap data. The zero Seed: it doesn't.
func SeedOf(definition, uuid string) (Seed, error) {
	var dom libvirtxml.Domain
	if err := dom.Unmarshal(definition); err != nil {
		return Seed{}, fmt.Errorf("parsing domain %s: %w", uuid, err)
	}
	var seed Seed
	if dom.Devices != nil {
		for _, disk := range dom.Devices.Disks {
			if disk.Device == "cdrom" && disk.Target != nil && disk.Source != nil && disk.Source.File != nil &&
				path.Base(disk.Source.File.File) == SeedVolumeName(uuid) {
				seed.Drive = &Drive{Device: disk.Target.Dev, Bus: disk.Target.Bus}
			}
		}
	}
	for _, info := range dom.SysInfo {
		if info.FWCfg == nil {
			continue
		}
		for _, item := range info.FWCfg.Entry {
			seed.Firmware = seed.Firmware || path.Base(item.File) == SeedVolumeName(uuid)
		}
	}
	return seed, nil
}

// renderFirmwareSeed hands the guest its Ignition config. The file is named, and not its content written out, because
// everybody who may look at the host reads XML.
func renderFirmwareSeed(d Definition) []libvirtxml.DomainSysInfo {
	return []libvirtxml.DomainSysInfo{{FWCfg: &libvirtxml.DomainSysInfoFWCfg{
		Entry: []libvirtxml.DomainSysInfoEntry{{Name: ignitionConfig, File: d.SeedPath}},
	}}}
}

// WithoutFirmwareSeed is a definition without the firmware configuration, and otherwise the same to the letter: libvirt
// may know elements that nobody here does.
func WithoutFirmwareSeed(definition string) (string, error) {
	decoder := xml.NewDecoder(strings.NewReader(definition))
	var kept strings.Builder
	var from, depth int
	for {
		before := int(decoder.InputOffset())
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return "", fmt.Errorf("parsing the domain: %w", err)
		}
		switch element := token.(type) {
		case xml.StartElement:
			if depth == 1 && element.Name.Local == "sysinfo" && attribute(element, "type") == "fwcfg" {
				if err := decoder.Skip(); err != nil {
					return "", fmt.Errorf("parsing the domain: %w", err)
				}
				kept.WriteString(definition[from:before])
				from = int(decoder.InputOffset())
				continue
			}
			depth++
		case xml.EndElement:
			depth--
		}
	}
	kept.WriteString(definition[from:])
	return kept.String(), nil
}

func attribute(element xml.StartElement, name string) string {
	for _, a := range element.Attr {
		if a.Name.Local == name {
			return a.Value
		}
	}
	return ""
}
