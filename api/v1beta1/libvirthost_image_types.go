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

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// DefaultImageHours is what an unset spec.images.deleteAfterHours means: a week.
const DefaultImageHours = 168

// HostImages says what becomes of the images that were downloaded to a host.
// +kubebuilder:validation:MinProperties=1
// +kubebuilder:validation:XValidation:rule="!has(self.deleteAfterHours) || !has(self.unusedPolicy) || self.unusedPolicy != 'Keep'",message="deleteAfterHours means nothing while unusedPolicy is Keep: remove one of them"
type HostImages struct {
	// unusedPolicy says what becomes of an image that nothing has used for long. Delete, which is what unset means, removes
	// it from the imagePool; it is downloaded again if it is wanted again. Keep leaves it there for good. An image is in use
	// while a LibvirtMachine or a LibvirtMachineTemplate names it, and it is never removed while a volume or a domain of
	// the host needs it, whoever made that.
	// +optional
	UnusedPolicy ImagePolicy `json:"unusedPolicy,omitempty"`

	// deleteAfterHours is for how long an image must have been unused to be removed. 168, a week, when unset.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=87600
	DeleteAfterHours int32 `json:"deleteAfterHours,omitempty"`
}

// ImagePolicy says what becomes of an image that nothing uses.
// +kubebuilder:validation:Enum=Delete;Keep
type ImagePolicy string

const (
	// ImagePolicyDelete removes an image that nothing has used for long.
	ImagePolicyDelete ImagePolicy = "Delete"

	// ImagePolicyKeep leaves it on the host.
	ImagePolicyKeep ImagePolicy = "Keep"
)

// HostImageStatus is an image that was downloaded to a host.
type HostImageStatus struct {
	// checksum of the image, as spec.image.checksum of a machine names it.
	// +required
	// +kubebuilder:validation:MinLength=71
	// +kubebuilder:validation:MaxLength=71
	Checksum string `json:"checksum,omitempty"`

	// unusedSince is when it was first seen that no LibvirtMachine and no LibvirtMachineTemplate names the image, or when
	// something on the host was last found to need it all the same. Unset while one does.
	// +optional
	UnusedSince metav1.Time `json:"unusedSince,omitempty,omitzero"`

	// keptFor is what needed the image when it was last due to be removed.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	KeptFor string `json:"keptFor,omitempty"`
}
