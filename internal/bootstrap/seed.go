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

// Package bootstrap turns bootstrap data into the seed image or the Ignition config from which a guest configures itself
// at its first boot, and tells from what a guest wrote how that went. It is pure: the same input gives the same bytes.
package bootstrap

import (
	"errors"
	"fmt"

	"sigs.k8s.io/yaml"
)

// Limits of what a seed may carry. Bootstrap data lives in a Secret, which Kubernetes bounds to 1 MiB; the
// limit here only keeps a mistake from filling the host's seed pool.
const (
	maxUserDataBytes      = 16 << 20
	maxNetworkConfigBytes = 1 << 20
)

// vendorData has cloud-init go by what it remembers of the seed at later boots, when the seed is gone. Without it
// cloud-init would take the machine for a new one, with another host name, other SSH keys and a network by DHCP. It also
// leaves Begun, in the first boot only: a boothook runs in each, whatever modules the image lists.
const vendorData = `#cloud-config-archive
- type: text/cloud-config
  content: |
    #cloud-config
    manual_cache_clean: true
- type: text/cloud-boothook
  content: |
    #!/bin/sh
    mkdir /var/lib/cloud/instance/bootstrap-begun 2>/dev/null || exit 0
    mkdir -p /run/cluster-api && : >` + Begun + "\n"

// volumeLabel is how cloud-init's NoCloud data source finds the seed.
const volumeLabel = "cidata"

// Seed is what a guest is told, on its NoCloud seed image or in its Ignition config.
type Seed struct {
	// UserData is the bootstrap data, passed on as it is.
	UserData []byte
	// InstanceID identifies the instance; cloud-init runs everything again when it changes.
	InstanceID string
	// LocalHostname is the host name that the guest takes.
	LocalHostname string
	// LocalIPv4 is the address that is reserved for the guest; empty when it isn't known. A node needs it to tell its
	// own address from a virtual one that it carries for a while.
	LocalIPv4 string
	// NetworkConfig is cloud-init's network configuration; none leaves the guest to DHCP on its first interface.
	NetworkConfig []byte
}

// metaData is the seed's meta-data document.
type metaData struct {
	InstanceID    string `json:"instance-id"`
	LocalHostname string `json:"local-hostname"`
	LocalIPv4     string `json:"local-ipv4,omitempty"`
}

// RenderSeed returns the NoCloud seed as the bytes of an ISO 9660 image, a multiple of 2048 bytes long.
// It fails when a part is missing or too large.
func RenderSeed(seed Seed) ([]byte, error) {
	switch {
	case len(seed.UserData) == 0:
		return nil, errors.New("the bootstrap data is empty: the bootstrap provider must write it under the key \"value\" of the Secret named in Machine spec.bootstrap.dataSecretName")
	case len(seed.UserData) > maxUserDataBytes:
		return nil, fmt.Errorf("the bootstrap data has %d bytes, more than the %d that a seed may hold: shrink the files in KubeadmConfig spec.files", len(seed.UserData), maxUserDataBytes)
	case len(seed.NetworkConfig) > maxNetworkConfigBytes:
		return nil, fmt.Errorf("the network configuration has %d bytes, more than the %d that a seed may hold", len(seed.NetworkConfig), maxNetworkConfigBytes)
	case seed.InstanceID == "":
		return nil, errors.New("the seed has no instance ID")
	case seed.LocalHostname == "":
		return nil, errors.New("the seed has no host name")
	}

	meta, err := yaml.Marshal(metaData{InstanceID: seed.InstanceID, LocalHostname: seed.LocalHostname, LocalIPv4: seed.LocalIPv4})
	if err != nil {
		return nil, fmt.Errorf("rendering meta-data: %w", err)
	}
	files := []isoFile{{name: "meta-data", data: meta}}
	if len(seed.NetworkConfig) > 0 {
		files = append(files, isoFile{name: "network-config", data: seed.NetworkConfig})
	}
	files = append(files, isoFile{name: "user-data", data: seed.UserData}, isoFile{name: "vendor-data", data: []byte(vendorData)})
	return renderISO(volumeLabel, files), nil
}
