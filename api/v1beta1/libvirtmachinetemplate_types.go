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
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
)

// LibvirtMachineTemplateSpec is the desired state of a LibvirtMachineTemplate.
type LibvirtMachineTemplateSpec struct {
	// template is what LibvirtMachines are made from.
	// +required
	Template LibvirtMachineTemplateResource `json:"template,omitempty,omitzero"`
}

// LibvirtMachineTemplateResource is what a LibvirtMachine is made from.
type LibvirtMachineTemplateResource struct {
	// metadata is the labels and annotations of the LibvirtMachines.
	// +optional
	ObjectMeta clusterv1.ObjectMeta `json:"metadata,omitempty,omitzero"`

	// spec is the spec of the LibvirtMachines.
	// +required
	Spec LibvirtMachineSpec `json:"spec,omitempty,omitzero"`
}

// LibvirtMachineTemplateStatus is what can be told of the machines before there is one. The cluster autoscaler reads it to
// scale a MachineDeployment from zero. It is part of the Cluster API contract.
// +kubebuilder:validation:MinProperties=1
type LibvirtMachineTemplateStatus struct {
	// capacity is what a machine of the template has: cpu, memory, and with ephemeral-storage the size of its root disk.
	// +optional
	Capacity corev1.ResourceList `json:"capacity,omitempty"`

	// nodeInfo is the platform of the machines.
	// +optional
	NodeInfo NodeInfo `json:"nodeInfo,omitempty,omitzero"`
}

// Architecture is a processor architecture in Kubernetes' words.
// +kubebuilder:validation:Enum=amd64;arm64;s390x;ppc64le
type Architecture string

// ArchitectureAMD64 is that of all machines of this provider.
const ArchitectureAMD64 Architecture = "amd64"

// NodeInfo is the platform of a node, as its labels kubernetes.io/arch and kubernetes.io/os tell it.
// +kubebuilder:validation:MinProperties=1
type NodeInfo struct {
	// architecture is amd64, arm64, s390x or ppc64le.
	// +optional
	Architecture Architecture `json:"architecture,omitempty"`

	// operatingSystem is that of the node, for example linux.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	OperatingSystem string `json:"operatingSystem,omitempty"`
}

// LibvirtMachineTemplate is what the LibvirtMachines of a control plane or a MachineDeployment are made from. Its spec
// is immutable.
//
// +kubebuilder:object:root=true
// +kubebuilder:storageversion
// +kubebuilder:subresource:status
// +kubebuilder:metadata:labels="cluster.x-k8s.io/v1beta2=v1beta1"
// +kubebuilder:resource:path=libvirtmachinetemplates,scope=Namespaced,categories=cluster-api
// +kubebuilder:printcolumn:name="vCPUs",type="integer",JSONPath=".spec.template.spec.vcpus",description="Virtual CPUs"
// +kubebuilder:printcolumn:name="Memory",type="string",JSONPath=".spec.template.spec.memory",description="Memory"
// +kubebuilder:printcolumn:name="Disk",type="string",JSONPath=".spec.template.spec.rootDisk.size",description="Size of the root disk"
// +kubebuilder:printcolumn:name="Age",type="date",JSONPath=".metadata.creationTimestamp",description="Time since creation"
type LibvirtMachineTemplate struct {
	metav1.TypeMeta `json:",inline"`
	// metadata is the standard object's metadata.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is the desired state of the template.
	// +required
	Spec LibvirtMachineTemplateSpec `json:"spec,omitempty,omitzero"`

	// status is what can be told of the machines before there is one.
	// +optional
	Status LibvirtMachineTemplateStatus `json:"status,omitempty,omitzero"`
}

// LibvirtMachineTemplateList is a list of LibvirtMachineTemplates.
//
// +kubebuilder:object:root=true
type LibvirtMachineTemplateList struct {
	metav1.TypeMeta `json:",inline"`
	// metadata is the standard list's metadata.
	// +optional
	metav1.ListMeta `json:"metadata,omitempty"`
	// items is the list of LibvirtMachineTemplates.
	Items []LibvirtMachineTemplate `json:"items"`
}

func init() {
	objectTypes = append(objectTypes, &LibvirtMachineTemplate{}, &LibvirtMachineTemplateList{})
}
