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

// Image is a disk image: either a URL and its checksum, or a volume that is already on the host.
// +kubebuilder:validation:MinProperties=1
// +kubebuilder:validation:XValidation:rule="has(self.url) != has(self.volume)",message="set either url (with checksum) or volume"
// +kubebuilder:validation:XValidation:rule="!has(self.url) || has(self.checksum)",message="checksum is required with url: set it to sha256: and the digest that sha256sum prints for the image"
// +kubebuilder:validation:XValidation:rule="!has(self.volume) || !has(self.checksum)",message="checksum goes with url only: remove it, or set url instead of volume"
type Image struct {
	// url is where the manager downloads the image from: a qcow2 or raw disk image, as it is or compressed by xz, zstd or
	// gzip, which is told by its content and not by its name. By https from a public address; http and other addresses
	// only where the administrator of the manager allows them.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=2048
	// +kubebuilder:validation:Pattern=`^https?://[^/\s]+/\S*$`
	URL string `json:"url,omitempty"`

	// checksum is sha256: and the digest of the file at url, in lower-case hexadecimal. Of a compressed file, it is that of
	// the file as it is published.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	// +kubebuilder:validation:Pattern=`^sha256:[0-9a-f]{64}$`
	Checksum string `json:"checksum,omitempty"`

	// volume is the name of a volume in the host's imagePool. It must have no backing file and must not change as long
	// as a machine uses it.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=200
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9][A-Za-z0-9_.:-]*$`
	Volume string `json:"volume,omitempty"`
}
