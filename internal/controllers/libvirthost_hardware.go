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
	"context"
	"errors"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/api/resource"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/domain"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/host"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/placement"
)

// surveyHardware finds the devices that a host offers, and what others than machines of ours have of them and of the huge
// pages. It asks once per survey, and of devices only a host that offers any.
func (r *LibvirtHostReconciler) surveyHardware(ctx context.Context, s *hostScope) error {
	if s.survey.foreignPages != nil && s.survey.generation == s.libvirtHost.Generation {
		return nil
	}
	s.survey.generation = s.libvirtHost.Generation
	var machines infrav1.LibvirtMachineList
	if err := r.Client.List(ctx, &machines, client.InNamespace(s.libvirtHost.Namespace),
		client.MatchingFields{hostNameField: s.libvirtHost.Name}); err != nil {
		return fmt.Errorf("listing LibvirtMachines: %w", err)
	}
	domains := s.host.Domains()
	s.survey.foreignPages = foreignPages(s.survey.facts.HugePages, domains, machines.Items)
	s.survey.devices = nil
	if offers := s.libvirtHost.Spec.PCIDevices; len(offers) > 0 {
		devices, err := s.host.PCIDevices(ctx)
		if err != nil {
			return fmt.Errorf("asking the host for its PCI devices: %w", err)
		}
		holders, err := foreignHolders(ctx, s.host, domains, machines.Items)
		if err != nil {
			return err
		}
		s.survey.devices = offered(offers, devices, holders)
	}
	r.surveys.set(hostKey(s.libvirtHost.Namespace, s.libvirtHost.Name), s.survey)
	return nil
}

// foreignPages are the bytes of huge pages, by page size, that aren't free though no machine of ours that runs has them.
func foreignPages(pages []host.HugePages, domains []host.Domain, machines []infrav1.LibvirtMachine) map[int64]int64 {
	foreign := make(map[int64]int64, len(pages))
	for _, p := range pages {
		foreign[p.PageBytes] = p.TotalBytes - p.FreeBytes
	}
	sizes := pageSizesOf(machines)
	for _, dom := range domains {
		if size := sizes[dom.UUID]; size > 0 && dom.State != host.Shutoff {
			foreign[size] = max(foreign[size]-dom.MaxMemoryBytes, 0)
		}
	}
	return foreign
}

// foreignHolders are the domains that have devices of the host and aren't those of our machines, by the devices' addresses.
func foreignHolders(ctx context.Context, kvm *host.Host, domains []host.Domain, machines []infrav1.LibvirtMachine) (map[string]string, error) {
	ours := map[string]bool{}
	for i := range machines {
		ours[domain.UUID(machines[i].Spec.ProviderID)] = true
	}
	holders := map[string]string{}
	for _, dom := range domains {
		if ours[dom.UUID] {
			continue
		}
		definition, err := kvm.DomainXML(ctx, dom.UUID)
		if errors.Is(err, host.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("looking for devices of domain %s: %w", dom.Name, err)
		}
		addresses, err := domain.PCIAddresses(definition)
		if err != nil {
			return nil, fmt.Errorf("looking for devices of domain %s: %w", dom.Name, err)
		}
		for _, address := range addresses {
			holders[address] = dom.Name
		}
	}
	return holders, nil
}

// maxDevices is how many devices a host reports.
const maxDevices = 256

// offered are the devices of a host that it offers to machines.
func offered(offers []infrav1.PCIDeviceOffer, devices []host.PCIDevice, holders map[string]string) []infrav1.HostPCIDevice {
	var found []infrav1.HostPCIDevice
	for _, device := range devices {
		if len(found) < maxDevices && slices.ContainsFunc(offers, func(o infrav1.PCIDeviceOffer) bool {
			return o.Address == device.Address || (o.Address == "" && o.Vendor == device.Vendor && o.Device == device.Device)
		}) {
			found = append(found, infrav1.HostPCIDevice{
				Address: device.Address, Vendor: device.Vendor, Device: device.Device, Domain: holders[device.Address],
			})
		}
	}
	return found
}

// reportHardware writes to the status what the host has of huge pages and devices, and who has it.
func reportHardware(status *infrav1.LibvirtHostStatus, known survey, machines []infrav1.LibvirtMachine, used usage) {
	if known.foreignPages == nil {
		return // not surveyed yet: what was known before stands
	}
	status.HugePages = nil
	for _, pages := range known.facts.HugePages {
		status.HugePages = append(status.HugePages, infrav1.HostHugePages{
			PageSize: *resource.NewQuantity(pages.PageBytes, resource.BinarySI), Capacity: quantity(pages.TotalBytes),
			Taken: quantity(known.foreignPages[pages.PageBytes]), Allocated: quantity(used.hugePages[pages.PageBytes]),
		})
	}
	holders := map[string]string{}
	for i := range machines {
		for _, address := range machines[i].Spec.PCIAddresses {
			holders[address] = machines[i].Name
		}
	}
	status.PCIDevices = slices.Clone(known.devices)
	for i := range status.PCIDevices {
		status.PCIDevices[i].Machine = holders[status.PCIDevices[i].Address]
	}
}

// pageSizesOf are the sizes of huge pages that machines have their memory from, by the UUIDs of their domains. Machines
// with ordinary memory aren't among them.
func pageSizesOf(machines []infrav1.LibvirtMachine) map[string]int64 {
	sizes := map[string]int64{}
	for i := range machines {
		if size := machines[i].Spec.HugePages.PageBytes(); size > 0 {
			sizes[domain.UUID(machines[i].Spec.ProviderID)] = size
		}
	}
	return sizes
}

// hugePageRooms are what machines may have of the huge pages of a host, and the bytes of all of them.
func hugePageRooms(h *infrav1.LibvirtHost, used usage) (rooms []placement.Room, inStore int64) {
	for _, pages := range h.Status.HugePages {
		size := pages.PageSize.Value()
		rooms = append(rooms, placement.Room{
			Resource: placement.HugePages(size), Capacity: bytesOf(pages.Capacity) - bytesOf(pages.Taken), Promised: used.hugePages[size],
		})
		inStore += bytesOf(pages.Capacity)
	}
	return rooms, inStore
}
