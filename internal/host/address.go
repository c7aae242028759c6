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

package host

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"libvirt.org/go/libvirt"
)

// AddressSource is where InterfaceAddresses looks.
type AddressSource string

// The address sources.
const (
	// AddressFromLease is the DHCP server of libvirt's networks.
	AddressFromLease AddressSource = "Lease"
	// AddressFromAgent is the guest agent.
	AddressFromAgent AddressSource = "Agent"
	// AddressFromARP is the host's ARP table.
	AddressFromARP AddressSource = "ARP"
)

// InterfaceAddress is one address of a guest's interface.
type InterfaceAddress struct {
	// Interface is the guest's name for it if the agent told, otherwise the host's.
	Interface string
	MAC       string
	IP        string
	Prefix    int
}

// InterfaceAddresses returns the addresses of a running domain. ErrInactive: it does not run, or its agent does not.
func (h *Host) InterfaceAddresses(ctx context.Context, uuid string, source AddressSource) ([]InterfaceAddress, error) {
	sources := map[AddressSource]libvirt.DomainInterfaceAddressesSource{
		AddressFromLease: libvirt.DOMAIN_INTERFACE_ADDRESSES_SRC_LEASE,
		AddressFromAgent: libvirt.DOMAIN_INTERFACE_ADDRESSES_SRC_AGENT,
		AddressFromARP:   libvirt.DOMAIN_INTERFACE_ADDRESSES_SRC_ARP,
	}
	src, ok := sources[source]
	if !ok {
		return nil, fmt.Errorf("%w: address source %q: use Lease, Agent or ARP", ErrInvalid, source)
	}
	s, err := h.current()
	if err != nil {
		return nil, err
	}
	interfaces, err := onDomain(ctx, s, uuid, "domainInterfaceAddresses", func(dom *libvirt.Domain) ([]libvirt.DomainInterface, error) {
		return dom.ListAllInterfaceAddresses(src)
	})
	if err != nil {
		if c := code(err); c == libvirt.ERR_OPERATION_INVALID || errors.Is(err, libvirt.ERR_AGENT_UNRESPONSIVE) {
			err = fmt.Errorf("%w: %w", ErrInactive, err)
		}
		return nil, fmt.Errorf("reading the addresses of domain %s: %w", uuid, err)
	}
	var addresses []InterfaceAddress
	for _, i := range interfaces {
		for _, a := range i.Addrs {
			addresses = append(addresses, InterfaceAddress{Interface: i.Name, MAC: strings.ToLower(i.Hwaddr), IP: a.Addr, Prefix: int(a.Prefix)})
		}
	}
	return addresses, nil
}
