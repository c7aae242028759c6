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

package bootstrap

import "fmt"

// CheckFormat tells whether bootstrap data of the given format, the key "format" of the bootstrap Secret, can be
// handed to a guest. An absent format means cloud-config, as the Cluster API contract says.
func CheckFormat(format string) error {
	switch format {
	case "", "cloud-config":
		return nil
	case "ignition":
		return fmt.Errorf("bootstrap data in the format %q is not served yet: set KubeadmConfig spec.format to cloud-config and use an image with cloud-init", format)
	default:
		return fmt.Errorf("bootstrap data in the format %q is unknown: set KubeadmConfig spec.format to cloud-config", format)
	}
}
