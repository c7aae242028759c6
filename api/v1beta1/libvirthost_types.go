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

import (
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// HostFinalizer keeps a LibvirtHost until no LibvirtMachine and no cluster network is left on it: without the
// LibvirtHost nobody could reach them to remove them.
const HostFinalizer = "infrastructure.cluster.x-k8s.io/libvirthost"

const (
	// DefaultPool is what an unset spec.storage.imagePool and an unset spec.storage.diskPool mean.
	DefaultPool = "default"

	// DefaultSeedPool is what an unset spec.storage.seedPool means.
	DefaultSeedPool = "capi-seeds"
)

// LibvirtHostSpec says how one hypervisor is reached and what of it may be used.
type LibvirtHostSpec struct {
	// uri is the libvirt connection URI, for example qemu:///system, qemu+libssh2://root@203.0.113.11/system or
	// qemu+tls://kvm1.example.org/system. Of the parameters, socket and mode may be used, and proxy with SSH. All others
	// are refused, because they run programs, read files of the manager or turn off the verification of the peer.
	// Whoever may create a LibvirtHost may use any libvirt socket that was mounted into the manager.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	URI string `json:"uri,omitempty"`

	// credentialsRef names the Secret with the credentials of the connection. The Secret is in the namespace of the
	// LibvirtHost. Keys for SSH: ssh-privatekey and known_hosts. Keys for TLS: tls.crt, tls.key and ca.crt. Keys for
	// SASL: username and password. Not needed for a local socket.
	// +optional
	CredentialsRef CredentialsReference `json:"credentialsRef,omitempty,omitzero"`

	// failureDomain is the name of the failure domain of this host. Hosts may share one. The host's name when unset.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	FailureDomain string `json:"failureDomain,omitempty"`

	// storage names the storage pools in use.
	// +optional
	Storage HostStorage `json:"storage,omitempty,omitzero"`

	// images says what becomes of the images in the image pool.
	// +optional
	Images HostImages `json:"images,omitempty,omitzero"`

	// reserved is kept free for the host itself.
	// +optional
	Reserved HostReserved `json:"reserved,omitempty,omitzero"`

	// cpuOvercommitPercent is how many virtual CPUs machines may have for every hundred logical CPUs of the host that
	// aren't reserved: 100 gives each virtual CPU a processor of its own, 400 lets four share one. 400 when unset. Memory
	// and disks are never promised twice.
	// +optional
	// +kubebuilder:validation:Minimum=100
	// +kubebuilder:validation:Maximum=10000
	CPUOvercommitPercent int32 `json:"cpuOvercommitPercent,omitempty"`

	// scheduling says whether new machines may be placed on this host. Enabled when unset. Machines that are already
	// there are left alone either way.
	// +optional
	Scheduling HostScheduling `json:"scheduling,omitempty"`

	// orphanPolicy says what becomes of orphans: domains and volumes of ours on the host that no LibvirtMachine stands
	// for, as is left when somebody removes a finalizer by force. Report, which is what unset means, lists
	// them in the condition OrphansAbsent. Delete removes them, with all data on their disks, once they have been
	// orphans for ten minutes.
	//
	// WARNING: two managers that use one host, as those of two management clusters, see each other's machines as orphans.
	// Never set Delete on a host, or on a host with a storage pool, that another manager uses too. As a safeguard a domain
	// is only removed when it is in the managed network of its Cluster, and that is gone from the host or is that of the
	// LibvirtCluster here, whose Cluster isn't paused; a disk only when no other domain of the host uses it and nothing was
	// written to it since it was found.
	// +optional
	OrphanPolicy OrphanPolicy `json:"orphanPolicy,omitempty"`

	// pciDevices are the devices of the host that machines may have for themselves (spec.pciDevices of a LibvirtMachine).
	// None when unset: whoever may create machines mustn't be able to take the host's own network card or disks. A device
	// that is taken is detached from the host's driver while the machine runs.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	PCIDevices []PCIDeviceOffer `json:"pciDevices,omitempty"`

	// wireGuard says how the other hosts of a cluster with spec.network.siteLink reach this one. Such a cluster can't use a
	// host without it. An empty one, {}, is that of a host that can't be reached from outside.
	// +optional
	WireGuard *HostWireGuard `json:"wireGuard,omitempty"`
}

// CredentialsReference names a Secret in the namespace of the object that holds the reference.
// +kubebuilder:validation:MinProperties=1
type CredentialsReference struct {
	// name of the Secret, without a namespace: a Secret elsewhere can't be named.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="!format.dns1123Subdomain().validate(self).hasValue()",message="must be the name of a Secret in the namespace of the LibvirtHost: no other namespace can be named"
	Name string `json:"name,omitempty"`
}

// HostStorage names storage pools of a host.
// +kubebuilder:validation:MinProperties=1
type HostStorage struct {
	// imagePool is the storage pool that holds images. It must exist. "default" when unset.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9][A-Za-z0-9_.-]*$`
	ImagePool string `json:"imagePool,omitempty"`

	// diskPool is the storage pool that holds the disks of machines. It must exist. "default" when unset.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9][A-Za-z0-9_.-]*$`
	DiskPool string `json:"diskPool,omitempty"`

	// extraDiskPools are further storage pools that may hold disks of machines, which name them in spec.rootDisk.pool and
	// spec.dataDisks. They must exist, and no other host may use the same storage.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=8
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=63
	// +kubebuilder:validation:items:Pattern=`^[A-Za-z0-9][A-Za-z0-9_.-]*$`
	ExtraDiskPools []string `json:"extraDiskPools,omitempty"`

	// seedPool is the storage pool that holds the bootstrap data of machines until they are up. It must differ from
	// the other two, because libvirt refreshes a whole pool after each upload into it. It is created as
	// /var/lib/libvirt/<name> when it doesn't exist. "capi-seeds" when unset.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9][A-Za-z0-9_.-]*$`
	SeedPool string `json:"seedPool,omitempty"`
}

// HostReserved are resources that machines never get.
// +kubebuilder:validation:MinProperties=1
type HostReserved struct {
	// memory that is kept free for the host itself. 1Gi when unset.
	// +optional
	Memory *resource.Quantity `json:"memory,omitempty"`

	// cpus is the number of logical CPUs that are kept free for the host itself. 0 when unset.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=4096
	CPUs *int32 `json:"cpus,omitempty"`

	// storage is the space of the disk pool that isn't promised to root disks: images take it if they are in the same
	// pool, and whatever else is there. 10Gi when unset.
	// +optional
	Storage *resource.Quantity `json:"storage,omitempty"`
}

// HostScheduling says whether new machines may be placed on a host.
// +kubebuilder:validation:Enum=Enabled;Disabled
type HostScheduling string

const (
	// HostSchedulingEnabled lets new machines be placed on the host.
	HostSchedulingEnabled HostScheduling = "Enabled"

	// HostSchedulingDisabled cordons the host.
	HostSchedulingDisabled HostScheduling = "Disabled"
)

// OrphanPolicy says what becomes of domains and volumes of ours that no LibvirtMachine stands for.
// +kubebuilder:validation:Enum=Report;Delete
type OrphanPolicy string

const (
	// OrphanPolicyReport lists orphans in a condition and leaves them alone.
	OrphanPolicyReport OrphanPolicy = "Report"

	// OrphanPolicyDelete removes orphans, with their data.
	OrphanPolicyDelete OrphanPolicy = "Delete"
)

// LibvirtHostStatus is what was last seen of a host.
// +kubebuilder:validation:MinProperties=1
type LibvirtHostStatus struct {
	// conditions represent the observations of the host's current state.
	// Known condition types are Ready, Connected, StorageReady, OrphansAbsent, Deleting and Paused.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=32
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// capacity is what the host has in all.
	// +optional
	Capacity HostResources `json:"capacity,omitempty,omitzero"`

	// allocated is what the machines that were placed on the host may use at most, other domains of the host included.
	// +optional
	Allocated HostResources `json:"allocated,omitempty,omitzero"`

	// storage is what the pools of spec.storage have, as libvirt saw them at most ten minutes ago.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=16
	Storage []HostPoolStatus `json:"storage,omitempty"`

	// retainedDisks are the disks on the host that outlive their machines, at most the first 1,000. While the host is out
	// of reach they are those that were seen last.
	// +optional
	// +listType=map
	// +listMapKey=pool
	// +listMapKey=volume
	// +kubebuilder:validation:MaxItems=1000
	RetainedDisks []RetainedDisk `json:"retainedDisks,omitempty"`

	// images are those that were downloaded to the image pool, in the order of their checksums; the first 256 of them.
	// +optional
	// +listType=map
	// +listMapKey=checksum
	// +kubebuilder:validation:MaxItems=256
	Images []HostImageStatus `json:"images,omitempty"`

	// machines is the number of LibvirtMachines on the host.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Machines *int32 `json:"machines,omitempty"`

	// hostname is the name that the host gives itself.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	Hostname string `json:"hostname,omitempty"`

	// hostUUID is the UUID by which libvirt knows the host. While machines are on the host, a connection to another one on
	// which none of them is isn't used. Remove the field to have the host that answers taken for this one.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	HostUUID string `json:"hostUUID,omitempty"`

	// libvirtVersion is the version of the libvirt daemon.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	LibvirtVersion string `json:"libvirtVersion,omitempty"`

	// hypervisorVersion is the version of the hypervisor, QEMU as a rule.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	HypervisorVersion string `json:"hypervisorVersion,omitempty"`

	// architecture of the host in Kubernetes' words, for example amd64.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	Architecture string `json:"architecture,omitempty"`

	// domainTypes are the kinds of domain that the host claims to run.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=8
	DomainTypes []DomainType `json:"domainTypes,omitempty"`

	// numaNodes is the number of the host's NUMA nodes.
	// +optional
	// +kubebuilder:validation:Minimum=1
	NUMANodes int32 `json:"numaNodes,omitempty"`

	// hugePages are the huge pages that the host keeps in store, by their size.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=8
	HugePages []HostHugePages `json:"hugePages,omitempty"`

	// pciDevices are the devices that spec.pciDevices offers and that are there.
	// +optional
	// +listType=map
	// +listMapKey=address
	// +kubebuilder:validation:MaxItems=256
	PCIDevices []HostPCIDevice `json:"pciDevices,omitempty"`

	// wireGuard is what the host's agent told of its end of the links to other sites. While the host is out of reach it is
	// what was told last.
	// +optional
	WireGuard HostWireGuardStatus `json:"wireGuard,omitempty,omitzero"`
}

// HostResources are amounts of a host's resources.
// +kubebuilder:validation:MinProperties=1
type HostResources struct {
	// cpus is a number of logical CPUs, or of virtual CPUs where it counts what is allocated.
	// +optional
	// +kubebuilder:validation:Minimum=0
	CPUs *int32 `json:"cpus,omitempty"`

	// memory is an amount of memory.
	// +optional
	Memory *resource.Quantity `json:"memory,omitempty"`
}

// HostPoolStatus is what a storage pool of a host has.
type HostPoolStatus struct {
	// name of the pool.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Name string `json:"name,omitempty"`

	// capacity is the whole size of the pool: that of its file system, when the pool is a directory.
	// +optional
	Capacity *resource.Quantity `json:"capacity,omitempty"`

	// available is what was free when libvirt last read the pool. A disk that grows doesn't make it read the pool anew.
	// +optional
	Available *resource.Quantity `json:"available,omitempty"`

	// allocated is what the disks of the machines on the host, and those that are retained, may grow to. Only pools for
	// disks have any.
	// +optional
	Allocated *resource.Quantity `json:"allocated,omitempty"`
}

// RetainedDisk is a disk on a host that outlives its machine.
type RetainedDisk struct {
	// pool is the storage pool that holds the disk.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Pool string `json:"pool,omitempty"`

	// volume is the name of the volume. At its end are the namespace, the cluster and the set that the disk belongs to,
	// and before them the slot and the disk.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=255
	Volume string `json:"volume,omitempty"`

	// capacity is the size that the guest sees. Unset until it was read.
	// +optional
	Capacity *resource.Quantity `json:"capacity,omitempty"`

	// machine is the LibvirtMachine that has the disk. Unset when none has: the next machine of the set gets it.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Machine string `json:"machine,omitempty"`
}

// LibvirtHost is one hypervisor: a libvirt daemon that machines can be placed on.
//
// +kubebuilder:object:root=true
// +kubebuilder:storageversion
// +kubebuilder:subresource:status
// +kubebuilder:metadata:labels="cluster.x-k8s.io/v1beta2=v1beta1"
// +kubebuilder:metadata:labels="clusterctl.cluster.x-k8s.io/move-hierarchy="
// +kubebuilder:resource:path=libvirthosts,scope=Namespaced,categories=cluster-api
// +kubebuilder:printcolumn:name="Ready",type="string",JSONPath=`.status.conditions[?(@.type=="Ready")].status`,description="The host can be used"
// +kubebuilder:printcolumn:name="Scheduling",type="string",JSONPath=".spec.scheduling",description="Disabled when no new machine may be placed on the host"
// +kubebuilder:printcolumn:name="Machines",type="integer",JSONPath=".status.machines",description="LibvirtMachines on the host"
// +kubebuilder:printcolumn:name="CPUs",type="integer",JSONPath=".status.capacity.cpus",description="Logical CPUs of the host"
// +kubebuilder:printcolumn:name="vCPUs",type="integer",JSONPath=".status.allocated.cpus",description="Virtual CPUs that domains have",priority=10
// +kubebuilder:printcolumn:name="Memory",type="string",JSONPath=".status.capacity.memory",description="Memory of the host"
// +kubebuilder:printcolumn:name="Allocated",type="string",JSONPath=".status.allocated.memory",description="Memory that domains may use"
// +kubebuilder:printcolumn:name="Libvirt",type="string",JSONPath=".status.libvirtVersion",description="Version of libvirt"
// +kubebuilder:printcolumn:name="WireGuard",type="string",JSONPath=".status.wireGuard.publicKey",description="Public key of the host",priority=10
// +kubebuilder:printcolumn:name="URI",type="string",JSONPath=".spec.uri",description="Connection URI",priority=10
// +kubebuilder:printcolumn:name="Reason",type="string",JSONPath=`.status.conditions[?(@.type=="Ready")].reason`,description="Why the host is or isn't ready",priority=10
// +kubebuilder:printcolumn:name="Age",type="date",JSONPath=".metadata.creationTimestamp",description="Time since creation"
type LibvirtHost struct {
	metav1.TypeMeta `json:",inline"`
	// metadata is the standard object's metadata.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is the desired state of the host.
	// +required
	Spec LibvirtHostSpec `json:"spec,omitempty,omitzero"`

	// status is the observed state of the host.
	// +optional
	Status LibvirtHostStatus `json:"status,omitempty,omitzero"`
}

// GetConditions returns the conditions of the host.
func (h *LibvirtHost) GetConditions() []metav1.Condition {
	return h.Status.Conditions
}

// SetConditions replaces the conditions of the host.
func (h *LibvirtHost) SetConditions(conditions []metav1.Condition) {
	h.Status.Conditions = conditions
}

// LibvirtHostList is a list of LibvirtHosts.
//
// +kubebuilder:object:root=true
type LibvirtHostList struct {
	metav1.TypeMeta `json:",inline"`
	// metadata is the standard list's metadata.
	// +optional
	metav1.ListMeta `json:"metadata,omitempty"`
	// items is the list of LibvirtHosts.
	Items []LibvirtHost `json:"items"`
}

func init() {
	objectTypes = append(objectTypes, &LibvirtHost{}, &LibvirtHostList{})
}
