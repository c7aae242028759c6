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
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
)

const (
	// MachineFinalizer keeps a LibvirtMachine until its domain, its volumes and its DHCP reservation are gone.
	MachineFinalizer = "infrastructure.cluster.x-k8s.io/libvirtmachine"

	// ProviderIDPrefix and the UUID of the domain make the providerID of a machine and of its Node.
	ProviderIDPrefix = "libvirt:///"
)

// LibvirtMachineSpec is the desired state of a machine.
type LibvirtMachineSpec struct {
	// providerID identifies the domain: libvirt:/// and its UUID. Set by the provider before anything is written to a
	// host, and kept from then on.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	// +kubebuilder:validation:Pattern=`^libvirt:///[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`
	ProviderID string `json:"providerID,omitempty"`

	// hostName is the name of the LibvirtHost that the machine is on. Set it to pin the machine to a host; otherwise
	// the provider chooses one, and changes it only when it finds that somebody migrated the domain.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	HostName string `json:"hostName,omitempty"`

	// migratedFrom is the name of the LibvirtHost that the domain was on before somebody migrated it to that of
	// hostName. Set by the provider.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	MigratedFrom string `json:"migratedFrom,omitempty"`

	// address is the machine's IPv4 address in the node network, which no other machine of the cluster has. Set by the
	// provider before anything is written to a host, and kept from then on.
	// +optional
	// +kubebuilder:validation:MinLength=7
	// +kubebuilder:validation:MaxLength=15
	// +kubebuilder:validation:XValidation:rule="isIP(self) && ip(self).family() == 4",message="address must be an IPv4 address, for example 10.100.0.10"
	Address string `json:"address,omitempty"`

	// vcpus is the number of virtual CPUs.
	// +required
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=512
	VCPUs int32 `json:"vcpus,omitempty"`

	// memory is the size of the memory, 512Mi at least, for example 4Gi. All of it is promised to the machine.
	// +required
	// +kubebuilder:validation:XValidation:rule="quantity(string(self)).compareTo(quantity('512Mi')) >= 0",message="memory must be at least 512Mi, for example 4Gi"
	Memory resource.Quantity `json:"memory,omitempty,omitzero"`

	// image is what the root disk starts from.
	// +required
	Image Image `json:"image,omitempty,omitzero"`

	// rootDisk is the disk that the machine boots from.
	// +required
	RootDisk RootDisk `json:"rootDisk,omitempty,omitzero"`

	// dataDisks are further disks, which begin empty.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:XValidation:rule="self.all(d, self.exists_one(o, (has(o.serial) ? o.serial : o.name) == (has(d.serial) ? d.serial : d.name)))",message="two dataDisks have the same serial, which is the name when unset: set another serial"
	DataDisks []DataDisk `json:"dataDisks,omitempty"`

	// slot is the machine's place in its set when it has dataDisks that are retained. Set by the provider before anything
	// is written to a host, and kept from then on. No other machine has the same.
	// +optional
	Slot MachineSlot `json:"slot,omitempty,omitzero"`

	// domainType is KVM, or QEMU for software emulation. KVM when unset.
	// +optional
	DomainType DomainType `json:"domainType,omitempty"`
}

// DomainType is what runs a domain's code.
// +kubebuilder:validation:Enum=KVM;QEMU
type DomainType string

const (
	// DomainTypeKVM runs the guest on the host's processors.
	DomainTypeKVM DomainType = "KVM"

	// DomainTypeQEMU emulates the guest's processors in software: slow, and possible anywhere.
	DomainTypeQEMU DomainType = "QEMU"
)

// RootDisk is the disk that a machine boots from.
// +kubebuilder:validation:MinProperties=1
type RootDisk struct {
	// size of the disk, 1Gi at least and at least that of the image, for example 20Gi.
	// +required
	// +kubebuilder:validation:XValidation:rule="quantity(string(self)).compareTo(quantity('1Gi')) >= 0",message="size must be at least 1Gi, for example 20Gi"
	Size resource.Quantity `json:"size,omitempty,omitzero"`

	// pool is the storage pool that holds the disk: the diskPool or one of the extraDiskPools in spec.storage of the
	// LibvirtHost. The diskPool when unset.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9][A-Za-z0-9_.-]*$`
	Pool string `json:"pool,omitempty"`

	// cache is how writes of the guest reach the host's disk: None (past the host's memory; the guest's flushes reach the
	// disk), WriteThrough (each write reaches the disk at once; reads are cached by the host), WriteBack (the host caches
	// writes too, until the guest flushes them), or Unsafe (flushes are ignored: a power cut of the host loses data; for
	// throw-away machines only). None when unset.
	// +optional
	Cache DiskCache `json:"cache,omitempty"`

	// discard is what becomes of blocks that the guest gives up: Unmap (the host's disk gets them back) or Ignore. Unmap
	// when unset.
	// +optional
	Discard DiskDiscard `json:"discard,omitempty"`
}

// LibvirtMachineStatus is what was last seen of a machine.
// +kubebuilder:validation:MinProperties=1
type LibvirtMachineStatus struct {
	// conditions represent the observations of the machine's current state.
	// Known condition types are Ready, BootstrapDataReady, Placed, ImageReady, DomainReady, BootstrapSucceeded,
	// BootstrapDataRemoved, Deleting and Paused.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=32
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// initialization provides observations of the initialization process. It is part of the Cluster API contract.
	// +optional
	Initialization LibvirtMachineInitializationStatus `json:"initialization,omitempty,omitzero"`

	// addresses of the machine. The internal address is reserved before the machine boots.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=32
	Addresses []clusterv1.MachineAddress `json:"addresses,omitempty"`

	// failureDomain is the failure domain of the host that the machine is on.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	FailureDomain string `json:"failureDomain,omitempty"`

	// domain is what libvirt last said of the machine's domain.
	// +optional
	Domain DomainStatus `json:"domain,omitempty,omitzero"`
}

// DomainStatus is what libvirt last said of a domain.
// +kubebuilder:validation:MinProperties=1
type DomainStatus struct {
	// name of the domain on its host, as virsh shows it.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	Name string `json:"name,omitempty"`

	// state of the domain, for example Running, Paused or Shutoff.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	State string `json:"state,omitempty"`
}

// LibvirtMachineInitializationStatus provides observations of the initialization process.
// +kubebuilder:validation:MinProperties=1
type LibvirtMachineInitializationStatus struct {
	// provisioned is true once the domain was started. It is part of the Cluster API contract.
	// +optional
	Provisioned *bool `json:"provisioned,omitempty"`
}

// LibvirtMachine is a machine of a cluster: a libvirt domain with its disks and its address.
//
// The rules on changes are on the kind and not on its spec, because templates share the spec.
//
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.spec.providerID) || (has(self.spec.providerID) && self.spec.providerID == oldSelf.spec.providerID)",message="spec.providerID can't be changed or removed once it is set: it identifies the domain"
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.spec.hostName) || (has(self.spec.hostName) && (self.spec.hostName == oldSelf.spec.hostName || (has(self.spec.migratedFrom) && self.spec.migratedFrom == oldSelf.spec.hostName)))",message="spec.hostName can't be changed or removed once it is set, because the machine's disks are on that host: delete the Machine to have it made anew elsewhere"
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.spec.address) || (has(self.spec.address) && self.spec.address == oldSelf.spec.address)",message="spec.address can't be changed or removed once it is set, because certificates and other nodes know it: delete the Machine to have it made anew"
// +kubebuilder:validation:XValidation:rule="self.spec.vcpus == oldSelf.spec.vcpus && quantity(string(self.spec.memory)).compareTo(quantity(string(oldSelf.spec.memory))) == 0 && self.spec.image == oldSelf.spec.image && quantity(string(self.spec.rootDisk.size)).compareTo(quantity(string(oldSelf.spec.rootDisk.size))) == 0 && has(self.spec.rootDisk.cache) == has(oldSelf.spec.rootDisk.cache) && (!has(self.spec.rootDisk.cache) || self.spec.rootDisk.cache == oldSelf.spec.rootDisk.cache) && has(self.spec.domainType) == has(oldSelf.spec.domainType) && (!has(self.spec.domainType) || self.spec.domainType == oldSelf.spec.domainType)",message="spec.vcpus, spec.memory, spec.image, spec.rootDisk and spec.domainType can't be changed on an existing machine: make a new LibvirtMachineTemplate and name it in the MachineDeployment or the control plane, which rolls out new machines"
// +kubebuilder:validation:XValidation:rule="!has(self.spec.slot) || has(self.spec.providerID)",message="spec.slot is set by the provider together with spec.providerID: remove it"
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.spec.slot) || (has(self.spec.slot) && self.spec.slot == oldSelf.spec.slot)",message="spec.slot can't be changed or removed once it is set, because the machine's disks and host name belong to it: delete the Machine to have it made anew"
// +kubebuilder:validation:XValidation:rule="has(self.spec.rootDisk.pool) == has(oldSelf.spec.rootDisk.pool) && (!has(self.spec.rootDisk.pool) || self.spec.rootDisk.pool == oldSelf.spec.rootDisk.pool) && has(self.spec.rootDisk.discard) == has(oldSelf.spec.rootDisk.discard) && (!has(self.spec.rootDisk.discard) || self.spec.rootDisk.discard == oldSelf.spec.rootDisk.discard)",message="spec.rootDisk can't be changed on an existing machine: make a new LibvirtMachineTemplate and name it in the MachineDeployment or the control plane, which rolls out new machines"
// +kubebuilder:validation:XValidation:rule="has(self.spec.dataDisks) == has(oldSelf.spec.dataDisks) && (!has(self.spec.dataDisks) || (size(self.spec.dataDisks) == size(oldSelf.spec.dataDisks) && self.spec.dataDisks.all(d, oldSelf.spec.dataDisks.exists(o, o.name == d.name && quantity(o.size).compareTo(quantity(d.size)) == 0 && has(d.pool) == has(o.pool) && (!has(d.pool) || d.pool == o.pool) && has(d.serial) == has(o.serial) && (!has(d.serial) || d.serial == o.serial) && has(d.bus) == has(o.bus) && (!has(d.bus) || d.bus == o.bus) && has(d.ioThread) == has(o.ioThread) && (!has(d.ioThread) || d.ioThread == o.ioThread) && has(d.cache) == has(o.cache) && (!has(d.cache) || d.cache == o.cache) && has(d.discard) == has(o.discard) && (!has(d.discard) || d.discard == o.discard) && has(d.reclaimPolicy) == has(o.reclaimPolicy) && (!has(d.reclaimPolicy) || d.reclaimPolicy == o.reclaimPolicy)))))",message="spec.dataDisks can't be changed on an existing machine: make a new LibvirtMachineTemplate and name it in the MachineDeployment or the control plane, which rolls out new machines"
// +kubebuilder:object:root=true
// +kubebuilder:storageversion
// +kubebuilder:subresource:status
// +kubebuilder:metadata:labels="cluster.x-k8s.io/v1beta2=v1beta1"
// +kubebuilder:resource:path=libvirtmachines,scope=Namespaced,categories=cluster-api
// +kubebuilder:printcolumn:name="Cluster",type="string",JSONPath=".metadata.labels['cluster\\.x-k8s\\.io/cluster-name']",description="Cluster"
// +kubebuilder:printcolumn:name="Host",type="string",JSONPath=".spec.hostName",description="LibvirtHost that the machine is on"
// +kubebuilder:printcolumn:name="State",type="string",JSONPath=".status.domain.state",description="State of the domain"
// +kubebuilder:printcolumn:name="Address",type="string",JSONPath=`.status.addresses[?(@.type=="InternalIP")].address`,description="Address of the machine"
// +kubebuilder:printcolumn:name="Ready",type="string",JSONPath=`.status.conditions[?(@.type=="Ready")].status`,description="The machine is ready"
// +kubebuilder:printcolumn:name="Reason",type="string",JSONPath=`.status.conditions[?(@.type=="Ready")].reason`,description="Why the machine is or isn't ready"
// +kubebuilder:printcolumn:name="Provider ID",type="string",JSONPath=".spec.providerID",description="Provider ID",priority=10
// +kubebuilder:printcolumn:name="Domain",type="string",JSONPath=".status.domain.name",description="Name of the domain on its host",priority=10
// +kubebuilder:printcolumn:name="Paused",type="string",JSONPath=`.status.conditions[?(@.type=="Paused")].status`,description="Reconciliation is paused",priority=10
// +kubebuilder:printcolumn:name="Age",type="date",JSONPath=".metadata.creationTimestamp",description="Time since creation"
type LibvirtMachine struct {
	metav1.TypeMeta `json:",inline"`
	// metadata is the standard object's metadata.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is the desired state of the machine.
	// +required
	Spec LibvirtMachineSpec `json:"spec,omitempty,omitzero"`

	// status is the observed state of the machine.
	// +optional
	Status LibvirtMachineStatus `json:"status,omitempty,omitzero"`
}

// GetConditions returns the conditions of the machine.
func (m *LibvirtMachine) GetConditions() []metav1.Condition {
	return m.Status.Conditions
}

// SetConditions replaces the conditions of the machine.
func (m *LibvirtMachine) SetConditions(conditions []metav1.Condition) {
	m.Status.Conditions = conditions
}

// LibvirtMachineList is a list of LibvirtMachines.
//
// +kubebuilder:object:root=true
type LibvirtMachineList struct {
	metav1.TypeMeta `json:",inline"`
	// metadata is the standard list's metadata.
	// +optional
	metav1.ListMeta `json:"metadata,omitempty"`
	// items is the list of LibvirtMachines.
	Items []LibvirtMachine `json:"items"`
}

func init() {
	objectTypes = append(objectTypes, &LibvirtMachine{}, &LibvirtMachineList{})
}
