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

package host

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"libvirt.org/go/libvirt"
	"libvirt.org/go/libvirtxml"
)

// PCIDevice is a device of a host.
type PCIDevice struct {
	// Address as lspci -D shows it, for example 0000:65:00.0.
	Address string
	// Vendor and Device are four hexadecimal digits each.
	Vendor, Device string
}

// PCIDevices lists the PCI devices of a host by address: a call, and one for each device. A host whose libvirt lacks the
// driver that knows devices has none.
func (h *Host) PCIDevices(ctx context.Context) ([]PCIDevice, error) {
	s, err := h.current()
	if err != nil {
		return nil, err
	}
	documents, err := call(ctx, s.control, "connectListAllNodeDevices", func() ([]string, error) {
		devices, err := s.control.libvirt.ListAllNodeDevices(libvirt.CONNECT_LIST_NODE_DEVICES_CAP_PCI_DEV)
		var documents []string
		for k := range devices {
			document, xmlErr := devices[k].GetXMLDesc(0)
			if xmlErr == nil { // otherwise it was unplugged just now
				documents = append(documents, document)
			}
			err = errors.Join(err, devices[k].Free())
		}
		return documents, err
	})
	if errors.Is(err, ErrUnsupported) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing the PCI devices of the host: %w", err)
	}
	var devices []PCIDevice
	for _, document := range documents {
		device, ok, err := parsePCIDevice(document)
		if err != nil {
			return nil, err
		}
		if ok {
			devices = append(devices, device)
		}
	}
	slices.SortFunc(devices, func(a, b PCIDevice) int { return cmp.Compare(a.Address, b.Address) })
	return devices, nil
}

// parsePCIDevice reads a device's XML. False when it is no PCI device that a guest can have.
func parsePCIDevice(document string) (PCIDevice, bool, error) {
	var parsed libvirtxml.NodeDevice
	if err := parsed.Unmarshal(document); err != nil {
		return PCIDevice{}, false, fmt.Errorf("parsing a device of the host: %w", err)
	}
	pci := parsed.Capability.PCI
	if pci == nil || pci.Domain == nil || pci.Bus == nil || pci.Slot == nil || pci.Function == nil {
		return PCIDevice{}, false, nil
	}
	if *pci.Domain > 0xffff {
		return PCIDevice{}, false, nil // behind a controller of its own (VMD), which a guest can't have it without
	}
	return PCIDevice{
		Address: fmt.Sprintf("%04x:%02x:%02x.%x", *pci.Domain, *pci.Bus, *pci.Slot, *pci.Function),
		Vendor:  strings.TrimPrefix(pci.Vendor.ID, "0x"),
		Device:  strings.TrimPrefix(pci.Product.ID, "0x"),
	}, true, nil
}
