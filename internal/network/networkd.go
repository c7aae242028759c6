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
	"strings"
)

// RenderNetworkd is the configuration of one of a guest's interfaces in the format of systemd-networkd, and the name of
// its file in /etc/systemd/network. It says what RenderGuestConfig says to cloud-init. Its name comes before those of an
// image's own files, because networkd takes the first that matches.
func RenderNetworkd(i GuestInterface) (name string, content []byte) {
	var b strings.Builder
	fmt.Fprintf(&b, "[Match]\nMACAddress=%s\n\n[Link]\n", i.MAC)
	if i.MTU != 0 {
		fmt.Fprintf(&b, "MTUBytes=%d\n", i.MTU)
	}
	if i.Optional {
		b.WriteString("RequiredForOnline=no\n")
	} else {
		b.WriteString("RequiredForOnline=routable\n")
	}
	b.WriteString("\n[Network]\n")
	if i.DHCP {
		b.WriteString("DHCP=ipv4\n")
	} else {
		b.WriteString("DHCP=no\n")
	}
	if i.Aside {
		b.WriteString("IPv6AcceptRA=no\n")
	}
	for _, prefix := range i.Addresses {
		fmt.Fprintf(&b, "Address=%s\n", prefix)
	}
	for _, gateway := range i.Gateways {
		if i.onLink(gateway) {
			fmt.Fprintf(&b, "Gateway=%s\n", gateway)
		}
	}
	for _, addr := range i.Nameservers {
		fmt.Fprintf(&b, "DNS=%s\n", addr)
	}
	for _, gateway := range i.Gateways {
		if !i.onLink(gateway) {
			fmt.Fprintf(&b, "\n[Route]\nGateway=%s\nGatewayOnLink=yes\n", gateway)
		}
	}
	if i.DHCP {
		b.WriteString("\n[DHCPv4]\nClientIdentifier=mac\n")
		if i.Aside {
			b.WriteString("UseRoutes=no\nUseDNS=no\n")
		}
	}
	return "00-" + i.Name + ".network", []byte(b.String())
}
