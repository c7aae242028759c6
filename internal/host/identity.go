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
	"slices"
)

// Identity is what tells a host from another that answers in its place, because the URI was changed or a name leads
// elsewhere: on the other one all domains would seem to be gone.
type Identity struct {
	// UUID is libvirt's of the host when it was last seen. Anything is accepted as long as it isn't known.
	UUID string
	// Domains are those that were on the host, by UUID. A host that has one of them is the right one, whatever its own UUID:
	// where the firmware has none, libvirt makes one up at each start.
	Domains []string
}

func (h *Host) expect(identity Identity) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.identity = identity
}

// recognize refuses a session with another host than the one that is expected. It asks only if none of its domains is
// there. The error is ErrOtherHost then.
func (h *Host) recognize(ctx context.Context, s *session) error {
	h.mu.Lock()
	expected := h.identity
	h.mu.Unlock()
	here := func(uuid string) bool {
		_, ok := s.inventory.domain(uuid)
		return ok
	}
	if expected.UUID == "" || len(expected.Domains) == 0 || slices.ContainsFunc(expected.Domains, here) {
		return nil
	}
	caps, err := s.capabilities(ctx)
	if err != nil {
		return err
	}
	if uuid := hostUUID(caps); uuid != expected.UUID {
		return fmt.Errorf("%w: its UUID is %s and not %s, and it has none of the %d domains that were there",
			ErrOtherHost, uuid, expected.UUID, len(expected.Domains))
	}
	return nil
}
