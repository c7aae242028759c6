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

// PCIDeviceOffer offers one device by its address, or all by what they are.
// +kubebuilder:validation:MinProperties=1
// +kubebuilder:validation:XValidation:rule="has(self.address) != has(self.vendor) && has(self.vendor) == has(self.device)",message="set either address, or vendor and device"
type PCIDeviceOffer struct {
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
}

// HostHugePages are the huge pages of one size that a host keeps in store.
type HostHugePages struct {
	// pageSize is the size of one page.
	// +required
	PageSize resource.Quantity `json:"pageSize,omitempty,omitzero"`

	// capacity is what all of them are together.
	// +optional
	Capacity *resource.Quantity `json:"capacity,omitempty"`

	// taken is what others than LibvirtMachines had of it when the host was asked, at most ten minutes ago.
	// +optional
	Taken *resource.Quantity `json:"taken,omitempty"`

	// allocated is the memory of the machines on the host that comes from it.
	// +optional
	Allocated *resource.Quantity `json:"allocated,omitempty"`
}

// HostPCIDevice is a device of a host that machines may have.
type HostPCIDevice struct {
	// address of the device.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=16
	Address string `json:"address,omitempty"`

	// vendor is the vendor ID.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=8
	Vendor string `json:"vendor,omitempty"`

	// device is the device ID.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=8
	Device string `json:"device,omitempty"`

	// machine is the LibvirtMachine that has the device.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Machine string `json:"machine,omitempty"`

	// domain is the domain of somebody else that had the device when the host was asked, at most ten minutes ago.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	Domain string `json:"domain,omitempty"`
}
