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
	"fmt"

	"libvirt.org/go/libvirtxml"
)

// RenderRootVolume is the XML of a volume for a root disk: a qcow2 overlay of capacity bytes over an image.
func RenderRootVolume(uuid string, capacity int64, backingPath, backingFormat string) (string, error) {
	return render(libvirtxml.StorageVolume{
		Name:     RootVolumeName(uuid),
		Capacity: bytes(capacity),
		// Blocks are allocated as the guest writes them.
		Allocation: bytes(0),
		Target: &libvirtxml.StorageVolumeTarget{
			Format:      &libvirtxml.StorageVolumeTargetFormat{Type: "qcow2"},
			Permissions: private(),
		},
		BackingStore: &libvirtxml.StorageVolumeBackingStore{
			Path:   backingPath,
			Format: &libvirtxml.StorageVolumeTargetFormat{Type: backingFormat},
		},
	})
}

// RenderDataVolume is the XML of a volume for a data disk: an empty qcow2 image of capacity bytes.
func RenderDataVolume(name string, capacity int64) (string, error) {
	return render(libvirtxml.StorageVolume{
		Name:       name,
		Capacity:   bytes(capacity),
		Allocation: bytes(0),
		Target: &libvirtxml.StorageVolumeTarget{
			Format:      &libvirtxml.StorageVolumeTargetFormat{Type: "qcow2"},
			Permissions: private(),
			// libvirt's default of old can't give back what the guest discards in part.
			Compat: "1.1",
		},
	})
}

// RenderSeedVolume is the XML of a volume for bootstrap data of size bytes.
func RenderSeedVolume(uuid string, size int64) (string, error) {
	return render(libvirtxml.StorageVolume{
		Name:       SeedVolumeName(uuid),
		Capacity:   bytes(size),
		Allocation: bytes(size),
		Target: &libvirtxml.StorageVolumeTarget{
			Format:      &libvirtxml.StorageVolumeTargetFormat{Type: "raw"},
			Permissions: private(),
		},
	})
}

// private keeps a volume from everybody but root and, while the domain runs, its hypervisor.
func private() *libvirtxml.StorageVolumeTargetPermissions {
	return &libvirtxml.StorageVolumeTargetPermissions{Mode: "0600"}
}

func bytes(n int64) *libvirtxml.StorageVolumeSize {
	return &libvirtxml.StorageVolumeSize{Unit: "bytes", Value: uint64(n)}
}

func render(volume libvirtxml.StorageVolume) (string, error) {
	document, err := volume.Marshal()
	if err != nil {
		return "", fmt.Errorf("rendering volume %s: %w", volume.Name, err)
	}
	return document, nil
}
