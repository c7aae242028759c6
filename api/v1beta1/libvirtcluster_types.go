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
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
)

// ClusterFinalizer keeps a LibvirtCluster until its networks are gone from all hosts.
const ClusterFinalizer = "infrastructure.cluster.x-k8s.io/libvirtcluster"

// LibvirtClusterSpec says where a cluster runs and what its node network looks like.
type LibvirtClusterSpec struct {
	// controlPlaneEndpoint is where the API server of the cluster answers. In a managed network the host is an address
	// that is set aside for virtual addresses: the second to the ninth of spec.network.cidr (the second and the third
	// of a network smaller than /27). In an existing one it is any address of spec.network.cidr that nobody else has
	// and that lies outside spec.network.nodeRange. Taken from Cluster.spec.controlPlaneEndpoint when unset.
	// +optional
	ControlPlaneEndpoint APIEndpoint `json:"controlPlaneEndpoint,omitempty,omitzero"`

	// hostSelector selects, by label, the LibvirtHosts of this namespace that the cluster may use. An empty selector
	// selects all of them.
	// +optional
	HostSelector metav1.LabelSelector `json:"hostSelector,omitempty,omitzero"`

	// network is the node network. On each host the cluster uses, it is a libvirt network that the provider owns, or
	// one that is there already.
	// +required
	Network ClusterNetwork `json:"network,omitempty,omitzero"`
}

// APIEndpoint is where an API server answers.
// +kubebuilder:validation:MinProperties=1
type APIEndpoint struct {
	// host is an IP address.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	Host string `json:"host,omitempty"`

	// port is a TCP port. 6443 is the usual one.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	Port int32 `json:"port,omitempty"`
}

// NetworkManagementPolicy says who makes the node network.
// +kubebuilder:validation:Enum=Managed;Existing
type NetworkManagementPolicy string

const (
	// NetworkManaged makes a libvirt network on each host, and removes it with the cluster. The networks of two
	// hosts aren't connected with each other, unless siteLink says so.
	NetworkManaged NetworkManagementPolicy = "Managed"

	// NetworkExisting uses a network that is there on every host of the cluster and is never changed. The hosts share
	// it as one layer 2, such as a LAN.
	NetworkExisting NetworkManagementPolicy = "Existing"
)

// ClusterNetwork is the node network of a cluster.
// +kubebuilder:validation:MinProperties=1
// +kubebuilder:validation:XValidation:rule="!has(self.managementPolicy) || self.managementPolicy != 'Existing' || has(self.name) != has(self.bridge)",message="managementPolicy Existing needs the network that every host has: set either name (of a libvirt network) or bridge (of the host)"
// +kubebuilder:validation:XValidation:rule="!has(self.managementPolicy) || self.managementPolicy != 'Existing' || (has(self.nodeRange) && has(self.gateway) && has(self.nameservers))",message="managementPolicy Existing needs nodeRange, gateway and nameservers, because machines get static addresses: set all three"
// +kubebuilder:validation:XValidation:rule="!has(self.managementPolicy) || self.managementPolicy != 'Existing' || !(has(self.subnets) || has(self.uuid))",message="subnets and uuid belong to networks that the provider makes: remove them, or the managementPolicy Existing"
// +kubebuilder:validation:XValidation:rule="(has(self.managementPolicy) && self.managementPolicy == 'Existing') || !(has(self.name) || has(self.bridge) || has(self.nodeRange) || has(self.gateway) || has(self.nameservers))",message="name, bridge, nodeRange, gateway and nameservers belong to networks that are there already: set managementPolicy to Existing, or remove them"
// +kubebuilder:validation:XValidation:rule="!has(self.managementPolicy) || self.managementPolicy != 'Existing' || !(has(self.forwarding) || has(self.ingress) || has(self.apiServerAccess))",message="forwarding, ingress and apiServerAccess belong to networks that the provider makes, clients reach an existing network by its own router: remove them, or the managementPolicy Existing"
// +kubebuilder:validation:XValidation:rule="!(has(self.ingress) || has(self.apiServerAccess)) || (has(self.forwarding) ? self.forwarding == 'HostAgent' : !has(self.uuid))",message="ingress and apiServerAccess don't go with forwarding NAT, which lets nobody in: create the cluster with forwarding: HostAgent, or remove them"
// +kubebuilder:validation:XValidation:rule="!has(self.ingress) || has(self.ingressCIDR)",message="ingress leads to the address of a LoadBalancer Service: set ingressCIDR, the range of those addresses"
// +kubebuilder:validation:XValidation:rule="!has(self.siteLink) || !has(self.managementPolicy) || self.managementPolicy != 'Existing'",message="siteLink belongs to networks that the provider makes, an existing one connects the hosts by itself: remove it, or the managementPolicy Existing"
// +kubebuilder:validation:XValidation:rule="!has(self.siteLink) || (has(self.forwarding) ? self.forwarding == 'HostAgent' : !has(self.uuid))",message="siteLink doesn't go with forwarding NAT, because the agents of the hosts make the link: create the cluster with forwarding: HostAgent, or remove siteLink"
// +kubebuilder:validation:XValidation:rule="!has(self.siteLink) || has(self.subnets) || (has(self.managementPolicy) && self.managementPolicy == 'Existing')",message="siteLink links hosts with ranges of their own: set subnets, a range for each failure domain but that of the control plane"
type ClusterNetwork struct {
	// managementPolicy is Managed (the provider makes a libvirt network on each host), or Existing (the network
	// of name or bridge is there on every host and connects them). Managed when unset.
	// +optional
	ManagementPolicy NetworkManagementPolicy `json:"managementPolicy,omitempty"`

	// name of the libvirt network that every host of the cluster has. It must be up and must connect the hosts, as one
	// with the forward mode bridge does. With managementPolicy Existing only, instead of bridge.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	// +kubebuilder:validation:Pattern=`^[^/\s]+$`
	Name string `json:"name,omitempty"`

	// bridge that every host of the cluster has, for example br0: a bridge of the host's own that connects it with the
	// LAN. Whether it is there shows when the first machine starts on a host. With managementPolicy Existing only,
	// instead of name.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=15
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9_.:-]+$`
	Bridge string `json:"bridge,omitempty"`

	// cidr is the IPv4 range of the nodes, for example 10.100.0.0/25. In a managed network, of /16 to /29, its first
	// address is the gateway, the next eight (two in a network smaller than /27) are for virtual addresses, and nodes
	// get the rest by DHCP reservation. Of an existing network, of /8 to /29, it is the range that the LAN has.
	// +required
	// +kubebuilder:validation:MinLength=9
	// +kubebuilder:validation:MaxLength=18
	CIDR string `json:"cidr,omitempty"`

	// nodeRange is the part of cidr that nodes get addresses from, first and last address included, for example
	// 192.168.1.100-192.168.1.149. Nothing else may use it: neither a DHCP server nor another cluster. It can be widened
	// later. With managementPolicy Existing only.
	// +optional
	// +kubebuilder:validation:MinLength=15
	// +kubebuilder:validation:MaxLength=31
	NodeRange string `json:"nodeRange,omitempty"`

	// gateway is the address of the router in cidr. With managementPolicy Existing only.
	// +optional
	// +kubebuilder:validation:MinLength=7
	// +kubebuilder:validation:MaxLength=15
	Gateway string `json:"gateway,omitempty"`

	// nameservers are the addresses of the DNS servers that nodes ask. With managementPolicy Existing only.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=3
	// +kubebuilder:validation:items:MinLength=2
	// +kubebuilder:validation:items:MaxLength=45
	Nameservers []string `json:"nameservers,omitempty"`

	// ingressCIDR is an IPv4 range for the addresses of LoadBalancer Services, for example 10.100.0.128/25. Nodes never
	// get an address of it. In a managed network it lies beside cidr and is routed to the node network of the hosts
	// that have no subnet of their own. In an existing one it lies in cidr or beside it.
	// +optional
	// +kubebuilder:validation:MinLength=9
	// +kubebuilder:validation:MaxLength=18
	IngressCIDR string `json:"ingressCIDR,omitempty"`

	// subnets give the hosts of a failure domain a range of their own instead of cidr, so that the networks of several
	// sites can be routed to each other, as siteLink does. The control-plane endpoint stays in cidr. With managementPolicy
	// Managed only.
	// +optional
	// +listType=map
	// +listMapKey=failureDomain
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=100
	Subnets []Subnet `json:"subnets,omitempty"`

	// mtu of the node network in bytes. When unset it is what siteLink carries, and 1500 without one.
	// +optional
	// +kubebuilder:validation:Minimum=1280
	// +kubebuilder:validation:Maximum=9216
	MTU int32 `json:"mtu,omitempty"`

	// forwarding says who leads packets between the nodes and the world: NAT (libvirt, which lets nobody in) or HostAgent
	// (the agent on each host, which lets in what ingress and apiServerAccess say). When unset it is HostAgent if one of
	// these or siteLink is set, and NAT otherwise. It is kept for the life of the cluster. With managementPolicy Managed
	// only.
	// +optional
	Forwarding Forwarding `json:"forwarding,omitempty"`

	// ingress lets clients outside reach a LoadBalancer Service at ports of an address of the hosts. It can be changed at
	// any time. With forwarding HostAgent only.
	// +optional
	Ingress Ingress `json:"ingress,omitempty,omitzero"`

	// apiServerAccess lets clients in listed networks reach the API server at an address of the hosts. It can be changed
	// at any time. With forwarding HostAgent only.
	// +optional
	APIServerAccess APIServerAccess `json:"apiServerAccess,omitempty,omitzero"`

	// siteLink leads packets between the node networks of the hosts, so that machines on several sites reach each other. Each
	// host needs a range of its own: one of them has cidr and all others have subnets. Control-plane machines are placed on
	// that with cidr, where their endpoint is. It can be set, changed and removed later as long as the MTU of the node network
	// stays the same. With forwarding HostAgent only.
	// +optional
	SiteLink SiteLink `json:"siteLink,omitempty,omitzero"`

	// uuid of the managed libvirt network, the same on each host. Set by the provider, kept for the life of the cluster.
	// +optional
	// +kubebuilder:validation:MinLength=36
	// +kubebuilder:validation:MaxLength=36
	// +kubebuilder:validation:Pattern=`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`
	UUID string `json:"uuid,omitempty"`
}

// Subnet is the part of a node network on the hosts of a failure domain.
type Subnet struct {
	// failureDomain is that of the hosts, see LibvirtHost.spec.failureDomain.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	FailureDomain string `json:"failureDomain,omitempty"`

	// cidr is the IPv4 range of the nodes there, of /16 to /29, for example 10.100.1.0/25. It is divided like
	// spec.network.cidr.
	// +required
	// +kubebuilder:validation:MinLength=9
	// +kubebuilder:validation:MaxLength=18
	CIDR string `json:"cidr,omitempty"`
}

// LibvirtClusterStatus is what was last seen of a cluster's infrastructure.
// +kubebuilder:validation:MinProperties=1
type LibvirtClusterStatus struct {
	// conditions represent the observations of the cluster infrastructure's current state.
	// Known condition types are Ready, HostsAvailable, NetworkReady, GatewayReady, SitesLinked, Deleting and Paused.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=32
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// initialization provides observations of the initialization process. It is part of the Cluster API contract.
	// +optional
	Initialization LibvirtClusterInitializationStatus `json:"initialization,omitempty,omitzero"`

	// failureDomains are the failure domains of the hosts in use. With spec.network.siteLink, those with a subnet aren't for
	// control-plane machines.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=100
	FailureDomains []clusterv1.FailureDomain `json:"failureDomains,omitempty"`

	// hosts are the names of the LibvirtHosts that the cluster uses: those that have, or may have, its network.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=1000
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=253
	Hosts []string `json:"hosts,omitempty"`
}

// LibvirtClusterInitializationStatus provides observations of the initialization process.
// +kubebuilder:validation:MinProperties=1
type LibvirtClusterInitializationStatus struct {
	// provisioned is true once the network of the cluster is there on a host. It is part of the Cluster API contract.
	// +optional
	Provisioned *bool `json:"provisioned,omitempty"`
}

// LibvirtCluster is the infrastructure of a cluster: its hosts and its node network.
//
// The rules on changes are on the kind and not on its spec, because templates share the spec.
//
// +kubebuilder:validation:XValidation:rule="self.spec.network.cidr == oldSelf.spec.network.cidr",message="spec.network.cidr can't be changed, because machines have addresses from it: create a new cluster instead"
// +kubebuilder:validation:XValidation:rule="(has(self.spec.network.managementPolicy) && self.spec.network.managementPolicy == 'Existing') == (has(oldSelf.spec.network.managementPolicy) && oldSelf.spec.network.managementPolicy == 'Existing') && has(self.spec.network.name) == has(oldSelf.spec.network.name) && (!has(self.spec.network.name) || self.spec.network.name == oldSelf.spec.network.name) && has(self.spec.network.bridge) == has(oldSelf.spec.network.bridge) && (!has(self.spec.network.bridge) || self.spec.network.bridge == oldSelf.spec.network.bridge)",message="spec.network.managementPolicy, spec.network.name and spec.network.bridge can't be changed, because machines are in that network: create a new cluster instead"
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.spec.network.uuid) || (has(self.spec.network.uuid) && self.spec.network.uuid == oldSelf.spec.network.uuid)",message="spec.network.uuid can't be changed or removed: it identifies the libvirt networks of the cluster"
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.spec.network.uuid) || (has(self.spec.network.forwarding) ? self.spec.network.forwarding : 'NAT') == (has(oldSelf.spec.network.forwarding) ? oldSelf.spec.network.forwarding : 'NAT')",message="spec.network.forwarding can't be changed once the network is there, because the network would have to be stopped under the machines: create the cluster with forwarding: HostAgent (or NAT) instead"
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.spec.controlPlaneEndpoint) || !has(oldSelf.spec.controlPlaneEndpoint.host) || (has(self.spec.controlPlaneEndpoint) && self.spec.controlPlaneEndpoint == oldSelf.spec.controlPlaneEndpoint)",message="spec.controlPlaneEndpoint can't be changed or removed once it is set, because certificates and kubeconfigs name it: create a new cluster instead"
// +kubebuilder:object:root=true
// +kubebuilder:storageversion
// +kubebuilder:subresource:status
// +kubebuilder:metadata:labels="cluster.x-k8s.io/v1beta2=v1beta1"
// +kubebuilder:resource:path=libvirtclusters,scope=Namespaced,categories=cluster-api
// +kubebuilder:printcolumn:name="Cluster",type="string",JSONPath=".metadata.labels['cluster\\.x-k8s\\.io/cluster-name']",description="Cluster"
// +kubebuilder:printcolumn:name="Endpoint",type="string",JSONPath=".spec.controlPlaneEndpoint.host",description="Where the API server answers"
// +kubebuilder:printcolumn:name="Network",type="string",JSONPath=".spec.network.cidr",description="Range of the node network"
// +kubebuilder:printcolumn:name="Hosts",type="string",JSONPath=".status.hosts",description="Hosts in use",priority=10
// +kubebuilder:printcolumn:name="Linked",type="string",JSONPath=`.status.conditions[?(@.type=="SitesLinked")].status`,description="The hosts of all sites are linked",priority=10
// +kubebuilder:printcolumn:name="Provisioned",type="string",JSONPath=".status.initialization.provisioned",description="The infrastructure is provisioned"
// +kubebuilder:printcolumn:name="Ready",type="string",JSONPath=`.status.conditions[?(@.type=="Ready")].status`,description="The infrastructure is ready"
// +kubebuilder:printcolumn:name="Reason",type="string",JSONPath=`.status.conditions[?(@.type=="Ready")].reason`,description="Why the infrastructure is or isn't ready",priority=10
// +kubebuilder:printcolumn:name="Age",type="date",JSONPath=".metadata.creationTimestamp",description="Time since creation"
type LibvirtCluster struct {
	metav1.TypeMeta `json:",inline"`
	// metadata is the standard object's metadata.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is the desired state of the cluster infrastructure.
	// +required
	Spec LibvirtClusterSpec `json:"spec,omitempty,omitzero"`

	// status is the observed state of the cluster infrastructure.
	// +optional
	Status LibvirtClusterStatus `json:"status,omitempty,omitzero"`
}

// GetConditions returns the conditions of the cluster infrastructure.
func (c *LibvirtCluster) GetConditions() []metav1.Condition {
	return c.Status.Conditions
}

// SetConditions replaces the conditions of the cluster infrastructure.
func (c *LibvirtCluster) SetConditions(conditions []metav1.Condition) {
	c.Status.Conditions = conditions
}

// LibvirtClusterList is a list of LibvirtClusters.
//
// +kubebuilder:object:root=true
type LibvirtClusterList struct {
	metav1.TypeMeta `json:",inline"`
	// metadata is the standard list's metadata.
	// +optional
	metav1.ListMeta `json:"metadata,omitempty"`
	// items is the list of LibvirtClusters.
	Items []LibvirtCluster `json:"items"`
}

func init() {
	objectTypes = append(objectTypes, &LibvirtCluster{}, &LibvirtClusterList{})
}
