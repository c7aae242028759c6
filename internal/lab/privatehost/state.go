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
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sort"
	"strings"
)

// state is what another process needs to know of a host to find, use and stop
// it. It is kept in the host's directory.
type state struct {
	Name string `json:"name"`

	// Holder is the pid of the process that keeps the namespaces.
	Holder int `json:"holder"`

	// Netns is the network namespace as /proc/PID/ns/net shows it: net:[inode].
	Netns string `json:"netns"`

	// Boot is the machine's boot ID: pids and inodes mean nothing after it.
	Boot string `json:"boot"`

	// Addr and MachineAddr are the two ends of the link to the machine.
	Addr        netip.Addr `json:"addr,omitzero"`
	MachineAddr netip.Addr `json:"machineAddr,omitzero"`

	// Listen says whether libvirtd is started with --listen.
	Listen bool `json:"listen,omitempty"`
}

func statePath(dir string) string { return filepath.Join(dir, "host.json") }

func (s *state) load(dir string) error {
	data, err := os.ReadFile(statePath(dir))
	if err != nil {
		return err
	}
	return json.Unmarshal(data, s)
}

func (s *state) save(dir string) error {
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding the host's state: %w", err)
	}
	next := statePath(dir) + ".next"
	if err := os.WriteFile(next, append(data, '\n'), 0o600); err != nil {
		return fmt.Errorf("writing the host's state: %w", err)
	}
	return os.Rename(next, statePath(dir))
}

// holderAlive says whether the holder is the process that was started: a pid
// alone may since have been given to another one.
func (s *state) holderAlive() bool {
	return s.Holder != 0 && s.Boot == bootID() && netnsOf(s.Holder) == s.Netns
}

// netnsOf returns a process's network namespace, or nothing if the process is
// gone or a zombie.
func netnsOf(pid int) string {
	netns, err := os.Readlink(procFile(pid, "ns/net"))
	if err != nil {
		return ""
	}
	return netns
}

func bootID() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(id))
}

// List returns the running hosts of this machine, by name. The machine's end
// of a host's link names the host's directory, so there is no other register.
func List() ([]*Host, error) {
	aliases, err := filepath.Glob("/sys/class/net/" + linkPrefix + "*/ifalias")
	if err != nil {
		return nil, err
	}
	var hosts []*Host
	for _, path := range aliases {
		alias, err := os.ReadFile(path)
		if err != nil {
			continue // the link has just gone
		}
		if h, err := Open(strings.TrimSpace(string(alias))); err == nil && h.Running() {
			hosts = append(hosts, h)
		}
	}
	sort.Slice(hosts, func(i, j int) bool { return hosts[i].Name() < hosts[j].Name() })
	return hosts, nil
}
