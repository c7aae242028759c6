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

// Package gateway is what the controller and the agent on a KVM host tell each other through libvirt: which connections
// the host lets into a node network, and what has become of that. It is pure: it neither reads nor changes anything.
//
// The controller writes what it wants into the <metadata> of the cluster's network (Wanted). The agent answers in the
// <metadata> of a network of its own that is never started (Status). Each writes a definition that the other doesn't
// write: before libvirt 9.7 metadata is changed by defining the network anew, and of two that do so at the same time one
// would lose its change, or the DHCP reservations that are kept in the same definition.
package gateway

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Namespace is the XML namespace of Wanted. Its version changes when an agent of before would misread it.
const Namespace = namespaces + Version

// Version of Wanted that this code writes and reads.
const Version = "v1"

const namespaces = "https://infrastructure.cluster.x-k8s.io/libvirt/gateway/"

// Protocol of a Forward, as nftables names it.
type Protocol string

// The protocols that are forwarded.
const (
	TCP Protocol = "tcp"
	UDP Protocol = "udp"
)

// Wanted is what a host does at the border of one node network. That nodes reach the outside behind the host's address,
// and that nothing else gets in, is always so and isn't said.
type Wanted struct {
	// Forwards are the connections that are let in, in no particular order.
	Forwards []Forward
	// Link leads to the node networks of the other sites, nil when there is but one.
	Link *Link
}

// Forward lets connections to a port of an address of the host through to an address in the node network. Clients keep
// their addresses.
type Forward struct {
	// Name says where the forward comes from, such as ingress; for messages.
	Name string
	// Protocol of the connections.
	Protocol Protocol
	// External address and Port that clients use.
	External netip.Addr
	Port     uint16
	// Target address and TargetPort in the node network or its ingress range.
	Target     netip.Addr
	TargetPort uint16
	// Sources are the networks that clients must be in; everybody may come when there are none.
	Sources []netip.Prefix
}

// String is the forward as messages show it.
func (f Forward) String() string {
	return fmt.Sprintf("%s %s/%s", f.Name, netip.AddrPortFrom(f.External, f.Port), f.Protocol)
}

// Overlaps tells whether two forwards wait for the same connections.
func (f Forward) Overlaps(other Forward) bool {
	return f.Protocol == other.Protocol && f.External == other.External && f.Port == other.Port
}

type wantedElement struct {
	XMLName    xml.Name         `xml:"capl:gateway"`
	Prefix     string           `xml:"xmlns:capl,attr"`
	Generation string           `xml:"generation,attr"`
	Forwards   []forwardElement `xml:"capl:forward"`
	Link       *linkElement     `xml:"capl:link"`
}

type forwardElement struct {
	Name       string          `xml:"name,attr"`
	Protocol   string          `xml:"protocol,attr"`
	External   string          `xml:"external,attr"`
	Port       uint16          `xml:"port,attr"`
	Target     string          `xml:"target,attr"`
	TargetPort uint16          `xml:"targetPort,attr"`
	Sources    []sourceElement `xml:"capl:source"`
}

type sourceElement struct {
	CIDR string `xml:"cidr,attr"`
}

// Generation identifies the content: it is the same for the same forwards and the same link, whatever their order, and
// different otherwise. It is 16 hexadecimal digits.
func (w Wanted) Generation() string {
	var lines []string
	for _, f := range w.Forwards {
		sources := make([]string, 0, len(f.Sources))
		for _, source := range f.Sources {
			sources = append(sources, source.String())
		}
		slices.Sort(sources)
		lines = append(lines, fmt.Sprintf("%s %s %s %d %s %d %s",
			f.Name, f.Protocol, f.External, f.Port, f.Target, f.TargetPort, strings.Join(sources, ",")))
	}
	slices.Sort(lines)
	if w.Link != nil {
		lines = append(lines, w.Link.lines()...)
	}
	sum := sha256.Sum256([]byte(strings.Join(lines, "\n")))
	return hex.EncodeToString(sum[:8])
}

// Render is the element for the <metadata> of a network. libvirt insists on a prefixed namespace.
func (w Wanted) Render() (string, error) {
	data, err := xml.Marshal(w.element())
	if err != nil {
		return "", fmt.Errorf("rendering a gateway: %w", err)
	}
	return string(data), nil
}

func (w Wanted) element() wantedElement {
	element := wantedElement{Prefix: Namespace, Generation: w.Generation()}
	for _, f := range w.Forwards {
		forward := forwardElement{
			Name: f.Name, Protocol: string(f.Protocol),
			External: f.External.String(), Port: f.Port, Target: f.Target.String(), TargetPort: f.TargetPort,
		}
		for _, source := range f.Sources {
			forward.Sources = append(forward.Sources, sourceElement{source.String()})
		}
		element.Forwards = append(element.Forwards, forward)
	}
	if w.Link != nil {
		link := w.Link.element()
		element.Link = &link
	}
	return element
}

// ErrNone says that a network's XML has no gateway element of any version.
var ErrNone = errors.New("the network has no gateway in its metadata")

// ErrVersion says that a gateway element is of another version than the one that this code reads.
var ErrVersion = errors.New("the gateway in the network's metadata is of another version")

// readElement takes everything in, so that what isn't known can be refused.
type readElement struct {
	XMLName  xml.Name
	Attrs    []xml.Attr    `xml:",any,attr"`
	Children []readElement `xml:",any"`
	Text     string        `xml:",chardata"`
}

// Read finds what is wanted in the XML of a network. It refuses whatever it doesn't know: a rule that is half understood
// may let in too much. ErrNone: nothing is wanted. ErrVersion: another version is there, and the message says which.
// Whether the forwards lead into the network isn't asked here, see Check.
func Read(document string) (Wanted, error) {
	var parsed struct {
		Metadata struct {
			Elements []readElement `xml:",any"`
		} `xml:"metadata"`
	}
	if err := xml.Unmarshal([]byte(document), &parsed); err != nil {
		return Wanted{}, fmt.Errorf("reading the network's XML: %w", err)
	}
	for _, element := range parsed.Metadata.Elements {
		version, ours := strings.CutPrefix(element.XMLName.Space, namespaces)
		switch {
		case !ours:
			continue
		case version != Version:
			return Wanted{}, fmt.Errorf("%w: it is %s and this program reads %s; upgrade the older one of controller and host agent",
				ErrVersion, version, Version)
		}
		return readWanted(element)
	}
	return Wanted{}, ErrNone
}

func readWanted(element readElement) (Wanted, error) {
	if err := element.allows("gateway", []string{"generation"}, "forward", "link"); err != nil {
		return Wanted{}, err
	}
	var wanted Wanted
	for _, child := range element.Children {
		if child.XMLName.Local == "link" {
			if wanted.Link != nil {
				return Wanted{}, errors.New("the gateway has two links")
			}
			link, err := readLink(child)
			if err != nil {
				return Wanted{}, err
			}
			wanted.Link = &link
			continue
		}
		forward, err := readForward(child)
		if err != nil {
			return Wanted{}, err
		}
		wanted.Forwards = append(wanted.Forwards, forward)
	}
	if written := element.attr("generation"); written != wanted.Generation() {
		return Wanted{}, fmt.Errorf("the gateway's generation is %q and its content has %q: it was changed by something else than the controller",
			written, wanted.Generation())
	}
	return wanted, nil
}

func readForward(element readElement) (Forward, error) {
	attributes := []string{"name", "protocol", "external", "port", "target", "targetPort"}
	if err := element.allows("forward", attributes, "source"); err != nil {
		return Forward{}, err
	}
	forward := Forward{Name: element.attr("name"), Protocol: Protocol(element.attr("protocol"))}
	if forward.Protocol != TCP && forward.Protocol != UDP {
		return Forward{}, fmt.Errorf("forward %s: protocol %q is neither tcp nor udp", forward.Name, forward.Protocol)
	}
	var errs [4]error
	forward.External, errs[0] = netip.ParseAddr(element.attr("external"))
	forward.Target, errs[1] = netip.ParseAddr(element.attr("target"))
	forward.Port, errs[2] = parsePort(element.attr("port"))
	forward.TargetPort, errs[3] = parsePort(element.attr("targetPort"))
	if err := cmp.Or(errs[:]...); err != nil {
		return Forward{}, fmt.Errorf("forward %s: %w", forward.Name, err)
	}
	if !forward.External.Is4() || !forward.Target.Is4() {
		return Forward{}, fmt.Errorf("forward %s: external and target have to be IPv4 addresses", forward.Name)
	}
	for _, child := range element.Children {
		if err := child.allows("source", []string{"cidr"}); err != nil {
			return Forward{}, err
		}
		source, err := netip.ParsePrefix(child.attr("cidr"))
		if err != nil || !source.Addr().Is4() || source != source.Masked() {
			return Forward{}, fmt.Errorf("forward %s: source %q is not an IPv4 range", forward.Name, child.attr("cidr"))
		}
		forward.Sources = append(forward.Sources, source)
	}
	return forward, nil
}
