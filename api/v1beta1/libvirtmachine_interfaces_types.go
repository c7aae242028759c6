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
	ipamv1 "sigs.k8s.io/cluster-api/api/ipam/v1beta2"
)

// IPAddressClaimFinalizer keeps an IPAddressClaim, and with it the address, until the machine that has it is gone.
const IPAddressClaimFinalizer = "infrastructure.cluster.x-k8s.io/libvirtmachine-address"

// Interface is a network interface of a machine.
// +kubebuilder:validation:XValidation:rule="has(self.network) == (self.source == 'Network')",message="source Network needs network, with the name of a libvirt network, and no other source takes it"
// +kubebuilder:validation:XValidation:rule="has(self.bridge) == (self.source == 'Bridge')",message="source Bridge needs bridge, with the name of a bridge of the host, and no other source takes it"
// +kubebuilder:validation:XValidation:rule="self.source != 'Cluster' || !(has(self.macAddress) || has(self.mtu) || has(self.nameservers))",message="macAddress, mtu and nameservers don't go with source Cluster, where they follow from the machine and from spec.network of the LibvirtCluster: remove them"
// +kubebuilder:validation:XValidation:rule="self.source != 'Cluster' || !has(self.addressing) || self.addressing == 'IPAM'",message="an interface with source Cluster always has an address: remove addressing, or set it to IPAM with addressesFromPools"
// +kubebuilder:validation:XValidation:rule="has(self.addressesFromPools) == (has(self.addressing) && self.addressing == 'IPAM')",message="addressing IPAM needs addressesFromPools, and no other addressing takes it: set both or none"
// +kubebuilder:validation:XValidation:rule="!has(self.nameservers) || !has(self.addressing) || self.addressing != 'None'",message="nameservers are of no use without addresses: remove them, or set addressing to DHCP or IPAM"
// +kubebuilder:validation:XValidation:rule="!has(self.defaultRoute) || self.defaultRoute != 'Use' || !has(self.addressing) || self.addressing != 'None'",message="an interface without addresses can't have the default route: set addressing to DHCP or IPAM, or remove defaultRoute"
type Interface struct {
	// name of the interface, for example storage. It is the alias of the interface in libvirt, with ua- before it, and
	// its key in the guest's network configuration; the guest's own name for it is another, such as enp2s0.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	Name string `json:"name,omitempty"`

	// source is what the interface is plugged into: Cluster (the node network), Network (a libvirt network) or Bridge (a
	// bridge of the host).
	// +required
	Source InterfaceSource `json:"source,omitempty"`

	// network is the libvirt network. With source Network only.
	// +optional
	Network InterfaceNetwork `json:"network,omitempty,omitzero"`

	// bridge is the bridge of the host. With source Bridge only.
	// +optional
	Bridge InterfaceBridge `json:"bridge,omitempty,omitzero"`

	// macAddress of the interface, a unicast address in lower case such as 52:54:00:12:34:56. Without it the address
	// follows from the machine's UUID. It belongs to one machine, so a LibvirtMachineTemplate can't have it.
	// +optional
	// +kubebuilder:validation:MinLength=17
	// +kubebuilder:validation:MaxLength=17
	// +kubebuilder:validation:Pattern=`^[0-9a-f][02468ace](:[0-9a-f]{2}){5}$`
	// +kubebuilder:validation:XValidation:rule="!self.startsWith('fe:')",message="macAddress must not begin with fe, which libvirt keeps for the host's side: use one that begins with 52:54:00"
	MACAddress string `json:"macAddress,omitempty"`

	// mtu of the interface in bytes. That of the network or bridge when unset.
	// +optional
	// +kubebuilder:validation:Minimum=1280
	// +kubebuilder:validation:Maximum=9216
	MTU int32 `json:"mtu,omitempty"`

	// queues is the number of receive and transmit queues. That of the machine's virtual CPUs when unset, but not more
	// than 4.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=256
	Queues int32 `json:"queues,omitempty"`

	// addressing is where addresses come from: DHCP (a server in the network), IPAM (the pools of addressesFromPools) or
	// None. DHCP when unset; with source Cluster an address of the node network.
	// +optional
	Addressing InterfaceAddressing `json:"addressing,omitempty"`

	// addressesFromPools are pools of an IPAM provider of Cluster API, in this namespace or without one. The interface gets
	// an address, IPv4 or IPv6, from each. With addressing IPAM only. With source Cluster it needs an existing network
	// (spec.network.managementPolicy of the LibvirtCluster), and the first IPv4 address becomes spec.address.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=4
	AddressesFromPools []ipamv1.IPPoolReference `json:"addressesFromPools,omitempty"`

	// nameservers are the addresses of DNS servers that the guest asks by this interface.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=3
	// +kubebuilder:validation:items:MinLength=2
	// +kubebuilder:validation:items:MaxLength=45
	// +kubebuilder:validation:XValidation:rule="self.all(s, isIP(s))",message="nameservers must be IP addresses, for example 192.168.1.1"
	Nameservers []string `json:"nameservers,omitempty"`

	// defaultRoute is Use (the guest reaches the world by this interface) or Ignore (what a pool or DHCP says of gateways
	// is left alone). At most one interface has Use. Without any it is the first interface that has addresses, and Ignore
	// on all others.
	// +optional
	DefaultRoute DefaultRoute `json:"defaultRoute,omitempty"`
}

// InterfaceSource is what an interface is plugged into.
// +kubebuilder:validation:Enum=Cluster;Network;Bridge
type InterfaceSource string

const (
	// InterfaceSourceCluster is the node network of the cluster.
	InterfaceSourceCluster InterfaceSource = "Cluster"

	// InterfaceSourceNetwork is a libvirt network of the host.
	InterfaceSourceNetwork InterfaceSource = "Network"

	// InterfaceSourceBridge is a bridge of the host.
	InterfaceSourceBridge InterfaceSource = "Bridge"
)

// InterfaceNetwork is a libvirt network of the host.
// +kubebuilder:validation:MinProperties=1
type InterfaceNetwork struct {
	// name of the libvirt network. The host must have it, and it must be up. Networks that the provider made for a cluster
	// of another namespace are refused.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	// +kubebuilder:validation:Pattern=`^[^/\s]+$`
	Name string `json:"name,omitempty"`

	// portGroup is a port group of the libvirt network, which may put the interface into a VLAN. That which the network
	// calls its default when unset.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	// +kubebuilder:validation:Pattern=`^[^/\s]+$`
	PortGroup string `json:"portGroup,omitempty"`
}

// InterfaceBridge is a bridge of the host.
// +kubebuilder:validation:MinProperties=1
// +kubebuilder:validation:XValidation:rule="!has(self.vlan) || (has(self.type) && self.type == 'OpenVSwitch')",message="vlan needs an Open vSwitch bridge: set type to OpenVSwitch; for a Linux bridge, make a bridge over the VLAN on the host (for example br42 over eno1.42) and name that"
type InterfaceBridge struct {
	// name of the bridge on the host, for example br0. A bridge of a cluster's managed network (capl-…) is refused.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=15
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9_.:-]+$`
	// +kubebuilder:validation:XValidation:rule="!self.startsWith('capl-')",message="a bridge whose name begins with capl- belongs to the managed network of a cluster: use source Cluster for the machine's own, or source Network with the name of the other"
	Name string `json:"name,omitempty"`

	// type is LinuxBridge or OpenVSwitch. LinuxBridge when unset.
	// +optional
	Type BridgeType `json:"type,omitempty"`

	// vlan is the number of the VLAN whose frames the interface gets, untagged. With type OpenVSwitch only.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=4094
	VLAN int32 `json:"vlan,omitempty"`
}

// BridgeType is the kind of a bridge.
// +kubebuilder:validation:Enum=LinuxBridge;OpenVSwitch
type BridgeType string

const (
	// BridgeTypeLinux is a bridge of the Linux kernel.
	BridgeTypeLinux BridgeType = "LinuxBridge"

	// BridgeTypeOpenVSwitch is a bridge of Open vSwitch.
	BridgeTypeOpenVSwitch BridgeType = "OpenVSwitch"
)

// InterfaceAddressing is where the addresses of an interface come from.
// +kubebuilder:validation:Enum=DHCP;IPAM;None
type InterfaceAddressing string

const (
	// InterfaceAddressingDHCP asks a DHCP server in the network for an IPv4 address.
	InterfaceAddressingDHCP InterfaceAddressing = "DHCP"

	// InterfaceAddressingIPAM claims addresses from pools of an IPAM provider.
	InterfaceAddressingIPAM InterfaceAddressing = "IPAM"

	// InterfaceAddressingNone leaves the interface without addresses.
	InterfaceAddressingNone InterfaceAddressing = "None"
)

// DefaultRoute tells whether the guest reaches the world by an interface.
// +kubebuilder:validation:Enum=Use;Ignore
type DefaultRoute string

const (
	// DefaultRouteUse has the guest reach the world by this interface.
	DefaultRouteUse DefaultRoute = "Use"

	// DefaultRouteIgnore leaves alone what a pool or DHCP says of gateways.
	DefaultRouteIgnore DefaultRoute = "Ignore"
)
