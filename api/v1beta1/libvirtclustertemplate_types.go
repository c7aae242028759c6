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

// LibvirtClusterTemplateSpec is the desired state of a LibvirtClusterTemplate.
type LibvirtClusterTemplateSpec struct {
	// template is what the LibvirtCluster of a topology is made from.
	// +required
	Template LibvirtClusterTemplateResource `json:"template,omitempty,omitzero"`
}

// LibvirtClusterTemplateResource is what a LibvirtCluster is made from.
type LibvirtClusterTemplateResource struct {
	// metadata is the labels and annotations of the LibvirtCluster.
	// +optional
	ObjectMeta clusterv1.ObjectMeta `json:"metadata,omitempty,omitzero"`

	// spec is the spec of the LibvirtCluster.
	// +required
	Spec LibvirtClusterSpec `json:"spec,omitempty,omitzero"`
}

// LibvirtClusterTemplate is what the LibvirtClusters of a ClusterClass are made from. Its spec is immutable.
//
// +kubebuilder:object:root=true
// +kubebuilder:storageversion
// +kubebuilder:metadata:labels="cluster.x-k8s.io/v1beta2=v1beta1"
// +kubebuilder:resource:path=libvirtclustertemplates,scope=Namespaced,categories=cluster-api
// +kubebuilder:printcolumn:name="Network",type="string",JSONPath=".spec.template.spec.network.cidr",description="Range of the node network"
// +kubebuilder:printcolumn:name="Age",type="date",JSONPath=".metadata.creationTimestamp",description="Time since creation"
type LibvirtClusterTemplate struct {
	metav1.TypeMeta `json:",inline"`
	// metadata is the standard object's metadata.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is the desired state of the template.
	// +required
	Spec LibvirtClusterTemplateSpec `json:"spec,omitempty,omitzero"`
}

// LibvirtClusterTemplateList is a list of LibvirtClusterTemplates.
//
// +kubebuilder:object:root=true
type LibvirtClusterTemplateList struct {
	metav1.TypeMeta `json:",inline"`
	// metadata is the standard list's metadata.
	// +optional
	metav1.ListMeta `json:"metadata,omitempty"`
	// items is the list of LibvirtClusterTemplates.
	Items []LibvirtClusterTemplate `json:"items"`
}

func init() {
	objectTypes = append(objectTypes, &LibvirtClusterTemplate{}, &LibvirtClusterTemplateList{})
}
