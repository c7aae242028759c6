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
	// controlPlaneEndpoint is where the API server of the cluster answers. The host is an address of the node network
	// that is set aside for virtual addresses: the second to the ninth of spec.network.cidr (the second and the third
	// of a network smaller than /27). Taken from Cluster.spec.controlPlaneEndpoint when unset.
	// +optional
	ControlPlaneEndpoint APIEndpoint `json:"controlPlaneEndpoint,omitempty,omitzero"`

	// hostSelector selects, by label, the LibvirtHosts of this namespace that the cluster may use. An empty selector
	// selects all of them.
	// +optional
	HostSelector metav1.LabelSelector `json:"hostSelector,omitempty,omitzero"`

	// network is the node network. On each host the cluster uses, it is a libvirt network that the provider owns.
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

// ClusterNetwork is the node network of a cluster.
// +kubebuilder:validation:MinProperties=1
type ClusterNetwork struct {
	// cidr is the IPv4 range of the nodes, for example 10.100.0.0/25, of /16 to /29. Its first address is the
	// gateway, the next eight (two in a network smaller than /27) are for virtual addresses, and nodes get the rest by
	// DHCP reservation.
	// +required
	// +kubebuilder:validation:MinLength=9
	// +kubebuilder:validation:MaxLength=18
	CIDR string `json:"cidr,omitempty"`

	// ingressCIDR is an IPv4 range beside cidr for the addresses of LoadBalancer Services, for example
	// 10.100.0.128/25. It is routed to the node network and never given out by DHCP.
	// +optional
	// +kubebuilder:validation:MinLength=9
	// +kubebuilder:validation:MaxLength=18
	IngressCIDR string `json:"ingressCIDR,omitempty"`

	// mtu of the node network in bytes. 1500 when unset.
	// +optional
	// +kubebuilder:validation:Minimum=1280
	// +kubebuilder:validation:Maximum=9216
	MTU int32 `json:"mtu,omitempty"`

	// uuid of the libvirt network, the same on each host. Set by the provider, kept for the life of the cluster.
	// +optional
	// +kubebuilder:validation:MinLength=36
	// +kubebuilder:validation:MaxLength=36
	// +kubebuilder:validation:Pattern=`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`
	UUID string `json:"uuid,omitempty"`
}

// LibvirtClusterStatus is what was last seen of a cluster's infrastructure.
// +kubebuilder:validation:MinProperties=1
type LibvirtClusterStatus struct {
	// conditions represent the observations of the cluster infrastructure's current state.
	// Known condition types are Ready, HostsAvailable, NetworkReady, Deleting and Paused.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=32
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// initialization provides observations of the initialization process. It is part of the Cluster API contract.
	// +optional
	Initialization LibvirtClusterInitializationStatus `json:"initialization,omitempty,omitzero"`

	// failureDomains are the failure domains of the hosts in use.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=100
	FailureDomains []clusterv1.FailureDomain `json:"failureDomains,omitempty"`

	// hosts are the names of the LibvirtHosts that have, or may have, a network of this cluster.
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
	// provisioned is true once the network of the cluster is up on a host. It is part of the Cluster API contract.
	// +optional
	Provisioned *bool `json:"provisioned,omitempty"`
}

// LibvirtCluster is the infrastructure of a cluster: its hosts and its node network.
//
// The rules on changes are on the kind and not on its spec, because templates share the spec.
//
// +kubebuilder:validation:XValidation:rule="self.spec.network.cidr == oldSelf.spec.network.cidr",message="spec.network.cidr can't be changed, because machines have addresses from it: create a new cluster instead"
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.spec.network.uuid) || (has(self.spec.network.uuid) && self.spec.network.uuid == oldSelf.spec.network.uuid)",message="spec.network.uuid can't be changed or removed: it identifies the libvirt networks of the cluster"
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
