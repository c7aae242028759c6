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
	"bytes"
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/gateway"
)

// DefaultPathMTU is what an unset siteLink.pathMTU means, in bytes.
const DefaultPathMTU = 1500

// HasSiteLink tells whether the node networks of a cluster's hosts are linked with each other.
func HasSiteLink(spec infrav1.ClusterNetwork) bool {
	return spec.SiteLink.Type != ""
}

// LinkMTU is the length of the longest packet that the link between a cluster's hosts carries, in bytes; 0 without one.
func LinkMTU(spec infrav1.ClusterNetwork) int32 {
	if !HasSiteLink(spec) {
		return 0
	}
	return cmp.Or(spec.SiteLink.PathMTU, DefaultPathMTU) - gateway.LinkOverhead
}

// AskedMTU is the MTU of a node network in bytes as the spec has it: what it says, or what the link carries. Otherwise it
// is 0, which leaves an interface the MTU of its network or bridge.
func AskedMTU(spec infrav1.ClusterNetwork) int32 {
	return cmp.Or(spec.MTU, LinkMTU(spec))
}

// MTU of a node network in bytes.
func MTU(spec infrav1.ClusterNetwork) int32 {
	return cmp.Or(AskedMTU(spec), DefaultMTU)
}

// CheckSiteLink refuses an MTU that the link between the hosts can't carry. The error is a *FieldError.
func CheckSiteLink(spec infrav1.ClusterNetwork) error {
	if carried := LinkMTU(spec); carried != 0 && spec.MTU > carried {
		return &FieldError{"mtu", strconv.Itoa(int(spec.MTU)), fmt.Sprintf(
			"is more than the %d bytes that siteLink carries with a pathMTU of %d: use %d or less, or raise siteLink.pathMTU if the path between the hosts allows it",
			carried, carried+gateway.LinkOverhead, carried)}
	}
	return nil
}

// ParseWireGuardAddress reads the address at which a host waits for others. The error says what is wrong and the remedy.
func ParseWireGuardAddress(value string) (netip.Addr, error) {
	const remedy = "use one at which the other hosts reach this one, like 203.0.113.20, or remove it if they don't"
	addr, err := netip.ParseAddr(value)
	switch {
	case err != nil || addr.Zone() != "":
		return netip.Addr{}, fmt.Errorf("is not an IP address: %s", remedy)
	case !addr.Unmap().IsGlobalUnicast():
		return netip.Addr{}, fmt.Errorf("is not an address that other hosts can send to: %s", remedy)
	}
	return addr.Unmap(), nil
}

// ServesControlPlane tells whether hosts in a failure domain are for control-plane machines. With a link that is so where
// the control-plane endpoint is: it is announced by ARP, which no link carries.
func ServesControlPlane(spec infrav1.ClusterNetwork, failureDomain string) bool {
	return !HasSiteLink(spec) || !slices.ContainsFunc(spec.Subnets, func(s infrav1.Subnet) bool { return s.FailureDomain == failureDomain })
}

// Site is a host of a cluster as the link between the hosts has to do with it.
type Site struct {
	// Name of the host.
	Name string
	// Plan of the node network there. No other site has its ranges.
	Plan Plan
	// Address and Port at which it waits for the others; the address isn't valid when it can't be reached from outside.
	Address netip.Addr
	Port    uint16
	// Key is its public key, and Next the one that it wants to go over to; zero when unknown, or when it doesn't.
	Key, Next wgtypes.Key
	// Peers are what its agent has set up, on the host, and Applied is what it has taken over for this cluster. Both are
	// empty when that isn't known.
	Peers   []gateway.PeerStatus
	Applied gateway.Link
}

// Ranges are those of the node network of a site: that of the nodes and, second, that of ingress, if there is one.
func (s Site) Ranges() []netip.Prefix {
	ranges := []netip.Prefix{s.Plan.Prefix}
	if s.Plan.Ingress.IsValid() {
		ranges = append(ranges, s.Plan.Ingress)
	}
	return ranges
}

// knows tells whether a site has set up a key of another, for this cluster.
func (s Site) knows(key wgtypes.Key) bool {
	return slices.ContainsFunc(s.Applied.Peers, func(p gateway.Peer) bool { return p.Key == key || p.Next == key }) &&
		slices.ContainsFunc(s.Peers, func(p gateway.PeerStatus) bool { return slices.Contains(p.Keys, key) })
}

// NeedsTold tells whether what a site is told of the others depends on what it was told before, because the key of one of
// them isn't known.
func NeedsTold(name string, sites []Site) bool {
	return slices.ContainsFunc(sites, func(s Site) bool { return s.Name != name && s.Key == (wgtypes.Key{}) })
}

// LinkOn is what one of the sites is told of the link to the others. A site whose key isn't known keeps the keys that
// were told before, if there are any. Nil: the site isn't one of them.
func LinkOn(spec infrav1.ClusterNetwork, name string, sites []Site, told gateway.Link) *gateway.Link {
	own := slices.IndexFunc(sites, func(s Site) bool { return s.Name == name })
	if own < 0 {
		return nil
	}
	link := &gateway.Link{Port: sites[own].Port, MTU: uint16(LinkMTU(spec))}
	if PickSwitching(sites) == name {
		link.SwitchTo = sites[own].Next
	}
	// An interface has a key once, and not its own for a peer; an agent refuses all that has such a thing in it.
	taken := map[wgtypes.Key]bool{{}: true, sites[own].Key: true, sites[own].Next: true}
	for _, s := range sites {
		if s.Name == name {
			continue
		}
		peer := gateway.Peer{Name: s.Name, Key: s.Key, Next: s.Next, Ranges: s.Ranges()}
		if k := slices.IndexFunc(told.Peers, func(p gateway.Peer) bool { return p.Name == s.Name }); s.Key == (wgtypes.Key{}) && k >= 0 {
			peer.Key, peer.Next = told.Peers[k].Key, told.Peers[k].Next
		}
		if taken[peer.Key] {
			continue
		}
		if taken[peer.Next] {
			peer.Next = wgtypes.Key{}
		}
		taken[peer.Key], taken[peer.Next] = true, true
		if s.Address.IsValid() && !within(s.Address, sites) {
			peer.Endpoint = netip.AddrPortFrom(s.Address, s.Port)
		}
		link.Peers = append(link.Peers, peer)
	}
	return link
}

// within tells whether an address is one to which the link itself leads.
func within(addr netip.Addr, sites []Site) bool {
	return slices.ContainsFunc(sites, func(s Site) bool {
		return slices.ContainsFunc(s.Ranges(), func(r netip.Prefix) bool { return r.Contains(addr) })
	})
}

// PickSwitching chooses the site that is to go over to its next key: one at a time, and only when all others know that
// key. Of several it is the first by its key, because that is the same for every cluster on the hosts, whatever their
// names there: two clusters never let two hosts wait for each other. Empty when none is.
func PickSwitching(sites []Site) string {
	var chosen *Site
	for i := range sites {
		s := &sites[i]
		known := !slices.ContainsFunc(sites, func(other Site) bool { return other.Name != s.Name && !other.knows(s.Next) })
		if s.Next != (wgtypes.Key{}) && known && (chosen == nil || bytes.Compare(s.Key[:], chosen.Key[:]) < 0) {
			chosen = s
		}
	}
	if chosen == nil {
		return ""
	}
	return chosen.Name
}

// OwnRanges keeps, of sites in the order of their right of way, those that have their range for themselves. Of the others
// it tells by name which of those has it.
func OwnRanges(sites []Site) ([]Site, map[string]string) {
	var own []Site
	shared := map[string]string{}
	for _, s := range sites {
		k := slices.IndexFunc(own, func(o Site) bool { return o.Plan.Prefix == s.Plan.Prefix })
		if k >= 0 {
			shared[s.Name] = own[k].Name
			continue
		}
		own = append(own, s)
	}
	slices.SortFunc(own, func(a, b Site) int { return strings.Compare(a.Name, b.Name) })
	return own, shared
}
