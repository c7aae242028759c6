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

package gateway

import (
	"fmt"
	"net/netip"
	"regexp"
	"strings"

	"libvirt.org/go/libvirtxml"

	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/owner"
)

// Network is a node network as its host sees it, apart from what is wanted of it.
type Network struct {
	UUID, Name string
	// Bridge is the host's interface in it.
	Bridge string
	// Ranges are those of the nodes and, second, of ingress, if there is one.
	Ranges []netip.Prefix
	// Gateways are the host's own addresses in the ranges.
	Gateways []netip.Addr
}

var uuidPattern = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)

// TableName is the name of the nftables table of a network, the same as that of its bridge.
func TableName(networkUUID string) string {
	return "capl-" + strings.ReplaceAll(networkUUID, "-", "")[:10]
}

// ReadNetwork reads the XML of a network. It returns false when the network isn't for a host's agent to serve: it has no
// mark of a LibvirtCluster, or libvirt itself does its forwarding. An error means that the network has the mark and can't
// be what the controller made.
func ReadNetwork(document string) (Network, bool, error) {
	by, ok := owner.Of(document)
	if !ok || by.Kind != "LibvirtCluster" {
		return Network{}, false, nil
	}
	var net libvirtxml.Network
	if err := net.Unmarshal(document); err != nil {
		return Network{}, false, fmt.Errorf("reading the network's XML: %w", err)
	}
	if net.Forward == nil || net.Forward.Mode != "open" {
		return Network{}, false, nil
	}
	read := Network{UUID: net.UUID, Name: net.Name}
	if !uuidPattern.MatchString(net.UUID) {
		return read, false, fmt.Errorf("network %s has the UUID %q", net.Name, net.UUID)
	}
	read.Bridge = TableName(net.UUID)
	if net.Bridge == nil || net.Bridge.Name != read.Bridge {
		return read, false, fmt.Errorf("network %s has another bridge than %s, which follows from its UUID", net.Name, read.Bridge)
	}
	for _, ip := range net.IPs {
		addr, err := netip.ParseAddr(ip.Address)
		if err != nil || !addr.Is4() {
			continue
		}
		prefix, err := addr.Prefix(int(ip.Prefix))
		if err != nil || ip.Prefix == 0 {
			return read, false, fmt.Errorf("network %s has the address %s with the prefix length %d", net.Name, addr, ip.Prefix)
		}
		read.Ranges = append(read.Ranges, prefix)
		read.Gateways = append(read.Gateways, addr)
	}
	if len(read.Ranges) == 0 {
		return read, false, fmt.Errorf("network %s has no IPv4 address", net.Name)
	}
	return read, true, nil
}
