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

import (
	"fmt"
	"net/netip"
	"strings"
)

// Guest is what the network configuration of a guest is made from.
type Guest struct {
	// MAC address of its interface.
	MAC string
	// MTU in bytes, the default when it is zero.
	MTU int32
	// Address is what the guest gives itself; invalid when DHCP tells it.
	Address netip.Addr
	// Plan of the network, for a guest that gives itself its address.
	Plan Plan
}

// RenderGuestConfig is the network configuration of a guest in cloud-init's version 2 format, for the interface with the
// MAC address. With DHCP the guest identifies itself by that address too, because images that share a machine-id would
// otherwise be one client.
func RenderGuestConfig(g Guest) []byte {
	mtu := g.MTU
	if mtu == 0 {
		mtu = DefaultMTU
	}
	return fmt.Appendf(nil, `version: 2
ethernets:
  cluster:
    match:
      macaddress: "%s"
%s    mtu: %d
`, g.MAC, g.addressing(), mtu)
}

func (g Guest) addressing() string {
	if !g.Address.IsValid() {
		return "    dhcp4: true\n    dhcp6: false\n    dhcp-identifier: mac\n"
	}
	nameservers := make([]string, 0, len(g.Plan.Nameservers))
	for _, addr := range g.Plan.Nameservers {
		nameservers = append(nameservers, fmt.Sprintf("%q", addr))
	}
	return fmt.Sprintf(`    dhcp4: false
    dhcp6: false
    addresses: ["%s"]
    routes:
    - to: 0.0.0.0/0
      via: %s
    nameservers:
      addresses: [%s]
`, netip.PrefixFrom(g.Address, g.Plan.Prefix.Bits()), g.Plan.Gateway, strings.Join(nameservers, ", "))
}
