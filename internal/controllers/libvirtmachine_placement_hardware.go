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

package controllers

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/placement"
)

// memoryOf is the resource that a machine's memory comes from.
func memoryOf(spec *infrav1.LibvirtMachineSpec) placement.Resource {
	if size := spec.HugePages.PageBytes(); size > 0 {
		return placement.HugePages(size)
	}
	return placement.Memory
}

// needsOfPlaces are the CPUs and the NUMA nodes that a machine is tied to, which its host must have.
func needsOfPlaces(spec *infrav1.LibvirtMachineSpec) []placement.Need {
	cpus := last(spec.CPUPinning.Emulator)
	for _, pin := range spec.CPUPinning.VCPUs {
		cpus = max(cpus, last(pin.HostCPUs))
	}
	var needs []placement.Need
	if cpus >= 0 {
		needs = append(needs, placement.Need{Resource: placement.HostCPUs, Amount: cpus + 1})
	}
	if node := last(spec.NUMA.HostNodes); node >= 0 {
		needs = append(needs, placement.Need{Resource: placement.NUMANodes, Amount: node + 1})
	}
	return needs
}

// last is the largest number in a list such as 0,2-3. Less than zero when there is none.
func last(list string) int64 {
	largest := int64(-1)
	for _, number := range strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == '-' }) {
		if n, err := strconv.ParseInt(number, 10, 32); err == nil {
			largest = max(largest, n)
		}
	}
	return largest
}

// deviceNeeds are the devices that a machine asks for.
func deviceNeeds(requests []infrav1.PCIDeviceRequest) []placement.DeviceNeed {
	var needs []placement.DeviceNeed
	for _, request := range requests {
		needs = append(needs, placement.DeviceNeed{
			Address: request.Address, Vendor: request.Vendor, Device: request.Device, Count: int(cmp.Or(request.Count, 1)),
		})
	}
	return needs
}

// offeredDevices are the devices that a host offers, with what has them.
func offeredDevices(h *infrav1.LibvirtHost, machines []infrav1.LibvirtMachine) []placement.Device {
	holders := map[string]string{}
	for i := range machines {
		for _, address := range machines[i].Spec.PCIAddresses {
			holders[address] = "LibvirtMachine " + machines[i].Name
		}
	}
	var devices []placement.Device
	for _, device := range h.Status.PCIDevices {
		holder := holders[device.Address]
		if holder == "" && device.Domain != "" {
			holder = "domain " + device.Domain
		}
		devices = append(devices, placement.Device{Address: device.Address, Vendor: device.Vendor, Device: device.Device, Holder: holder})
	}
	return devices
}

// assignDevices chooses the devices of a machine on the host that was chosen for it, which has them.
func assignDevices(candidates []placement.Candidate, chosen string, needs []placement.DeviceNeed) []string {
	k := slices.IndexFunc(candidates, func(c placement.Candidate) bool { return c.Name == chosen })
	if k < 0 {
		return nil
	}
	addresses, _ := placement.Assign(candidates[k].Devices, needs)
	return addresses
}

// checkDevices makes sure that a machine gets no device that its host doesn't offer: spec.pciAddresses is there for
// whoever may create a LibvirtMachine to write.
func checkDevices(s *machineScope) error {
	for _, address := range s.libvirtMachine.Spec.PCIAddresses {
		if !slices.ContainsFunc(s.libvirtHost.Status.PCIDevices, func(d infrav1.HostPCIDevice) bool { return d.Address == address }) {
			return &waiting{reason: infrav1.MachineDeviceNotOfferedReason, message: fmt.Sprintf(
				"host %s doesn't offer the PCI device %s of spec.pciAddresses: add it to spec.pciDevices of the LibvirtHost, or delete the Machine",
				s.libvirtHost.Name, address), after: conflictInterval}
		}
	}
	return nil
}
