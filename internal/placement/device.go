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

package placement

import (
	"cmp"
	"fmt"
	"slices"
)

// Device is a PCI device of a host.
type Device struct {
	// Address on the host, for example 0000:65:00.0.
	Address string
	// Vendor and Device are four hexadecimal digits each.
	Vendor, Device string
	// Holder is what has the device already. Empty when it can be had.
	Holder string
}

// DeviceNeed is a device, or several of a kind, that a machine asks for.
type DeviceNeed struct {
	// Address of one device. When it is empty, any device of the vendor will do.
	Address        string
	Vendor, Device string
	// Count of devices of the kind.
	Count int
}

// Assign chooses devices for a machine: those that it names first, then the first by address of each kind. It returns
// their addresses in that order, and what is lacking: nothing when all of them can be had.
func Assign(devices []Device, needs []DeviceNeed) (addresses, lacking []string) {
	free := slices.DeleteFunc(slices.Clone(devices), func(d Device) bool { return d.Holder != "" })
	slices.SortFunc(free, func(a, b Device) int { return cmp.Compare(a.Address, b.Address) })
	take := func(wanted func(Device) bool) bool {
		k := slices.IndexFunc(free, wanted)
		if k >= 0 {
			addresses = append(addresses, free[k].Address)
			free = slices.Delete(free, k, k+1)
		}
		return k >= 0
	}
	for _, need := range needs {
		if need.Address != "" && !take(func(d Device) bool { return d.Address == need.Address }) {
			lacking = append(lacking, lackOfDevice(devices, need.Address, addresses))
		}
	}
	for _, need := range needs {
		if need.Address != "" {
			continue
		}
		of := func(d Device) bool { return d.Vendor == need.Vendor && d.Device == need.Device }
		found := 0
		for found < need.Count && take(of) {
			found++
		}
		if found < need.Count {
			lacking = append(lacking, fmt.Sprintf("has %d PCI devices %s:%s free of %d, needs %d",
				found, need.Vendor, need.Device, count(devices, of), need.Count))
		}
	}
	return addresses, lacking
}

func lackOfDevice(devices []Device, address string, taken []string) string {
	k := slices.IndexFunc(devices, func(d Device) bool { return d.Address == address })
	switch {
	case k < 0:
		return fmt.Sprintf("doesn't offer a PCI device %s (spec.pciDevices of the LibvirtHost)", address)
	case slices.Contains(taken, address):
		return fmt.Sprintf("spec.pciDevices names %s twice", address)
	default:
		return fmt.Sprintf("has given the PCI device %s to %s", address, devices[k].Holder)
	}
}

func count(devices []Device, of func(Device) bool) int {
	n := 0
	for _, device := range devices {
		if of(device) {
			n++
		}
	}
	return n
}
