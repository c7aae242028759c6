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

package domain

import (
	"cmp"
	"strings"

	"libvirt.org/go/libvirtxml"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
)

// renderMemoryBacking has the memory come from huge pages. Nil when it doesn't.
func renderMemoryBacking(pages infrav1.HugePages) *libvirtxml.DomainMemoryBacking {
	if pages.PageBytes() == 0 {
		return nil
	}
	return &libvirtxml.DomainMemoryBacking{MemoryHugePages: &libvirtxml.DomainMemoryHugepages{
		Hugepages: []libvirtxml.DomainMemoryHugepage{{Size: uint(pages.PageBytes() >> 10), Unit: "KiB"}},
	}}
}

// renderNUMATune says which NUMA nodes of the host the memory comes from. Nil when it may be any.
func renderNUMATune(numa infrav1.NUMA) *libvirtxml.DomainNUMATune {
	if numa.HostNodes == "" {
		return nil
	}
	return &libvirtxml.DomainNUMATune{Memory: &libvirtxml.DomainNUMATuneMemory{
		Mode: strings.ToLower(string(cmp.Or(numa.Mode, infrav1.NUMAModeStrict))), Nodeset: numa.HostNodes,
	}}
}
