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

// Package domain decides what a machine is in libvirt: names, the XML of the domain and of its volumes. It is pure: it
// neither reads nor changes anything.
package domain

import (
	"crypto/sha256"
	"fmt"
	"regexp"
	"strings"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
)

const maxNameLength = 128

// Name of a machine's domain, as virsh shows it. A namespace has no dot, so two machines of a management cluster never
// share a name. Long names are cut and end in a hash of the whole.
func Name(namespace, machine string) string {
	name := namespace + "." + machine
	if len(name) <= maxNameLength {
		return name
	}
	sum := sha256.Sum256([]byte(name))
	return fmt.Sprintf("%s-%x", name[:maxNameLength-17], sum[:8])
}

// RootVolumeName is the name of the volume with a machine's root disk.
func RootVolumeName(uuid string) string {
	return "capl-" + uuid + "-root.qcow2"
}

// DataVolumeName is the name of the volume with a data disk that goes with its machine.
func DataVolumeName(uuid, disk string) string {
	return "capl-" + uuid + "-data-" + disk + ".qcow2"
}

// SeedVolumeName is the name of the volume with a machine's bootstrap data, be it a NoCloud image or an Ignition config:
// it must be found again by those who don't know which.
func SeedVolumeName(uuid string) string {
	return "capl-" + uuid + "-seed.iso"
}

var volumeName = regexp.MustCompile(`^capl-([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})-(?:root\.qcow2|(data)-[a-z0-9](?:[-a-z0-9]{0,18}[a-z0-9])?\.qcow2|seed\.iso)$`)

// VolumeUUID is the UUID in the name of a volume that is named like a disk or the bootstrap data of a machine. False when
// it isn't.
func VolumeUUID(volume string) (string, bool) {
	found := volumeName.FindStringSubmatch(volume)
	if found == nil {
		return "", false
	}
	return found[1], true
}

// IsDataVolume tells whether a volume is named like a data disk that goes with its machine.
func IsDataVolume(volume string) bool {
	found := volumeName.FindStringSubmatch(volume)
	return len(found) > 2 && found[2] != ""
}

// ProviderID of the machine whose domain has the UUID.
func ProviderID(uuid string) string {
	return infrav1.ProviderIDPrefix + uuid
}

// UUID of the domain of the machine that has the providerID. Empty when the providerID isn't one of ours.
func UUID(providerID string) string {
	uuid, ok := strings.CutPrefix(providerID, infrav1.ProviderIDPrefix)
	if !ok {
		return ""
	}
	return uuid
}
