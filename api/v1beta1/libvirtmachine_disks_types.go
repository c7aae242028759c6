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

package v1beta1

import "k8s.io/apimachinery/pkg/api/resource"

// DataDisk is a disk beside the one that a machine boots from. It begins empty.
// +kubebuilder:validation:XValidation:rule="(has(self.serial) ? self.serial : self.name) != 'root'",message="root is the serial of the root disk: set another serial or name"
type DataDisk struct {
	// name of the disk, which no other disk of the machine has. A retained disk is found again by it.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=20
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",message="name must consist of lower-case letters, digits and dashes, and neither begin nor end with a dash, for example brick"
	Name string `json:"name,omitempty"`

	// size of the disk, 1Mi at least, for example 50Gi. A retained disk that is there already keeps the size it has.
	// +required
	// +kubebuilder:validation:Schemaless
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="isQuantity(self) && quantity(self).compareTo(quantity('1Mi')) >= 0",message="size must be a quantity of at least 1Mi, for example 50Gi"
	Size resource.Quantity `json:"size,omitempty,omitzero"`

	// pool is the storage pool that holds the disk: the diskPool or one of the extraDiskPools in spec.storage of the
	// LibvirtHost. The diskPool when unset.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9][A-Za-z0-9_.-]*$`
	Pool string `json:"pool,omitempty"`

	// serial is the serial number that the guest sees, at most 20 bytes. It finds the disk by it as
	// /dev/disk/by-id/virtio-<serial>, or scsi-0QEMU_QEMU_HARDDISK_<serial> with the bus SCSI. The name when unset.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=20
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9][A-Za-z0-9_.-]*$`
	Serial string `json:"serial,omitempty"`

	// bus is VirtIO (virtio-blk, the fastest) or SCSI (virtio-scsi, for guests that want SCSI commands). VirtIO when
	// unset.
	// +optional
	Bus DiskBus `json:"bus,omitempty"`

	// ioThread is Shared (the disk's I/O is done by the thread that serves the root disk) or Dedicated (by a thread of its
	// own, for a disk that is written to hard). Shared when unset.
	// +optional
	IOThread DiskIOThread `json:"ioThread,omitempty"`

	// cache is how writes of the guest reach the host's disk: see spec.rootDisk.cache. None when unset.
	// +optional
	Cache DiskCache `json:"cache,omitempty"`

	// discard is what becomes of blocks that the guest gives up: Unmap (the host's disk gets them back) or Ignore. Unmap
	// when unset.
	// +optional
	Discard DiskDiscard `json:"discard,omitempty"`

	// reclaimPolicy is what becomes of the disk when its machine goes: Delete, or Retain, which keeps it for the next
	// machine of the same set. Delete when unset.
	// +optional
	ReclaimPolicy DiskReclaimPolicy `json:"reclaimPolicy,omitempty"`
}

// DiskCache is how writes of a guest reach the host's disk.
// +kubebuilder:validation:Enum=None;WriteThrough;WriteBack;Unsafe
type DiskCache string

const (
	// DiskCacheNone bypasses the host's page cache and honours flushes.
	DiskCacheNone DiskCache = "None"

	// DiskCacheWriteThrough reads through the host's page cache and flushes each write.
	DiskCacheWriteThrough DiskCache = "WriteThrough"

	// DiskCacheWriteBack writes to the host's page cache and honours flushes.
	DiskCacheWriteBack DiskCache = "WriteBack"

	// DiskCacheUnsafe uses the host's page cache and ignores flushes.
	DiskCacheUnsafe DiskCache = "Unsafe"
)

// DiskBus is how a disk is attached.
// +kubebuilder:validation:Enum=VirtIO;SCSI
type DiskBus string

const (
	// DiskBusVirtIO is virtio-blk.
	DiskBusVirtIO DiskBus = "VirtIO"

	// DiskBusSCSI is virtio-scsi.
	DiskBusSCSI DiskBus = "SCSI"
)

// DiskIOThread is which thread of the hypervisor does a disk's I/O.
// +kubebuilder:validation:Enum=Shared;Dedicated
type DiskIOThread string

const (
	// DiskIOThreadShared is the thread that serves the root disk.
	DiskIOThreadShared DiskIOThread = "Shared"

	// DiskIOThreadDedicated is a thread of the disk's own.
	DiskIOThreadDedicated DiskIOThread = "Dedicated"
)

// DiskDiscard is what becomes of blocks that a guest gives up.
// +kubebuilder:validation:Enum=Unmap;Ignore
type DiskDiscard string

const (
	// DiskDiscardUnmap gives them back to the host's disk.
	DiskDiscardUnmap DiskDiscard = "Unmap"

	// DiskDiscardIgnore keeps them.
	DiskDiscardIgnore DiskDiscard = "Ignore"
)

// DiskReclaimPolicy is what becomes of a disk when its machine goes.
// +kubebuilder:validation:Enum=Delete;Retain
type DiskReclaimPolicy string

const (
	// DiskReclaimPolicyDelete deletes the disk with its machine.
	DiskReclaimPolicyDelete DiskReclaimPolicy = "Delete"

	// DiskReclaimPolicyRetain keeps the disk for the next machine of the same set. It outlives the cluster too.
	DiskReclaimPolicyRetain DiskReclaimPolicy = "Retain"
)

// MachineSlot is a place in a set of machines. The retained disks belong to it, and its host name.
type MachineSlot struct {
	// set is the kind and the name of what makes the machines: MachineDeployment/<name>, MachineSet/<name>,
	// ControlPlane/<name>, or Machine/<name> for a machine of no set.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=300
	Set string `json:"set,omitempty"`

	// number of the slot in its set, from 0. The host name of the machine is the name of the set, a dash and the number.
	// +required
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=99999
	Number *int32 `json:"number,omitempty"`
}
