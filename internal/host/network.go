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

	"libvirt.org/go/libvirt"
	"libvirt.org/go/libvirtxml"
)

// Network is a libvirt network.
type Network struct {
	UUID, Name, Bridge string
	Active, Persistent bool
	// XML is its persistent definition.
	XML string
}

// onNetwork makes one call on a network.
func onNetwork[T any](ctx context.Context, s *session, uuid, procedure string, f func(*libvirt.Network) (T, error)) (T, error) {
	find := func(ctx context.Context) error {
		return do(ctx, s.control, "networkLookupByUUID", func() error {
			net, err := s.control.libvirt.LookupNetworkByUUIDString(uuid)
			if err != nil {
				return err
			}
			s.networks.put(uuid, net)
			return net.Free()
		})
	}
	return using(ctx, s.control, &s.networks, uuid, libvirt.ERR_NO_NETWORK, find, procedure, f)
}

func doOnNetwork(ctx context.Context, s *session, uuid, procedure string, f func(*libvirt.Network) error) error {
	_, err := onNetwork(ctx, s, uuid, procedure, func(net *libvirt.Network) (struct{}, error) { return struct{}{}, f(net) })
	return err
}

// networkXML reads the running network, or the inactive definition if flags say so.
func (s *session) networkXML(ctx context.Context, uuid string, flags libvirt.NetworkXMLFlags) (string, *libvirtxml.Network, error) {
	if s.test {
		flags = 0 // the test driver has one definition only
	}
	definition, err := onNetwork(ctx, s, uuid, "networkGetXMLDesc", func(net *libvirt.Network) (string, error) {
		return net.GetXMLDesc(flags)
	})
	if err != nil {
		return "", nil, err
	}
	parsed := &libvirtxml.Network{}
	if err := parsed.Unmarshal(definition); err != nil {
		return "", nil, fmt.Errorf("parsing its XML: %w", err)
	}
	return definition, parsed, nil
}

// Network returns a network. ErrNotFound: there is none with that UUID.
func (h *Host) Network(ctx context.Context, uuid string) (Network, error) {
	s, err := h.current()
	if err != nil {
		return Network{}, err
	}
	network, err := s.network(ctx, uuid)
	if err != nil {
		return Network{}, fmt.Errorf("reading network %s: %w", uuid, err)
	}
	return network, nil
}

func (s *session) network(ctx context.Context, uuid string) (Network, error) {
	definition, parsed, err := s.networkXML(ctx, uuid, libvirt.NETWORK_XML_INACTIVE)
	if err != nil {
		return Network{}, err
	}
	active, err := onNetwork(ctx, s, uuid, "networkIsActive", (*libvirt.Network).IsActive)
	if err != nil {
		return Network{}, err
	}
	persistent, err := onNetwork(ctx, s, uuid, "networkIsPersistent", (*libvirt.Network).IsPersistent)
	if err != nil {
		return Network{}, err
	}
	network := Network{UUID: uuid, Name: parsed.Name, Active: active, Persistent: persistent, XML: definition}
	if parsed.Bridge != nil {
		network.Bridge = parsed.Bridge.Name
	}
	return network, nil
}

// NetworkXML returns the persistent definition of a network, in one call. ErrNotFound: there is none with that UUID.
func (h *Host) NetworkXML(ctx context.Context, uuid string) (string, error) {
	s, err := h.current()
	if err != nil {
		return "", err
	}
	definition, _, err := s.networkXML(ctx, uuid, libvirt.NETWORK_XML_INACTIVE)
	if err != nil {
		return "", fmt.Errorf("reading network %s: %w", uuid, err)
	}
	return definition, nil
}

// Networks returns all networks, in about three calls for each: for checks before a new one is made.
func (h *Host) Networks(ctx context.Context) ([]Network, error) {
	networks, err := h.networks(ctx)
	if err != nil {
		return nil, fmt.Errorf("listing networks: %w", err)
	}
	return networks, nil
}

func (h *Host) networks(ctx context.Context) ([]Network, error) {
	s, err := h.current()
	if err != nil {
		return nil, err
	}
	uuids, err := call(ctx, s.control, "connectListAllNetworks", func() ([]string, error) {
		nets, err := s.control.libvirt.ListAllNetworks(0)
		uuids := make([]string, len(nets))
		for k := range nets {
			var uuidErr error
			uuids[k], uuidErr = nets[k].GetUUIDString()
			s.networks.put(uuids[k], &nets[k])
			err = errors.Join(err, uuidErr, nets[k].Free())
		}
		return uuids, err
	})
	if err != nil {
		return nil, err
	}
	var networks []Network
	for _, uuid := range uuids {
		network, err := s.network(ctx, uuid)
		if errors.Is(err, ErrNotFound) {
			continue // removed since it was listed
		}
		if err != nil {
			return nil, err
		}
		networks = append(networks, network)
	}
	return networks, nil
}

// EnsureNetwork defines a network, which must have a UUID, has it started with the host and starts it. A network that
// exists is redefined, but keeps the DHCP reservations that were added to it; if it runs, the new definition takes effect
// at its next start. One that was defined just now and does not start is removed again.
// ErrExists: another network has that name.
func (h *Host) EnsureNetwork(ctx context.Context, definition string) error {
	s, err := h.current()
	if err != nil {
		return err
	}
	wanted := &libvirtxml.Network{}
	if err := wanted.Unmarshal(definition); err != nil {
		return fmt.Errorf("parsing the network's XML: %w: %w", ErrInvalid, err)
	}
	if wanted.UUID == "" || wanted.Name == "" {
		return fmt.Errorf("%w: the network's XML has no uuid or no name", ErrInvalid)
	}
	// One at a time: libvirt may choose the same bridge for two that are made at once.
	unlock, err := s.control.lock(ctx, &h.locks, "the networks")
	if err != nil {
		return err
	}
	defer unlock()
	unlockThis, err := s.control.lock(ctx, &h.locks, "network "+wanted.UUID)
	if err != nil {
		return err
	}
	defer unlockThis()
	if err := s.ensureNetwork(ctx, wanted, definition); err != nil {
		return fmt.Errorf("ensuring network %s: %w", wanted.Name, err)
	}
	return nil
}

func (s *session) ensureNetwork(ctx context.Context, wanted *libvirtxml.Network, definition string) error {
	_, existing, err := s.networkXML(ctx, wanted.UUID, libvirt.NETWORK_XML_INACTIVE)
	isNew := errors.Is(err, ErrNotFound)
	if err != nil && !isNew {
		return err
	}
	if !isNew && keepReservations(wanted, existing) {
		if definition, err = wanted.Marshal(); err != nil {
			return fmt.Errorf("writing its XML: %w", err)
		}
	}
	if err := s.defineNetwork(ctx, wanted, definition); err != nil {
		return fmt.Errorf("defining: %w", err)
	}
	err = doOnNetwork(ctx, s, wanted.UUID, "networkSetAutostart", func(net *libvirt.Network) error { return net.SetAutostart(true) })
	if err == nil {
		err = s.startNetwork(ctx, wanted.UUID)
	}
	if err == nil || !isNew {
		return err
	}
	undo := doOnNetwork(ctx, s, wanted.UUID, "networkUndefine", (*libvirt.Network).Undefine)
	s.networks.drop(wanted.UUID)
	return errors.Join(err, undo)
}

func (s *session) networkNameTaken(ctx context.Context, wanted *libvirtxml.Network) bool {
	uuid, err := s.networkUUID(ctx, wanted.Name)
	return err == nil && uuid != wanted.UUID
}

func (s *session) startNetwork(ctx context.Context, uuid string) error {
	active, err := onNetwork(ctx, s, uuid, "networkIsActive", (*libvirt.Network).IsActive)
	if err != nil || active {
		return err
	}
	if err := doOnNetwork(ctx, s, uuid, "networkCreate", (*libvirt.Network).Create); err != nil {
		return fmt.Errorf("starting: %w", err)
	}
	return nil
}

// DeleteNetwork stops and removes a network. ErrNotFound: there is none with that UUID.
func (h *Host) DeleteNetwork(ctx context.Context, uuid string) error {
	s, err := h.current()
	if err != nil {
		return err
	}
	unlock, err := s.control.lock(ctx, &h.locks, "the networks")
	if err != nil {
		return err
	}
	defer unlock()
	err = doOnNetwork(ctx, s, uuid, "networkDestroy", (*libvirt.Network).Destroy)
	if code(err) == libvirt.ERR_OPERATION_INVALID { // it was stopped already
		err = nil
	}
	if err != nil {
		return fmt.Errorf("stopping network %s: %w", uuid, err)
	}
	if err := doOnNetwork(ctx, s, uuid, "networkUndefine", (*libvirt.Network).Undefine); err != nil {
		return fmt.Errorf("undefining network %s: %w", uuid, err)
	}
	s.networks.drop(uuid)
	return nil
}
