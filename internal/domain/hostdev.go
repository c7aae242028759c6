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

// renderHostdevs gives the guest devices of the host, by their PCI addresses. libvirt takes them from the host's driver
// when the domain starts, and gives them back when it stops.
func renderHostdevs(addresses []string) ([]libvirtxml.DomainHostdev, error) {
	var devices []libvirtxml.DomainHostdev
	for _, address := range addresses {
		parsed, err := parsePCIAddress(address)
		if err != nil {
			return nil, err
		}
		devices = append(devices, libvirtxml.DomainHostdev{
			Managed:   "yes",
			SubsysPCI: &libvirtxml.DomainHostdevSubsysPCI{Source: &libvirtxml.DomainHostdevSubsysPCISource{Address: parsed}},
		})
	}
	return devices, nil
}

func parsePCIAddress(address string) (*libvirtxml.DomainAddressPCI, error) {
	var domain, bus, slot, function uint
	if n, err := fmt.Sscanf(address, "%4x:%2x:%2x.%1x", &domain, &bus, &slot, &function); err != nil || n != 4 || formatPCIAddress(domain, bus, slot, function) != address {
		return nil, fmt.Errorf("%q is no PCI address such as 0000:65:00.0", address)
	}
	return &libvirtxml.DomainAddressPCI{Domain: &domain, Bus: &bus, Slot: &slot, Function: &function}, nil
}

func formatPCIAddress(domain, bus, slot, function uint) string {
	return fmt.Sprintf("%04x:%02x:%02x.%x", domain, bus, slot, function)
}

// PCIAddresses are the addresses of the host's devices that a domain has, by its definition.
func PCIAddresses(definition string) ([]string, error) {
	var dom libvirtxml.Domain
	if err := dom.Unmarshal(definition); err != nil {
		return nil, fmt.Errorf("parsing a domain: %w", err)
	}
	if dom.Devices == nil {
		return nil, nil
	}
	var addresses []string
	add := func(a *libvirtxml.DomainAddressPCI) {
		if a != nil && a.Domain != nil && a.Bus != nil && a.Slot != nil && a.Function != nil {
			addresses = append(addresses, formatPCIAddress(*a.Domain, *a.Bus, *a.Slot, *a.Function))
		}
	}
	for _, device := range dom.Devices.Hostdevs {
		if device.SubsysPCI != nil && device.SubsysPCI.Source != nil {
			add(device.SubsysPCI.Source.Address)
		}
	}
	for _, nic := range dom.Devices.Interfaces {
		if nic.Source != nil && nic.Source.Hostdev != nil && nic.Source.Hostdev.PCI != nil {
			add(nic.Source.Hostdev.PCI.Address)
		}
	}
	return addresses, nil
}
