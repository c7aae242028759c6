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
	"fmt"

	"libvirt.org/go/libvirt"
	"libvirt.org/go/libvirtxml"
)

// DefineNetwork defines a network, which must have a UUID, or redefines it with nothing kept of what it was, and doesn't
// start it. ErrExists: another network has that name.
func (h *Host) DefineNetwork(ctx context.Context, definition string) error {
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
	unlock, err := s.control.lock(ctx, &h.locks, "network "+wanted.UUID)
	if err != nil {
		return err
	}
	defer unlock()
	if err := s.defineNetwork(ctx, wanted, definition); err != nil {
		return fmt.Errorf("defining network %s: %w", wanted.Name, err)
	}
	return nil
}

func (s *session) defineNetwork(ctx context.Context, wanted *libvirtxml.Network, definition string) error {
	err := do(ctx, s.control, "networkDefineXML", func() error {
		net, err := s.control.libvirt.NetworkDefineXML(definition)
		if err != nil {
			return err
		}
		s.networks.put(wanted.UUID, net)
		return net.Free()
	})
	if code(err) == libvirt.ERR_OPERATION_FAILED && s.networkNameTaken(ctx, wanted) {
		err = fmt.Errorf("%w: %w", ErrExists, err) // libvirt has no code of its own for it
	}
	return err
}
