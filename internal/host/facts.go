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
	"slices"
	"strings"

	"libvirt.org/go/libvirt"
	"libvirt.org/go/libvirtxml"
)

// Facts describes a host.
type Facts struct {
	Hostname string
	// UUID is libvirt's of the host: that of its firmware as a rule. It is empty where libvirt has none.
	UUID string
	// LibvirtVersion and HypervisorVersion are of the form x.y.z.
	LibvirtVersion    string
	HypervisorVersion string
	// Architecture is Go's name of it, such as amd64.
	Architecture string
	CPUs         int
	// MemoryBytes is the host's whole memory.
	MemoryBytes int64
	// DomainTypes are the kinds of domain that the host offers for its own architecture: kvm, qemu, test.
	DomainTypes []string
}

// Facts asks the host about itself: a handful of calls.
func (h *Host) Facts(ctx context.Context) (Facts, error) {
	facts, err := h.facts(ctx)
	if err != nil {
		return Facts{}, fmt.Errorf("reading the facts of the host: %w", err)
	}
	return facts, nil
}

func (h *Host) facts(ctx context.Context) (Facts, error) {
	s, err := h.current()
	if err != nil {
		return Facts{}, err
	}
	conn := s.control.libvirt
	hostname, err := call(ctx, s.control, "connectGetHostname", conn.GetHostname)
	if err != nil {
		return Facts{}, err
	}
	library, err := call(ctx, s.control, "connectGetLibVersion", conn.GetLibVersion)
	if err != nil {
		return Facts{}, err
	}
	version, err := call(ctx, s.control, "connectGetVersion", conn.GetVersion)
	if err != nil {
		return Facts{}, err
	}
	node, err := call(ctx, s.control, "nodeGetInfo", conn.GetNodeInfo)
	if err != nil {
		return Facts{}, err
	}
	memory, err := call(ctx, s.control, "nodeGetMemoryStats", func() (*libvirt.NodeMemoryStats, error) {
		return conn.GetMemoryStats(libvirt.NODE_MEMORY_STATS_ALL_CELLS, 0)
	})
	switch {
	case errors.Is(err, ErrUnsupported):
		memory = &libvirt.NodeMemoryStats{TotalSet: true, Total: node.Memory}
	case err != nil:
		return Facts{}, err
	case !memory.TotalSet:
		memory.Total = node.Memory
	}
	caps, err := s.capabilities(ctx)
	if err != nil {
		return Facts{}, err
	}
	return Facts{
		Hostname:          hostname,
		UUID:              hostUUID(caps),
		LibvirtVersion:    versionString(library),
		HypervisorVersion: versionString(version),
		Architecture:      architecture(node.Model),
		CPUs:              int(node.Cpus),
		// Not what nodeGetInfo says: that was seen to be less than what is there.
		MemoryBytes: int64(memory.Total) << 10,
		DomainTypes: domainTypes(caps, node.Model),
	}, nil
}

func (s *session) capabilities(ctx context.Context) (caps libvirtxml.Caps, err error) {
	text, err := call(ctx, s.control, "connectGetCapabilities", s.control.libvirt.GetCapabilities)
	if err != nil {
		return caps, err
	}
	if err := caps.Unmarshal(text); err != nil {
		return caps, fmt.Errorf("parsing the host's capabilities: %w", err)
	}
	return caps, nil
}

func hostUUID(caps libvirtxml.Caps) string { return strings.ToLower(caps.Host.UUID) }

func versionString(version uint32) string {
	return fmt.Sprintf("%d.%d.%d", version/1_000_000, version/1000%1000, version%1000)
}

// architectures maps libvirt's names to Go's, where they differ.
var architectures = map[string]string{
	"x86_64":  "amd64",
	"aarch64": "arm64",
	"armv7l":  "arm",
	"i686":    "386",
}

// domainTypes finds the kinds of domain that a host offers for fully virtualised guests of its own architecture.
func domainTypes(caps libvirtxml.Caps, arch string) []string {
	var own, every []string
	for _, guest := range caps.Guests {
		if guest.OSType != "hvm" {
			continue
		}
		for _, domain := range guest.Arch.Domains {
			every = append(every, domain.Type)
			if guest.Arch.Name == arch {
				own = append(own, domain.Type)
			}
		}
	}
	if own == nil {
		own = every // the test driver says it is an x86_64 that runs i686
	}
	slices.Sort(own)
	return slices.Compact(own)
}

// architecture translates libvirt's name.
func architecture(libvirtName string) string {
	if name, ok := architectures[libvirtName]; ok {
		return name
	}
	return libvirtName
}
