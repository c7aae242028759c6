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

package hostagent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/gateway"
)

// errForeign says that a table has the name of one of ours and isn't.
var errForeign = errors.New("it isn't the host agent's and is left alone: remove or rename it")

// tables are the nftables tables of ours, as the agent wrote them last.
type tables struct {
	written map[string]table // by name
}

// table is one as it was written, and as the kernel showed it right after that.
type table struct {
	script, listing string
	// sure is set when nobody changed any rules in between, so that the listing is what the script makes.
	sure bool
}

func newTables() *tables { return &tables{written: map[string]table{}} }

// ensure writes a table unless it is what it was after the same script was last run. It returns whether it wrote.
func (t *tables) ensure(ctx context.Context, name, script string) (bool, error) {
	found, err := listTable(ctx, name)
	if err != nil {
		return false, err
	}
	before, known := t.written[name]
	if known && before.sure && before.script == script && before.listing == found {
		return false, nil
	}
	if found != "" && !isOurs(found) {
		return false, fmt.Errorf("table inet %s: %w", name, errForeign)
	}
	t.written[name], err = write(ctx, name, script)
	if err != nil {
		return false, fmt.Errorf("writing table inet %s: %w", name, err)
	}
	return true, nil
}

// write runs a table's script and reads what the kernel makes of it, again if others change rules meanwhile. Those who do
// so all the time are waited for until the next pass, which a change causes.
func write(ctx context.Context, name, script string) (table, error) {
	written := table{script: script}
	for range 3 {
		before, err := rulesGeneration()
		if err != nil {
			return written, err
		}
		if err := runScript(ctx, script); err != nil {
			return written, err
		}
		if written.listing, err = listTable(ctx, name); err != nil {
			return written, err
		}
		after, err := rulesGeneration()
		if err != nil {
			return written, err
		}
		if written.sure = after == before+1; !written.sure {
			continue
		}
		if !isOurs(written.listing) {
			written.sure = false
			return written, errors.New("the kernel doesn't keep the comments of tables: Linux 5.10 is needed")
		}
		break
	}
	return written, nil
}

// removeOthers removes all tables of ours but those to keep, and returns their names.
func (t *tables) removeOthers(ctx context.Context, keep map[string]bool) ([]string, error) {
	found, err := t.find(ctx)
	if err != nil {
		return nil, err
	}
	var removed []string
	for _, name := range slices.Sorted(maps.Keys(found)) {
		if keep[name] {
			continue
		}
		if err := runScript(ctx, gateway.RenderRemoval(name)); err != nil {
			return removed, fmt.Errorf("removing table inet %s: %w", name, err)
		}
		removed = append(removed, name)
	}
	for name := range t.written {
		if !keep[name] {
			delete(t.written, name)
		}
	}
	return removed, nil
}

var ourName = regexp.MustCompile(`^capl-[0-9a-f]{10}$`)

// isOurs tells by its listing whether a table carries the mark.
func isOurs(listing string) bool {
	return strings.Contains(listing, "\n\tcomment \""+gateway.Mark)
}

// names are those of the tables that the agent has written.
func (t *tables) names() map[string]bool {
	names := map[string]bool{}
	for name := range t.written {
		names[name] = true
	}
	return names
}

// find returns the names of all tables of ours that are there.
func (t *tables) find(ctx context.Context) (map[string]bool, error) {
	names, err := listNames(ctx)
	if err != nil {
		return nil, err
	}
	found := map[string]bool{}
	for _, name := range names {
		if !ourName.MatchString(name) {
			continue
		}
		listing, err := listTable(ctx, name)
		if err != nil {
			return nil, err
		}
		if isOurs(listing) {
			found[name] = true
		}
	}
	return found, nil
}
