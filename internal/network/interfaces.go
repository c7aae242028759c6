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
	"crypto/sha256"
	"fmt"
	"net/netip"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
)

// Addressing is where the addresses of an interface come from. Empty: from the node network, by the cluster's own rules.
func Addressing(i infrav1.Interface) infrav1.InterfaceAddressing {
	if i.Addressing == "" && i.Source != infrav1.InterfaceSourceCluster {
		return infrav1.InterfaceAddressingDHCP
	}
	return i.Addressing
}

// DefaultRoute names the interface by which a guest reaches the world: the one that says so, or the first that has
// addresses. Empty when that doesn't want to.
func DefaultRoute(interfaces []infrav1.Interface) string {
	for _, i := range interfaces {
		if i.DefaultRoute == infrav1.DefaultRouteUse {
			return i.Name
		}
	}
	for _, i := range interfaces {
		if Addressing(i) == infrav1.InterfaceAddressingNone {
			continue
		}
		if i.DefaultRoute == infrav1.DefaultRouteIgnore {
			return ""
		}
		return i.Name
	}
	return ""
}

// ClusterInterface is the interface of a machine in the node network. False when the machine has but that one, without a
// name.
func ClusterInterface(interfaces []infrav1.Interface) (infrav1.Interface, bool) {
	for _, i := range interfaces {
		if i.Source == infrav1.InterfaceSourceCluster {
			return i, true
		}
	}
	return infrav1.Interface{}, false
}

// InterfaceMAC is the MAC address of an interface, in lower case. Unless the user chose one, it depends on the domain's
// UUID and the interface's name alone, so that it is the same at every try.
func InterfaceMAC(domainUUID string, i infrav1.Interface) string {
	switch {
	case i.Source == infrav1.InterfaceSourceCluster:
		return MAC(domainUUID)
	case i.MACAddress != "":
		return i.MACAddress
	}
	sum := sha256.Sum256([]byte("interface/" + i.Name + "/" + domainUUID))
	return fmt.Sprintf("52:%02x:%02x:%02x:%02x:%02x", sum[0], sum[1], sum[2], sum[3], sum[4])
}

// StaticAddress is an address that an interface gets from a pool.
type StaticAddress struct {
	// Prefix is the address with the length of its network's prefix.
	Prefix netip.Prefix
	// Gateway of the network; invalid when there is none.
	Gateway netip.Addr
}

// ParseStaticAddress reads an address as an IPAM provider gives it. The error says what about it can't be used.
func ParseStaticAddress(address string, prefixLength int32, gateway string) (StaticAddress, error) {
	addr, err := netip.ParseAddr(address)
	if err != nil || addr.Zone() != "" {
		return StaticAddress{}, fmt.Errorf("%q is not an IP address", address)
	}
	addr = addr.Unmap()
	if !addr.IsGlobalUnicast() {
		return StaticAddress{}, fmt.Errorf("%s is not an address that a machine can have", addr)
	}
	if prefixLength < 1 || int(prefixLength) > addr.BitLen() {
		return StaticAddress{}, fmt.Errorf("%s has a prefix length of %d", addr, prefixLength)
	}
	static := StaticAddress{Prefix: netip.PrefixFrom(addr, int(prefixLength))}
	if gateway == "" {
		return static, nil
	}
	via, err := netip.ParseAddr(gateway)
	if err != nil || via.Unmap().Is4() != addr.Is4() {
		return StaticAddress{}, fmt.Errorf("%s has the gateway %q, which is not an address of the same family", addr, gateway)
	}
	if static.Gateway = via.Unmap(); static.Gateway == addr {
		return StaticAddress{}, fmt.Errorf("%s is its own gateway", addr)
	}
	return static, nil
}

// Seen tells whether an address that a guest was seen with is one to report: not one of the link or of the guest itself,
// not the host's part of a virtual one, and none of those that the cluster gives to its endpoint, its Pods or its
// Services.
func Seen(addr netip.Addr, bits int, virtual []netip.Prefix) bool {
	if !addr.IsGlobalUnicast() || (addr.Is4() && bits == addr.BitLen()) {
		return false
	}
	for _, prefix := range virtual {
		if prefix.Contains(addr) {
			return false
		}
	}
	return true
}
