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
)

// NetworkNamed returns the network of a name, in about four calls. ErrNotFound: there is none.
func (h *Host) NetworkNamed(ctx context.Context, name string) (Network, error) {
	s, err := h.current()
	if err != nil {
		return Network{}, err
	}
	uuid, err := s.networkUUID(ctx, name)
	if err != nil {
		return Network{}, fmt.Errorf("looking up network %s: %w", name, err)
	}
	network, err := s.network(ctx, uuid)
	if err != nil {
		return Network{}, fmt.Errorf("reading network %s: %w", name, err)
	}
	return network, nil
}

// networkUUID finds a network by its name.
func (s *session) networkUUID(ctx context.Context, name string) (string, error) {
	return call(ctx, s.control, "networkLookupByName", func() (string, error) {
		net, err := s.control.libvirt.LookupNetworkByName(name)
		if err != nil {
			return "", err
		}
		uuid, err := net.GetUUIDString()
		return uuid, errors.Join(err, net.Free())
	})
}

// HasInterface tells whether the host itself has a network interface of a name, such as a bridge. ErrUnsupported: it can't
// say.
func (h *Host) HasInterface(ctx context.Context, name string) (bool, error) {
	s, err := h.current()
	if err != nil {
		return false, err
	}
	err = do(ctx, s.control, "interfaceLookupByName", func() error {
		found, err := s.control.libvirt.LookupInterfaceByName(name)
		if err != nil {
			return err
		}
		return found.Free()
	})
	switch {
	case err == nil:
		return true, nil
	case code(err) == libvirt.ERR_NO_INTERFACE:
		return false, nil
	}
	return false, fmt.Errorf("looking up interface %s: %w", name, err)
}
