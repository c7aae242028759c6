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
	"fmt"
)

// Prefer has the emulator of a running domain go before all other programs, also those of other hosts, when processors
// are scarce.
func (h *Host) Prefer(ctx context.Context, domain string) error {
	// libvirt starts each emulator in a session of its own. The kernel shares processors between sessions first, and only
	// then between the programs of one; unless it was built without that. The number is one of the host's own processes.
	const script = `pid=$(cat "/run/libvirt/qemu/$1.pid")
if [ -e "/proc/$pid/autogroup" ]; then echo -10 >"/proc/$pid/autogroup"; else renice --priority -10 --pgrp "$pid"; fi`
	if out, err := h.Inside(ctx, "sh", "-eu", "-c", script, "prefer", domain).CombinedOutput(); err != nil {
		return fmt.Errorf("preferring domain %s: %w: %s", domain, err, out)
	}
	return nil
}
