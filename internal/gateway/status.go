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
	"encoding/xml"
	"fmt"
	"time"

	"libvirt.org/go/libvirtxml"
)

// The network, never started, in whose metadata a host's agent writes its Status.
const (
	StatusNetworkName = "cluster-api-host-agent"
	StatusNetworkUUID = "8f0c5d0e-6f3b-5c1b-9b7e-2d1c7a4e9a10"
)

// StatusNamespace is the XML namespace of Status.
const StatusNamespace = "https://infrastructure.cluster.x-k8s.io/libvirt/host-agent/v1"

// Status is what the agent of a host tells of itself.
type Status struct {
	// Agent is the version of the program.
	Agent string
	// Reads is the version of Wanted that it reads, see Version.
	Reads string
	// Renewed is when the status was written, by the host's clock. An agent that runs writes it every RenewInterval.
	Renewed time.Time
	// Link is the host's end of the links to other sites, nil when no network wants one.
	Link *LinkStatus
	// Networks are the open ones with an owner of ours, in the order of their UUIDs.
	Networks []NetworkStatus
	// Blocking is what others have set up on the host that stops what the networks need, in words that name the table
	// and the chain.
	Blocking []string
}

// RenewInterval is how often an agent writes its status when nothing changes.
const RenewInterval = time.Minute

// NetworkStatus is what has become of what is wanted of one network.
type NetworkStatus struct {
	UUID string
	// Generation that the host's rules have; empty when they let nothing in, because nothing acceptable was ever wanted.
	Generation string
	// Applied is what Generation stands for, nil without one. It is there for the agent itself: after its restart it
	// knows what was applied before, and so which of two networks was first.
	Applied *Wanted
	// Problems are what keeps the wanted generation, or part of it, from working.
	Problems []Problem
}

// ProblemKind says what is wrong.
type ProblemKind string

const (
	// ProblemRefused means that what the metadata says is not applied: it is unreadable, of another version, or leads
	// out of the cluster's ranges.
	ProblemRefused ProblemKind = "Refused"
	// ProblemClash means that a forward of another network on the host has the same address and port and was first.
	ProblemClash ProblemKind = "Clash"
	// ProblemAddress means that the host doesn't have the external address of a forward. The rules are there all the
	// same: the address may come.
	ProblemAddress ProblemKind = "Address"
	// ProblemFailed means that the rules couldn't be written, or the link couldn't be made.
	ProblemFailed ProblemKind = "Failed"
)

// Problem is something that is wrong with one network.
type Problem struct {
	Kind ProblemKind
	// External is the address that a problem of the kind Address is about.
	External string
	// Message says what is wrong and what to do.
	Message string
}

type statusElement struct {
	XMLName  xml.Name         `xml:"capl:host-agent"`
	Prefix   string           `xml:"xmlns:capl,attr"`
	Agent    string           `xml:"agent,attr"`
	Reads    string           `xml:"reads,attr"`
	Renewed  string           `xml:"renewed,attr"`
	Link     *linkTold        `xml:"capl:link"`
	Networks []networkElement `xml:"capl:network"`
	Blocking []blockingWrite  `xml:"capl:blocking"`
}

type networkElement struct {
	UUID       string         `xml:"uuid,attr"`
	Generation string         `xml:"generation,attr"`
	Applied    *wantedElement `xml:"capl:gateway"`
	Problems   []problemWrite `xml:"capl:problem"`
}

type problemWrite struct {
	Kind     ProblemKind `xml:"kind,attr"`
	External string      `xml:"external,attr,omitempty"`
	Message  string      `xml:"message,attr"`
}

type blockingWrite struct {
	Rule string `xml:"rule,attr"`
}

// RenderStatusNetwork is the XML of the network that carries a status. It has no bridge and no address, so that even a
// start of it would change nothing on the host.
func RenderStatusNetwork(s Status) (string, error) {
	element := statusElement{
		Prefix: StatusNamespace, Agent: s.Agent, Reads: s.Reads, Renewed: s.Renewed.UTC().Format(time.RFC3339),
	}
	if s.Link != nil {
		link := s.Link.element()
		element.Link = &link
	}
	for _, n := range s.Networks {
		network := networkElement{UUID: n.UUID, Generation: n.Generation}
		if n.Applied != nil {
			applied := n.Applied.element()
			network.Applied = &applied
		}
		for _, p := range n.Problems {
			network.Problems = append(network.Problems, problemWrite(p))
		}
		element.Networks = append(element.Networks, network)
	}
	for _, rule := range s.Blocking {
		element.Blocking = append(element.Blocking, blockingWrite{rule})
	}
	data, err := xml.Marshal(element)
	if err != nil {
		return "", fmt.Errorf("rendering a host agent's status: %w", err)
	}
	net := libvirtxml.Network{
		UUID:     StatusNetworkUUID,
		Name:     StatusNetworkName,
		Metadata: &libvirtxml.NetworkMetadata{XML: string(data)},
		Forward:  &libvirtxml.NetworkForward{Mode: "hostdev"},
	}
	document, err := net.Marshal()
	if err != nil {
		return "", fmt.Errorf("rendering a host agent's status: %w", err)
	}
	return document, nil
}

// ReadStatus finds a status in the XML of its network. Unlike what is wanted, what isn't known is skipped: it changes
// nothing but what users are told. It returns ErrNone when there is no status.
func ReadStatus(document string) (Status, error) {
	var parsed struct {
		Metadata struct {
			Status *struct {
				Agent    string    `xml:"agent,attr"`
				Reads    string    `xml:"reads,attr"`
				Renewed  string    `xml:"renewed,attr"`
				Link     *linkRead `xml:"https://infrastructure.cluster.x-k8s.io/libvirt/host-agent/v1 link"`
				Networks []struct {
					UUID       string       `xml:"uuid,attr"`
					Generation string       `xml:"generation,attr"`
					Applied    *readElement `xml:"https://infrastructure.cluster.x-k8s.io/libvirt/gateway/v1 gateway"`
					Problems   []struct {
						Kind     ProblemKind `xml:"kind,attr"`
						External string      `xml:"external,attr"`
						Message  string      `xml:"message,attr"`
					} `xml:"https://infrastructure.cluster.x-k8s.io/libvirt/host-agent/v1 problem"`
				} `xml:"https://infrastructure.cluster.x-k8s.io/libvirt/host-agent/v1 network"`
				Blocking []struct {
					Rule string `xml:"rule,attr"`
				} `xml:"https://infrastructure.cluster.x-k8s.io/libvirt/host-agent/v1 blocking"`
			} `xml:"https://infrastructure.cluster.x-k8s.io/libvirt/host-agent/v1 host-agent"`
		} `xml:"metadata"`
	}
	if err := xml.Unmarshal([]byte(document), &parsed); err != nil {
		return Status{}, fmt.Errorf("reading the XML of network %s: %w", StatusNetworkName, err)
	}
	found := parsed.Metadata.Status
	if found == nil {
		return Status{}, ErrNone
	}
	renewed, err := time.Parse(time.RFC3339, found.Renewed)
	if err != nil {
		return Status{}, fmt.Errorf("reading when the host agent's status was written: %w", err)
	}
	status := Status{Agent: found.Agent, Reads: found.Reads, Renewed: renewed}
	if found.Link != nil {
		if status.Link, err = found.Link.status(); err != nil {
			return Status{}, err
		}
	}
	for _, n := range found.Networks {
		network := NetworkStatus{UUID: n.UUID, Generation: n.Generation}
		if n.Applied != nil {
			if applied, err := readWanted(*n.Applied); err == nil {
				network.Applied = &applied
			}
		}
		for _, p := range n.Problems {
			network.Problems = append(network.Problems, Problem(p))
		}
		status.Networks = append(status.Networks, network)
	}
	for _, b := range found.Blocking {
		status.Blocking = append(status.Blocking, b.Rule)
	}
	return status, nil
}
