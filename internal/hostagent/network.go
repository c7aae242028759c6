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

package hostagent

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/gateway"
)

// network is a node network of ours and what its metadata wants.
type network struct {
	gateway.Network
	// broken says why the network can't be served at all, if that is so.
	broken error
	wanted gateway.Wanted
	// refused says why what the metadata says isn't to be applied, if that is so; gateway.ErrNone if it says nothing.
	refused error
}

// readNetworks finds the networks of ours among the XML of all networks, in the order of their UUIDs.
func readNetworks(documents []string) []network {
	var networks []network
	for _, document := range documents {
		var n network
		var served bool
		n.Network, served, n.broken = gateway.ReadNetwork(document)
		if !served && n.broken == nil {
			continue
		}
		n.wanted, n.refused = gateway.Read(document)
		networks = append(networks, n)
	}
	slices.SortFunc(networks, func(a, b network) int { return strings.Compare(a.UUID, b.UUID) })
	for i, n := range networks {
		if n.refused == nil {
			networks[i].refused = check(n, networks, n.wanted)
		}
	}
	return networks
}

// check tells whether forwards lead into a network and a link out of it, and take nothing from the others.
func check(n network, all []network, wanted gateway.Wanted) error {
	if err := gateway.Check(wanted, n.Ranges, n.Gateways); err != nil {
		return err
	}
	for _, f := range wanted.Forwards {
		for _, other := range all {
			if other.UUID != n.UUID && slices.ContainsFunc(other.Ranges, func(r netip.Prefix) bool { return r.Contains(f.External) }) {
				return errors.New(f.String() + ": the external address is one of network " + other.Name)
			}
		}
	}
	return checkLink(n, all, wanted.Link)
}

// checkLink tells whether a link takes nothing from the other networks.
func checkLink(n network, all []network, l *gateway.Link) error {
	if l == nil {
		return nil
	}
	for _, p := range l.Peers {
		for _, r := range p.Ranges {
			for _, other := range all {
				if other.UUID != n.UUID && slices.ContainsFunc(other.Ranges, r.Overlaps) {
					return fmt.Errorf("link: the range %s of peer %s overlaps one of network %s on this host", r, p.Name, other.Name)
				}
			}
		}
	}
	return nil
}

// rangesOfOthers are the ranges of all node networks but one.
func rangesOfOthers(n network, all []network) []netip.Prefix {
	var ranges []netip.Prefix
	for _, other := range all {
		if other.UUID != n.UUID {
			ranges = append(ranges, other.Ranges...)
		}
	}
	return ranges
}
