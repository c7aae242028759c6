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

// RenderNetworkd is the configuration of a guest's interface in the format of systemd-networkd, and the name of its file
// in /etc/systemd/network. It says what RenderGuestConfig says to cloud-init. Its name comes before those of an image's
// own files, because networkd takes the first that matches.
func RenderNetworkd(g Guest) (name string, content []byte) {
	mtu := g.MTU
	if mtu == 0 {
		mtu = DefaultMTU
	}
	return "00-cluster.network", fmt.Appendf(nil, "[Match]\nMACAddress=%s\n\n[Link]\nMTUBytes=%d\nRequiredForOnline=routable\n\n%s", g.MAC, mtu, g.networkd())
}

func (g Guest) networkd() string {
	if !g.Address.IsValid() {
		return "[Network]\nDHCP=ipv4\n\n[DHCPv4]\nClientIdentifier=mac\n"
	}
	var lines strings.Builder
	fmt.Fprintf(&lines, "[Network]\nDHCP=no\nAddress=%s\nGateway=%s\n", netip.PrefixFrom(g.Address, g.Plan.Prefix.Bits()), g.Plan.Gateway)
	for _, addr := range g.Plan.Nameservers {
		fmt.Fprintf(&lines, "DNS=%s\n", addr)
	}
	return lines.String()
}
