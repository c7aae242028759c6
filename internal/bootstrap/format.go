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

// Format is the language of bootstrap data.
type Format string

// The formats that guests can be given.
const (
	// CloudConfig is read by cloud-init, from a NoCloud seed image.
	CloudConfig Format = "cloud-config"
	// Ignition is read by Ignition, from QEMU's firmware configuration.
	Ignition Format = "ignition"
)

// ParseFormat reads the key "format" of a bootstrap Secret. An absent format means cloud-config, as the Cluster API
// contract says. It fails when guests can't be given the format.
func ParseFormat(format string) (Format, error) {
	switch format {
	case "", string(CloudConfig):
		return CloudConfig, nil
	case string(Ignition):
		return Ignition, nil
	default:
		return "", fmt.Errorf("bootstrap data in the format %q is unknown: set KubeadmConfig spec.format to cloud-config or ignition", format)
	}
}
