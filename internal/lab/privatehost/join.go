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

package privatehost

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
)

// Join connects two running hosts by a bridge of that name in each, made if
// need be: as if both were plugged into one switch. It may be called again.
// The cable goes when either host stops; the bridge stays as long as its host
// runs. Hosts must be joined in a row or a star, since a circle of bridges
// sends frames round for ever.
func Join(ctx context.Context, a, b *Host, bridge string) error {
	if a.dir == b.dir {
		return fmt.Errorf("joining host %s with itself: name two hosts", a.Name())
	}
	for _, h := range []*Host{a, b} {
		if !h.Running() {
			return fmt.Errorf("joining hosts: host %s: %w", h.Name(), ErrNotRunning)
		}
		if err := h.addBridge(ctx, bridge); err != nil {
			return fmt.Errorf("joining hosts: making bridge %s on host %s: %w", bridge, h.Name(), err)
		}
	}
	// Each end is named after the host at the other.
	here, there := linkName(b.dir), linkName(a.dir)
	if !a.hasInterface(ctx, here) {
		if _, err := run(a.ip(ctx, "link", "add", here, "type", "veth", "peer", "name", there, "netns", fmt.Sprint(b.state.Holder))); err != nil {
			return fmt.Errorf("joining hosts: %w", err)
		}
	}
	for _, cmd := range []*exec.Cmd{
		a.ip(ctx, "link", "set", here, "master", bridge, "up"),
		b.ip(ctx, "link", "set", there, "master", bridge, "up"),
	} {
		if _, err := run(cmd); err != nil {
			return fmt.Errorf("joining hosts: %w", err)
		}
	}
	return nil
}

// SetAddress gives an interface of a running host, such as a bridge that Join
// made, an address and its network. It may be called again.
func (h *Host) SetAddress(ctx context.Context, iface string, address netip.Prefix) error {
	if _, err := run(h.ip(ctx, "addr", "replace", address.String(), "dev", iface)); err != nil {
		return fmt.Errorf("giving host %s the address %s on %s: %w", h.Name(), address, iface, err)
	}
	return nil
}

func (h *Host) addBridge(ctx context.Context, name string) error {
	if !h.hasInterface(ctx, name) {
		// Without spanning tree, which would keep a new port silent for half a minute.
		if _, err := run(h.ip(ctx, "link", "add", name, "type", "bridge", "stp_state", "0")); err != nil {
			return err
		}
	}
	_, err := run(h.ip(ctx, "link", "set", name, "up"))
	return err
}

// hasInterface tells whether a host has an interface.
func (h *Host) hasInterface(ctx context.Context, name string) bool {
	_, err := run(h.ip(ctx, "link", "show", "dev", name))
	var failed *exec.ExitError
	return !errors.As(err, &failed)
}

// ip is the command ip in the host's network. Process IDs among its arguments
// are the machine's.
func (h *Host) ip(ctx context.Context, args ...string) *exec.Cmd {
	return h.Command(ctx, "ip", args...)
}
