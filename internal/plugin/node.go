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

package plugin

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// node is one thing in a tree of things.
type node struct {
	name, state, size, details string
	children                   []node
}

// writeTree writes a tree as a table, whose first column shows what belongs to what.
func writeTree(w io.Writer, root node) error {
	table := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(table, "NAME\tSTATE\tSIZE\tDETAILS")
	writeNode(table, root, "", "")
	if err := table.Flush(); err != nil {
		return fmt.Errorf("writing the tree: %w", err)
	}
	return nil
}

// writeNode writes a node behind what leads to it, and its children behind what goes on below it.
func writeNode(w io.Writer, n node, before, below string) {
	cells := []string{before + n.name, n.state, n.size, n.details}
	for i, cell := range cells {
		// A line break would break the table, and so would a cell without text.
		cells[i] = cmp.Or(strings.NewReplacer("\n", " ", "\t", " ").Replace(cell), "-")
	}
	fmt.Fprintln(w, strings.Join(cells, "\t"))
	for i, child := range n.children {
		if i == len(n.children)-1 {
			writeNode(w, child, below+"└─ ", below+"   ")
		} else {
			writeNode(w, child, below+"├─ ", below+"│  ")
		}
	}
}

// bytesText is a number of bytes in words, such as 1.5Gi.
func bytesText(n int64) string {
	value, unit := float64(n), ""
	for _, next := range []string{"Ki", "Mi", "Gi", "Ti"} {
		if value < 1024 {
			break
		}
		value, unit = value/1024, next
	}
	return strings.TrimSuffix(fmt.Sprintf("%.1f", value), ".0") + unit
}
