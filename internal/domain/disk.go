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
	"k8s.io/utils/ptr"
	"libvirt.org/go/libvirtxml"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
)

// Disk is a data disk and where it is.
type Disk struct {
	Spec infrav1.DataDisk
	// Path of the volume on the host.
	Path string
}

const (
	// sharedIOThread serves the root disk and all disks that have no thread of their own.
	sharedIOThread = 1
	// seedController is that of the CD-ROM with the bootstrap data. It has no iothread, which CD-ROMs don't get along with.
	seedController = 0
)

// Serial is the serial number of a data disk.
func Serial(disk infrav1.DataDisk) string {
	if disk.Serial == "" {
		return disk.Name
	}
	return disk.Serial
}

// Retained tells whether a data disk outlives its machine.
func Retained(disk infrav1.DataDisk) bool {
	return disk.ReclaimPolicy == infrav1.DiskReclaimPolicyRetain
}

// attachment is how the data disks of a machine are attached.
type attachment struct {
	disks []libvirtxml.DomainDisk
	// controllers beside that of the seed.
	controllers []libvirtxml.DomainController
	// ioThreads is the number of threads for all disks, that of the root disk included.
	ioThreads uint
}

// attach plans the data disks of a machine. A SCSI disk gets its thread from its controller, so the disks that share the
// thread share a controller, and each other has one.
func attach(disks []Disk) attachment {
	plan := attachment{ioThreads: sharedIOThread}
	var shared *uint
	virtio, scsi, units := 0, 0, uint(0)
	for _, disk := range disks {
		thread := uint(sharedIOThread)
		dedicated := disk.Spec.IOThread == infrav1.DiskIOThreadDedicated
		if dedicated {
			plan.ioThreads++
			thread = plan.ioThreads
		}
		rendered := libvirtxml.DomainDisk{
			Device: "disk",
			Driver: diskDriver(disk.Spec.Cache, disk.Spec.Discard),
			Source: fileSource(disk.Path),
			// The chain ends here, whatever the guest's disk says of itself.
			BackingStore: &libvirtxml.DomainDiskBackingStore{},
			Serial:       Serial(disk.Spec),
		}
		if disk.Spec.Bus != infrav1.DiskBusSCSI {
			virtio++
			rendered.Driver.IOThread = ptr.To(thread)
			rendered.Target = &libvirtxml.DomainDiskTarget{Dev: "vd" + letter(virtio), Bus: "virtio"}
			plan.disks = append(plan.disks, rendered)
			continue
		}
		controller, unit := shared, units
		if dedicated || shared == nil {
			controller = ptr.To(uint(len(plan.controllers) + seedController + 1))
			plan.controllers = append(plan.controllers, scsiController(*controller, thread))
		}
		if dedicated {
			unit = 0
		} else {
			shared, units = controller, units+1
		}
		scsi++
		rendered.Target = &libvirtxml.DomainDiskTarget{Dev: "sd" + letter(scsi), Bus: "scsi"}
		rendered.Address = &libvirtxml.DomainAddress{Drive: &libvirtxml.DomainAddressDrive{
			Controller: controller, Bus: ptr.To[uint](0), Target: ptr.To[uint](0), Unit: ptr.To(unit),
		}}
		plan.disks = append(plan.disks, rendered)
	}
	return plan
}

// letter names the nth disk of a bus: the first letter is taken by the root disk or the seed.
func letter(n int) string {
	return string(rune('a' + n))
}

func scsiController(index, ioThread uint) libvirtxml.DomainController {
	return libvirtxml.DomainController{
		Type: "scsi", Index: ptr.To(index), Model: "virtio-scsi", Driver: &libvirtxml.DomainControllerDriver{IOThread: ioThread},
	}
}

// diskDriver is how the hypervisor reads and writes a disk. Asynchronous I/O of the kernel goes past the page cache only.
func diskDriver(cache infrav1.DiskCache, discard infrav1.DiskDiscard) *libvirtxml.DomainDiskDriver {
	driver := &libvirtxml.DomainDiskDriver{Name: "qemu", Type: "qcow2", Cache: "none", IO: "native", Discard: "unmap"}
	switch cache {
	case infrav1.DiskCacheWriteThrough:
		driver.Cache, driver.IO = "writethrough", "threads"
	case infrav1.DiskCacheWriteBack:
		driver.Cache, driver.IO = "writeback", "threads"
	case infrav1.DiskCacheUnsafe:
		driver.Cache, driver.IO = "unsafe", "threads"
	case infrav1.DiskCacheNone:
	}
	if discard == infrav1.DiskDiscardIgnore {
		driver.Discard = "ignore"
	}
	return driver
}
