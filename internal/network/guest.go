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

package network

import "fmt"

// RenderGuestConfig is the network configuration of a guest in cloud-init's version 2 format: DHCP on the interface
// with the MAC address. The guest identifies itself to DHCP by that address too, because images that share a machine-id
// would otherwise be one client.
func RenderGuestConfig(mac string, mtu int32) []byte {
	if mtu == 0 {
		mtu = DefaultMTU
	}
	return fmt.Appendf(nil, `version: 2
ethernets:
  cluster:
    match:
      macaddress: "%s"
    dhcp4: true
    dhcp6: false
    dhcp-identifier: mac
    mtu: %d
`, mac, mtu)
}
