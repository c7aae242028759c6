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

// LibvirtMachineTemplate is what the LibvirtMachines of a control plane or a MachineDeployment are made from. Its spec
// is immutable.
//
// +kubebuilder:object:root=true
// +kubebuilder:storageversion
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
