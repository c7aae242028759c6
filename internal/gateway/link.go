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
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// LinkInterface is the WireGuard interface of a host that has links. All its node networks share it.
const LinkInterface = "capl-wg"

// LinkOverhead is what WireGuard adds to a packet that travels over IPv6, in bytes; over IPv4 it is 20 less.
const LinkOverhead = 80

// Link is how a node network reaches the networks of the same cluster on other hosts, by WireGuard from host to host.
type Link struct {
	// Port is the UDP port on which the host waits for the others.
	Port uint16
	// MTU is the length of the longest packet that the link carries, in bytes.
	MTU uint16
	// SwitchTo is the key that the host announced as its next one, once all others know it: the host is to go over to it.
	// Otherwise it is zero.
	SwitchTo wgtypes.Key
	// Peers are the other hosts, in no particular order.
	Peers []Peer
}

// Peer is the other end of a link.
type Peer struct {
	// Name of the host, for messages.
	Name string
	// Key is its public key, and Next the one that it will go over to; zero when it won't.
	Key, Next wgtypes.Key
	// Endpoint is where it waits; not valid when it can't be reached from outside and connects by itself.
	Endpoint netip.AddrPort
	// Ranges are those of its node network, which nobody else has.
	Ranges []netip.Prefix
}

// peerRanges are those of all peers, in the order of their addresses. A network without a link has none.
func (w Wanted) peerRanges() []netip.Prefix {
	if w.Link == nil {
		return nil
	}
	var ranges []netip.Prefix
	for _, p := range w.Link.Peers {
		ranges = append(ranges, p.Ranges...)
	}
	slices.SortFunc(ranges, netip.Prefix.Compare)
	return ranges
}

// LinkStatus is what an agent tells of its host's end of the links.
type LinkStatus struct {
	// Key is the host's public key. The private one never leaves the host.
	Key wgtypes.Key
	// Next is the public key that the host wants to go over to, zero when it doesn't.
	Next wgtypes.Key
	// Peers are those that the agent has set up, in the order of their keys.
	Peers []PeerStatus
}

// PeerStatus is what has become of the link to a peer.
type PeerStatus struct {
	Name string
	// Keys that the peer is known by, the one in use first.
	Keys []wgtypes.Key
	// Connected tells that the peer was heard of lately.
	Connected bool
}

type linkElement struct {
	Port     uint16        `xml:"port,attr"`
	MTU      uint16        `xml:"mtu,attr"`
	SwitchTo string        `xml:"switchTo,attr"`
	Peers    []peerElement `xml:"capl:peer"`
}

type peerElement struct {
	Name     string          `xml:"name,attr"`
	Key      string          `xml:"key,attr"`
	Next     string          `xml:"next,attr"`
	Endpoint string          `xml:"endpoint,attr"`
	Ranges   []sourceElement `xml:"capl:range"`
}

func (l Link) element() linkElement {
	element := linkElement{Port: l.Port, MTU: l.MTU, SwitchTo: keyText(l.SwitchTo)}
	for _, p := range l.Peers {
		peer := peerElement{Name: p.Name, Key: keyText(p.Key), Next: keyText(p.Next), Endpoint: endpointText(p.Endpoint)}
		for _, r := range p.Ranges {
			peer.Ranges = append(peer.Ranges, sourceElement{r.String()})
		}
		element.Peers = append(element.Peers, peer)
	}
	return element
}

// lines identify the content of a link, whatever the order of its peers and their ranges.
func (l Link) lines() []string {
	var lines []string
	for _, p := range l.Peers {
		ranges := make([]string, 0, len(p.Ranges))
		for _, r := range p.Ranges {
			ranges = append(ranges, r.String())
		}
		slices.Sort(ranges)
		lines = append(lines, fmt.Sprintf("peer %s %s %s %s %s", p.Name, p.Key, keyText(p.Next), endpointText(p.Endpoint), strings.Join(ranges, ",")))
	}
	slices.Sort(lines)
	return append(lines, fmt.Sprintf("link %d %d %s", l.Port, l.MTU, keyText(l.SwitchTo)))
}

func readLink(element readElement) (Link, error) {
	if err := element.allows("link", []string{"port", "mtu", "switchTo"}, "peer"); err != nil {
		return Link{}, err
	}
	var link Link
	var errs [3]error
	link.Port, errs[0] = parsePort(element.attr("port"))
	mtu, err := strconv.ParseUint(element.attr("mtu"), 10, 16)
	if link.MTU = uint16(mtu); err != nil || mtu < 576 {
		errs[1] = fmt.Errorf("%q is not an MTU", element.attr("mtu"))
	}
	link.SwitchTo, errs[2] = parseKey(element.attr("switchTo"), true)
	if err := errors.Join(errs[:]...); err != nil {
		return Link{}, fmt.Errorf("link: %w", err)
	}
	for _, child := range element.Children {
		peer, err := readPeer(child)
		if err != nil {
			return Link{}, err
		}
		link.Peers = append(link.Peers, peer)
	}
	return link, nil
}

func readPeer(element readElement) (Peer, error) {
	if err := element.allows("peer", []string{"name", "key", "next", "endpoint"}, "range"); err != nil {
		return Peer{}, err
	}
	peer := Peer{Name: element.attr("name")}
	var errs [3]error
	peer.Key, errs[0] = parseKey(element.attr("key"), false)
	peer.Next, errs[1] = parseKey(element.attr("next"), true)
	if endpoint := element.attr("endpoint"); endpoint != "" {
		peer.Endpoint, errs[2] = netip.ParseAddrPort(endpoint)
	}
	if err := errors.Join(errs[:]...); err != nil {
		return Peer{}, fmt.Errorf("peer %s: %w", peer.Name, err)
	}
	for _, child := range element.Children {
		if err := child.allows("range", []string{"cidr"}); err != nil {
			return Peer{}, err
		}
		prefix, err := netip.ParsePrefix(child.attr("cidr"))
		if err != nil || !prefix.Addr().Is4() || prefix.Bits() == 0 || prefix != prefix.Masked() {
			return Peer{}, fmt.Errorf("peer %s: %q is not an IPv4 range", peer.Name, child.attr("cidr"))
		}
		peer.Ranges = append(peer.Ranges, prefix)
	}
	return peer, nil
}

// keyText is a key in the form in which WireGuard's tools show it, and nothing for none.
func keyText(key wgtypes.Key) string {
	if key == (wgtypes.Key{}) {
		return ""
	}
	return key.String()
}

func parseKey(text string, optional bool) (wgtypes.Key, error) {
	if text == "" && optional {
		return wgtypes.Key{}, nil
	}
	key, err := wgtypes.ParseKey(text)
	if err != nil || key == (wgtypes.Key{}) {
		return wgtypes.Key{}, fmt.Errorf("%q is not a WireGuard key", text)
	}
	return key, nil
}

func endpointText(endpoint netip.AddrPort) string {
	if !endpoint.IsValid() {
		return ""
	}
	return endpoint.String()
}

type linkTold struct {
	Key   string     `xml:"key,attr"`
	Next  string     `xml:"next,attr,omitempty"`
	Peers []peerTold `xml:"capl:peer"`
}

type peerTold struct {
	Name      string `xml:"name,attr"`
	Keys      string `xml:"keys,attr"`
	Connected bool   `xml:"connected,attr"`
}

func (s LinkStatus) element() linkTold {
	element := linkTold{Key: keyText(s.Key), Next: keyText(s.Next)}
	for _, p := range s.Peers {
		keys := make([]string, 0, len(p.Keys))
		for _, key := range p.Keys {
			keys = append(keys, key.String())
		}
		element.Peers = append(element.Peers, peerTold{Name: p.Name, Keys: strings.Join(keys, " "), Connected: p.Connected})
	}
	return element
}

type linkRead struct {
	Key   string `xml:"key,attr"`
	Next  string `xml:"next,attr"`
	Peers []struct {
		Name      string `xml:"name,attr"`
		Keys      string `xml:"keys,attr"`
		Connected bool   `xml:"connected,attr"`
	} `xml:"https://infrastructure.cluster.x-k8s.io/libvirt/host-agent/v1 peer"`
}

func (l linkRead) status() (*LinkStatus, error) {
	var status LinkStatus
	var errs [2]error
	status.Key, errs[0] = parseKey(l.Key, false)
	status.Next, errs[1] = parseKey(l.Next, true)
	for _, p := range l.Peers {
		peer := PeerStatus{Name: p.Name, Connected: p.Connected}
		for text := range strings.FieldsSeq(p.Keys) {
			key, err := parseKey(text, false)
			errs[1] = errors.Join(errs[1], err)
			peer.Keys = append(peer.Keys, key)
		}
		status.Peers = append(status.Peers, peer)
	}
	if err := errors.Join(errs[:]...); err != nil {
		return nil, fmt.Errorf("reading the host agent's link: %w", err)
	}
	return &status, nil
}
