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
	"fmt"
	"net/netip"
)

// Check tells whether forwards lead into a network and nowhere else, given the ranges of the network's addresses and the
// addresses that the host itself has there. The error names the first forward that doesn't.
func Check(w Wanted, ranges []netip.Prefix, gateways []netip.Addr) error {
	for i, f := range w.Forwards {
		inside := false
		for _, r := range ranges {
			inside = inside || r.Contains(f.Target)
			if r.Contains(f.External) {
				return fmt.Errorf("%s: the external address is one of the network %s itself", f, r)
			}
		}
		if !inside {
			return fmt.Errorf("%s: the target %s is outside the network's ranges %s", f, f.Target, ranges)
		}
		for _, gateway := range gateways {
			if f.Target == gateway {
				return fmt.Errorf("%s: the target %s is the host's own address in the network", f, f.Target)
			}
		}
		if f.External.IsUnspecified() || f.External.IsLoopback() || f.External.IsMulticast() {
			return fmt.Errorf("%s: clients elsewhere can't use the external address", f)
		}
		for _, other := range w.Forwards[:i] {
			if f.Overlaps(other) {
				return fmt.Errorf("%s and %s wait for the same connections", other, f)
			}
		}
	}
	return nil
}
