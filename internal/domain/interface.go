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
	"cmp"

	"libvirt.org/go/libvirtxml"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/network"
)

// maxQueues bounds the queues of a network interface: more cost memory on the host and gain nothing at the speeds of a
// bridge.
const maxQueues = 4

// aliasPrefix begins, for libvirt, an alias that a user chose.
const aliasPrefix = "ua-"

// renderInterfaces renders the interfaces in the order in which the guest finds them.
func renderInterfaces(d Definition) []libvirtxml.DomainInterface {
	if len(d.Spec.Interfaces) == 0 {
		return []libvirtxml.DomainInterface{renderInterface(d, infrav1.Interface{Source: infrav1.InterfaceSourceCluster})}
	}
	nics := make([]libvirtxml.DomainInterface, 0, len(d.Spec.Interfaces))
	for _, i := range d.Spec.Interfaces {
		nics = append(nics, renderInterface(d, i))
	}
	return nics
}

func renderInterface(d Definition, i infrav1.Interface) libvirtxml.DomainInterface {
	nic := libvirtxml.DomainInterface{
		MAC:   &libvirtxml.DomainInterfaceMAC{Address: network.InterfaceMAC(d.UUID, i)},
		Model: &libvirtxml.DomainInterfaceModel{Type: "virtio"},
	}
	mtu := i.MTU
	switch i.Source {
	case infrav1.InterfaceSourceNetwork:
		nic.Source = networkSource(i.Network.Name, i.Network.PortGroup)
	case infrav1.InterfaceSourceBridge:
		nic.Source = bridgeSource(i.Bridge.Name)
		if i.Bridge.Type == infrav1.BridgeTypeOpenVSwitch {
			nic.VirtualPort = &libvirtxml.DomainInterfaceVirtualPort{
				Params: &libvirtxml.DomainInterfaceVirtualPortParams{OpenVSwitch: &libvirtxml.DomainInterfaceVirtualPortParamsOpenVSwitch{}},
			}
		}
		if i.Bridge.VLAN != 0 {
			nic.VLan = &libvirtxml.DomainInterfaceVLan{Tags: []libvirtxml.DomainInterfaceVLanTag{{ID: uint(i.Bridge.VLAN)}}}
		}
	default:
		nic.MAC.Address, mtu = d.MAC, d.MTU
		nic.Source = networkSource(d.NetworkName, "")
		if d.Bridge != "" {
			nic.Source = bridgeSource(d.Bridge)
		}
	}
	if mtu != 0 {
		nic.MTU = &libvirtxml.DomainInterfaceMTU{Size: uint(mtu)}
	}
	if queues := cmp.Or(int(i.Queues), min(int(d.Spec.VCPUs), maxQueues)); queues > 1 {
		nic.Driver = &libvirtxml.DomainInterfaceDriver{Queues: uint(queues)}
	}
	if i.Name != "" {
		nic.Alias = &libvirtxml.DomainAlias{Name: aliasPrefix + i.Name}
	}
	return nic
}

func networkSource(name, portGroup string) *libvirtxml.DomainInterfaceSource {
	return &libvirtxml.DomainInterfaceSource{Network: &libvirtxml.DomainInterfaceSourceNetwork{Network: name, PortGroup: portGroup}}
}

func bridgeSource(name string) *libvirtxml.DomainInterfaceSource {
	return &libvirtxml.DomainInterfaceSource{Bridge: &libvirtxml.DomainInterfaceSourceBridge{Bridge: name}}
}
