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

// Firmware is what a machine starts with.
// +kubebuilder:validation:Enum=BIOS;UEFI;SecureBoot
type Firmware string

const (
	// FirmwareBIOS is a PC BIOS.
	FirmwareBIOS Firmware = "BIOS"

	// FirmwareUEFI is UEFI without Secure Boot.
	FirmwareUEFI Firmware = "UEFI"

	// FirmwareSecureBoot is UEFI that starts nothing but what is signed by a key that Microsoft signed, as the boot
	// loaders of the distributions are.
	FirmwareSecureBoot Firmware = "SecureBoot"
)

// TPM is a Trusted Platform Module.
type TPM struct {
	// type is Emulated: a TPM 2.0 that the host emulates with swtpm. Its state is removed with the machine.
	// +required
	Type TPMType `json:"type,omitempty"`
}

// TPMType is what stands behind a TPM.
// +kubebuilder:validation:Enum=Emulated
type TPMType string

// TPMTypeEmulated is a TPM that the host emulates.
const TPMTypeEmulated TPMType = "Emulated"

// CPU is what a guest sees of a processor.
// +kubebuilder:validation:MinProperties=1
// +kubebuilder:validation:XValidation:rule="has(self.model) == (has(self.mode) && self.mode == 'Custom')",message="model goes with mode Custom and only with it: set both, for example mode Custom and model EPYC-Rome, or neither"
type CPU struct {
	// mode is HostPassthrough (the host's processor as it is), HostModel (the model that comes nearest to it, which can be
	// migrated to like processors), Maximum (all that the hypervisor can do), or Custom (that of model). When unset:
	// HostPassthrough with domainType KVM, and Maximum with QEMU.
	// +optional
	Mode CPUMode `json:"mode,omitempty"`

	// model is a name that virsh cpu-models x86_64 lists, for example EPYC-Rome. Needed with mode Custom.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9][A-Za-z0-9_.-]*$`
	Model string `json:"model,omitempty"`

	// features are added to the processor, or taken away from it.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	Features []CPUFeature `json:"features,omitempty"`

	// topology is how the vcpus are laid out. When unset, each is a socket of its own.
	// +optional
	Topology CPUTopology `json:"topology,omitempty,omitzero"`
}

// CPUMode is where the model of a processor comes from.
// +kubebuilder:validation:Enum=HostPassthrough;HostModel;Maximum;Custom
type CPUMode string

const (
	// CPUModeHostPassthrough gives the guest the host's processor as it is.
	CPUModeHostPassthrough CPUMode = "HostPassthrough"

	// CPUModeHostModel gives the guest the named model that comes nearest to the host's processor.
	CPUModeHostModel CPUMode = "HostModel"

	// CPUModeMaximum gives the guest all that the hypervisor can do.
	CPUModeMaximum CPUMode = "Maximum"

	// CPUModeCustom gives the guest a named model.
	CPUModeCustom CPUMode = "Custom"
)

// CPUFeature is a feature of a processor.
type CPUFeature struct {
	// name of the feature as libvirt knows it, for example invtsc or vmx.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9][A-Za-z0-9_.-]*$`
	Name string `json:"name,omitempty"`

	// policy is Require (the domain doesn't start without it), Optional (if the host has it), Disable (the guest doesn't
	// see it), Force (whether the host has it or not) or Forbid (the domain doesn't start on a host that has it). Require
	// when unset.
	// +optional
	Policy CPUFeaturePolicy `json:"policy,omitempty"`
}

// CPUFeaturePolicy says what becomes of a feature.
// +kubebuilder:validation:Enum=Require;Optional;Disable;Force;Forbid
type CPUFeaturePolicy string

const (
	// CPUFeatureRequire lets the domain start with the feature only.
	CPUFeatureRequire CPUFeaturePolicy = "Require"

	// CPUFeatureOptional gives the guest the feature if the host has it.
	CPUFeatureOptional CPUFeaturePolicy = "Optional"

	// CPUFeatureDisable hides the feature.
	CPUFeatureDisable CPUFeaturePolicy = "Disable"

	// CPUFeatureForce shows the feature, whether the host has it or not.
	CPUFeatureForce CPUFeaturePolicy = "Force"

	// CPUFeatureForbid lets the domain start only where the host lacks the feature.
	CPUFeatureForbid CPUFeaturePolicy = "Forbid"
)

// CPUTopology is how virtual CPUs are laid out: sockets × cores × threads must be vcpus.
// +kubebuilder:validation:MinProperties=1
type CPUTopology struct {
	// sockets of the processor, 1 when unset.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=64
	Sockets int32 `json:"sockets,omitempty"`

	// cores of a socket, 1 when unset.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=512
	Cores int32 `json:"cores,omitempty"`

	// threads of a core, 1 when unset.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=8
	Threads int32 `json:"threads,omitempty"`
}

// HugePages has a machine's memory come from huge pages that its host keeps in store.
type HugePages struct {
	// pageSize is the size of the pages: 2Mi or 1Gi on x86. Hosts without enough pages of that size aren't chosen.
	// +required
	// +kubebuilder:validation:MinLength=3
	// +kubebuilder:validation:MaxLength=5
	// +kubebuilder:validation:XValidation:rule="self in ['64Ki', '2Mi', '32Mi', '512Mi', '1Gi', '16Gi']",message="must be a size of huge pages, 2Mi or 1Gi on x86"
	PageSize string `json:"pageSize,omitempty"`
}

// PageBytes is the size of the pages in bytes. Zero when the memory doesn't come from huge pages.
func (h HugePages) PageBytes() int64 {
	if h.PageSize == "" {
		return 0
	}
	size, err := resource.ParseQuantity(h.PageSize)
	if err != nil {
		return 0 // the schema has a list of sizes
	}
	return size.Value()
}

// CPUPinning ties a machine to logical CPUs of its host. Nothing keeps other domains off those CPUs, and the machines of
// a MachineDeployment all have the same, so it is for machines that have a host to themselves.
// +kubebuilder:validation:MinProperties=1
type CPUPinning struct {
	// vcpus are the virtual CPUs that are tied, each to some CPUs of the host. Those that aren't listed run on any.
	// +optional
	// +listType=map
	// +listMapKey=vcpu
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=128
	VCPUs []VCPUPin `json:"vcpus,omitempty"`

	// emulator is the CPUs of the host that everything else of the machine's hypervisor runs on, for example "0-1".
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	// +kubebuilder:validation:Pattern=`^[0-9]{1,4}(-[0-9]{1,4})?(,[0-9]{1,4}(-[0-9]{1,4})?)*$`
	Emulator string `json:"emulator,omitempty"`
}

// VCPUPin ties a virtual CPU to logical CPUs of the host.
type VCPUPin struct {
	// vcpu is the number of the virtual CPU, from 0.
	// +required
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=511
	VCPU *int32 `json:"vcpu,omitempty"`

	// hostCPUs are numbers of the host's logical CPUs and ranges of them, for example "2" or "2-3,10-11".
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	// +kubebuilder:validation:Pattern=`^[0-9]{1,4}(-[0-9]{1,4})?(,[0-9]{1,4}(-[0-9]{1,4})?)*$`
	HostCPUs string `json:"hostCPUs,omitempty"`
}

// NUMA says which of the host's NUMA nodes a machine's memory comes from.
type NUMA struct {
	// hostNodes are numbers of the host's NUMA nodes and ranges of them, for example "0" or "0-1".
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:Pattern=`^[0-9]{1,4}(-[0-9]{1,4})?(,[0-9]{1,4}(-[0-9]{1,4})?)*$`
	HostNodes string `json:"hostNodes,omitempty"`

	// mode is Strict (from nowhere else), Preferred (from elsewhere when there is no more, with one node) or Interleave
	// (from all of them in turn). Strict when unset.
	// +optional
	Mode NUMAMode `json:"mode,omitempty"`
}

// NUMAMode is how strictly memory comes from some NUMA nodes.
// +kubebuilder:validation:Enum=Strict;Preferred;Interleave
type NUMAMode string

const (
	// NUMAModeStrict takes memory from the nodes and from nowhere else.
	NUMAModeStrict NUMAMode = "Strict"

	// NUMAModePreferred takes memory from elsewhere when the node has no more.
	NUMAModePreferred NUMAMode = "Preferred"

	// NUMAModeInterleave takes memory from the nodes in turn.
	NUMAModeInterleave NUMAMode = "Interleave"
)

// PCIDeviceRequest asks for devices of the host: for one by its address, or for some by what they are. The host must
// offer them in spec.pciDevices of its LibvirtHost.
// +kubebuilder:validation:MinProperties=1
// +kubebuilder:validation:XValidation:rule="has(self.address) != has(self.vendor) && has(self.vendor) == has(self.device)",message="set either address, or vendor and device"
// +kubebuilder:validation:XValidation:rule="!has(self.count) || has(self.vendor)",message="count goes with vendor and device only: list each address by itself"
type PCIDeviceRequest struct {
	// address of one device, for example 0000:65:00.0, as lspci -D shows it.
	// +optional
	// +kubebuilder:validation:MinLength=12
	// +kubebuilder:validation:MaxLength=12
	// +kubebuilder:validation:Pattern=`^[0-9a-f]{4}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]$`
	Address string `json:"address,omitempty"`

	// vendor is the vendor ID, four hexadecimal digits as lspci -n shows them, for example 10de.
	// +optional
	// +kubebuilder:validation:MinLength=4
	// +kubebuilder:validation:MaxLength=4
	// +kubebuilder:validation:Pattern=`^[0-9a-f]{4}$`
	Vendor string `json:"vendor,omitempty"`

	// device is the device ID, four hexadecimal digits as lspci -n shows them, for example 20b5.
	// +optional
	// +kubebuilder:validation:MinLength=4
	// +kubebuilder:validation:MaxLength=4
	// +kubebuilder:validation:Pattern=`^[0-9a-f]{4}$`
	Device string `json:"device,omitempty"`

	// count is how many devices of that vendor and device the machine gets, 1 when unset.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=16
	Count int32 `json:"count,omitempty"`
}

// Watchdog is a device that acts when the guest stops answering it. It rests until the guest opens it.
type Watchdog struct {
	// action is Reset (the guest starts anew), PowerOff (the domain stops, and the restartPolicy decides what becomes of
	// it), Pause (it stands still, to be looked at), InjectNMI (the guest's kernel is told, and panics as a rule) or None.
	// +required
	Action WatchdogAction `json:"action,omitempty"`
}

// WatchdogAction is what a watchdog does.
// +kubebuilder:validation:Enum=Reset;PowerOff;Pause;InjectNMI;None
type WatchdogAction string

const (
	// WatchdogReset has the guest start anew.
	WatchdogReset WatchdogAction = "Reset"

	// WatchdogPowerOff stops the domain.
	WatchdogPowerOff WatchdogAction = "PowerOff"

	// WatchdogPause has the domain stand still.
	WatchdogPause WatchdogAction = "Pause"

	// WatchdogInjectNMI tells the guest's kernel.
	WatchdogInjectNMI WatchdogAction = "InjectNMI"

	// WatchdogNone does nothing.
	WatchdogNone WatchdogAction = "None"
)

// SerialConsole is the first serial port of a machine.
type SerialConsole struct {
	// log is Append (what the guest writes is kept on the host, in /var/log/libvirt/qemu/DOMAIN-console.log, and added to at
	// each start), Overwrite (begun anew at each start) or Disabled (not kept: what cloud-init writes to the console can
	// hold secrets of its own scripts). The log stays when the machine goes.
	// +required
	Log ConsoleLog `json:"log,omitempty"`
}

// ConsoleLog says whether what a guest writes to its console is kept.
// +kubebuilder:validation:Enum=Append;Overwrite;Disabled
type ConsoleLog string

const (
	// ConsoleLogAppend adds to the log at each start.
	ConsoleLogAppend ConsoleLog = "Append"

	// ConsoleLogOverwrite begins the log anew at each start.
	ConsoleLogOverwrite ConsoleLog = "Overwrite"

	// ConsoleLogDisabled keeps nothing.
	ConsoleLogDisabled ConsoleLog = "Disabled"
)
