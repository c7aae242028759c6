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
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// niceness of a domain that is preferred, as nice(1) counts it.
const niceness = -10

// Prefer has the emulator of a running domain go before all other programs, also those of other hosts, when processors
// are scarce.
func (h *Host) Prefer(domain string) error {
	content, err := os.ReadFile(h.Path("/run/libvirt/qemu/" + domain + ".pid"))
	if err != nil {
		return fmt.Errorf("looking for the emulator of domain %s: %w", domain, err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(content)))
	if err != nil {
		return fmt.Errorf("looking for the emulator of domain %s: %w", domain, err)
	}
	// libvirt starts each emulator in a session of its own. The kernel shares processors between sessions first, and only
	// then between the programs of one; unless it was built without that.
	err = os.WriteFile(procFile(pid, "autogroup"), []byte(strconv.Itoa(niceness)), 0)
	if errors.Is(err, fs.ErrNotExist) {
		err = syscall.Setpriority(syscall.PRIO_PGRP, pid, niceness)
	}
	if err != nil {
		return fmt.Errorf("preferring domain %s: %w", domain, err)
	}
	return nil
}
