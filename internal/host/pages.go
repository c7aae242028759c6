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
	"cmp"
	"context"
	"errors"
	"slices"

	"libvirt.org/go/libvirtxml"
)

// HugePages are the huge pages of one size that a host keeps in store.
type HugePages struct {
	// PageBytes is the size of one page.
	PageBytes int64
	// TotalBytes is what all of them are together, FreeBytes what no process has.
	TotalBytes, FreeBytes int64
}

// hugePages finds the huge pages of a host, smallest first: without a call when it keeps none.
func (s *session) hugePages(ctx context.Context, topology *libvirtxml.CapsHostNUMATopology) ([]HugePages, error) {
	pages := hugePagesOf(topology)
	if len(pages) == 0 {
		return nil, nil
	}
	sizes := make([]uint64, 0, len(pages))
	for _, p := range pages {
		sizes = append(sizes, uint64(p.PageBytes>>10))
	}
	// Cell by cell: what was asked for several at once comes without saying which cells there are.
	for _, cell := range topology.Cells.Cells {
		counts, err := call(ctx, s.control, "nodeGetFreePages", func() ([]uint64, error) {
			return s.control.libvirt.GetFreePages(sizes, cell.ID, 1, 0)
		})
		if errors.Is(err, ErrUnsupported) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		for k := range min(len(counts), len(pages)) {
			pages[k].FreeBytes += int64(counts[k]) * pages[k].PageBytes
		}
	}
	for k := range pages {
		pages[k].FreeBytes = min(pages[k].FreeBytes, pages[k].TotalBytes)
	}
	return pages, nil
}

// hugePagesOf adds up what the NUMA cells of a host have of each size but the smallest, which is that of ordinary memory.
func hugePagesOf(topology *libvirtxml.CapsHostNUMATopology) []HugePages {
	if topology == nil || topology.Cells == nil {
		return nil
	}
	total, ordinary := map[int64]int64{}, int64(0)
	for _, cell := range topology.Cells.Cells {
		for _, page := range cell.PageInfo {
			size := (scaled{Unit: page.Unit, Value: int64(page.Size)}).bytes("KiB")
			total[size] += size * int64(page.Count)
			if ordinary == 0 || size < ordinary {
				ordinary = size
			}
		}
	}
	delete(total, ordinary)
	var pages []HugePages
	for size, bytes := range total {
		if size > 0 && bytes > 0 {
			pages = append(pages, HugePages{PageBytes: size, TotalBytes: bytes})
		}
	}
	slices.SortFunc(pages, func(a, b HugePages) int { return cmp.Compare(a.PageBytes, b.PageBytes) })
	return pages
}

func numaNodes(topology *libvirtxml.CapsHostNUMATopology) int {
	if topology == nil || topology.Cells == nil {
		return 0
	}
	return len(topology.Cells.Cells)
}
