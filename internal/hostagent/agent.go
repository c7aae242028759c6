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

// Package hostagent is the program on a KVM host that lets traffic into node networks and out of them. It reads what the
// controller wants in the metadata of libvirt's networks, keeps an nftables table for each of them and the WireGuard links to
// other hosts, and tells in the metadata of a network of its own what has become of that: see package gateway. It talks to the libvirt of its own host
// and to nobody else.
package hostagent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/go-logr/logr"

	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/gateway"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/host"
)

// hostKey is the key in the pool of the only host.
const hostKey = "local"

const (
	// settle is how long a pass waits for further events of the same change, or twice as long as the last one took: a host
	// on which others change rules all the time has something else to do, too.
	settle, settleAtMost = 100 * time.Millisecond, time.Second
	// retry is when a pass that failed is made again, at first.
	retry, retryAtMost = time.Second, 30 * time.Second
	// patience bounds what one pass asks of libvirt, so that one that hangs doesn't keep rules from being repaired.
	patience = 5 * time.Second
)

// Agent keeps the tables of the node networks of one host, and its links to others.
type Agent struct {
	log     logr.Logger
	version string
	pool    *host.Pool
	tables  *tables
	wire    *wire

	// networks are those that were there when libvirt was last asked, in the order of their UUIDs.
	networks []network
	// asked is set once libvirt has answered.
	asked bool
	// applied is what the networks' tables let in, by UUID. It outlives the agent in its status.
	applied map[string]gateway.Wanted
	// told is the status that was last written.
	told gateway.Status
}

// New returns an agent for the libvirt at a URI, with a directory for the host's keys.
func New(log logr.Logger, version, uri, stateDir string) *Agent {
	pool := host.NewPool(log)
	pool.Set(hostKey, host.Config{URI: uri})
	return &Agent{
		log: log, version: version, pool: pool, tables: newTables(), wire: newWire(log, keyFiles{stateDir}), applied: map[string]gateway.Wanted{},
	}
}

// Run keeps the tables and the link until ctx ends, and leaves them as they are then, but for a link that is in this process.
func (a *Agent) Run(ctx context.Context) error {
	changes, err := watch(ctx, a.log, hostEvents...)
	if err != nil {
		return err
	}
	if err := a.wire.keep(ctx); err != nil {
		return err
	}
	defer a.wire.close()
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		_ = a.pool.Start(ctx) // it ends with ctx and returns no error
	}()
	defer func() { <-stopped }()

	resync := time.NewTicker(gateway.RenewInterval)
	defer resync.Stop()
	due, dueAt := time.NewTimer(settle), time.Now().Add(settle)
	defer due.Stop()
	ask, pause, again := true, settle, retry
	for {
		after := pause
		select {
		case <-ctx.Done():
			return nil
		case event := <-a.pool.Events():
			if event.Kind != host.HostConnected && (event.Kind != host.NetworkChanged || event.UUID == gateway.StatusNetworkUUID) {
				continue
			}
			ask = true
		case <-changes:
		case <-a.wire.changes:
		case <-resync.C:
			ask = true
		case <-due.C:
			start := time.Now()
			err := a.pass(ctx, ask)
			dueAt, pause, ask = time.Time{}, min(max(settle, 2*time.Since(start)), settleAtMost), err != nil
			if err == nil {
				again = retry
				continue
			}
			if ctx.Err() == nil {
				a.log.Error(err, "Failed to bring the host up to date", "nextTry", again.String())
			}
			after, again = again, min(2*again, retryAtMost)
		}
		// Neither does a later event put the pass off, nor does a retry make an event wait.
		if at := time.Now().Add(after); dueAt.IsZero() || at.Before(dueAt) {
			due.Reset(after)
			dueAt = at
		}
	}
}

// pass compares everything once; it changes and tells what differs. Libvirt is asked only if something may have changed
// there. As long as it doesn't answer, the tables are kept as they were to be last.
func (a *Agent) pass(ctx context.Context, ask bool) error {
	libvirt, err := a.pool.Get(hostKey)
	away := err != nil
	if away {
		a.log.V(1).Info("Libvirt is away", "reason", err.Error())
		err = nil // that it is back is an event
	} else if ask {
		err = a.look(ctx, libvirt)
	}
	if !a.asked {
		return err
	}
	addresses, addrErr := hostAddresses()
	if addrErr != nil {
		return errors.Join(err, addrErr)
	}

	plan := decide(a.networks, a.applied)
	planned := planLink(a.networks, plan.lets, addresses)
	link := a.wire.want(planned)
	failed := map[string]error{}
	for _, n := range a.networks {
		if n.broken == nil {
			failed[n.UUID] = a.apply(ctx, n, plan.lets[n.UUID], link)
		}
	}
	removeErr := a.removeOthers(ctx, ask && !away && err == nil)
	errs := []error{err, removeErr, link.err}
	for _, failure := range failed {
		errs = append(errs, failure)
	}
	if !away {
		blocking, surveyErr := survey(ctx, a.networks, planned, a.tables.names())
		status := report(a.version, a.networks, a.applied, plan, addresses, failed, blocking)
		status.Link = link.status
		errs = append(errs, surveyErr, a.tell(ctx, libvirt, status))
	}
	return errors.Join(errs...)
}

// look reads the networks of the host and, the first time, what the agent told before.
func (a *Agent) look(ctx context.Context, libvirt *host.Host) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	found, err := libvirt.Networks(ctx)
	if err != nil {
		return err
	}
	documents := make([]string, len(found))
	for i, n := range found {
		documents[i] = n.XML
		if n.UUID == gateway.StatusNetworkUUID && !a.asked {
			a.remember(n.XML)
		}
	}
	a.networks, a.asked = readNetworks(documents), true
	return nil
}

// remember takes what was applied from the status of the agent's last run.
func (a *Agent) remember(document string) {
	status, err := gateway.ReadStatus(document)
	if err != nil {
		a.log.Info("What was applied before isn't known", "reason", err.Error())
		return
	}
	for _, n := range status.Networks {
		if n.Applied != nil {
			a.applied[n.UUID] = *n.Applied
		}
	}
}

// apply makes a network's table let in what was decided: nothing, if lets is nil. It is applied only with its link.
func (a *Agent) apply(ctx context.Context, n network, lets *gateway.Wanted, link wireState) error {
	table, wanted := gateway.TableName(n.UUID), gateway.Wanted{}
	if lets != nil {
		wanted = *lets
	}
	changed, err := a.tables.ensure(ctx, table, gateway.RenderTable(n.Network, rangesOfOthers(n, a.networks), wanted))
	if err != nil {
		return fmt.Errorf("network %s: %w", n.Name, err)
	}
	switch {
	case lets == nil:
		delete(a.applied, n.UUID)
	case wanted.Link == nil || link.of(n.UUID) == nil:
		a.applied[n.UUID] = wanted
	default:
		err = fmt.Errorf("network %s: %w", n.Name, link.of(n.UUID))
	}
	if changed {
		a.log.Info("Wrote the table", "table", table, "network", n.Name, "generation", generation(lets), "forwards", len(wanted.Forwards))
	}
	return err
}

// removeOthers forgets the networks that are gone, and removes their tables if libvirt has just said so.
func (a *Agent) removeOthers(ctx context.Context, sure bool) error {
	if !sure {
		return nil
	}
	keep, applied := map[string]bool{}, map[string]gateway.Wanted{}
	for _, n := range a.networks {
		if n.broken != nil {
			continue
		}
		keep[gateway.TableName(n.UUID)] = true
		if lets, ok := a.applied[n.UUID]; ok {
			applied[n.UUID] = lets
		}
	}
	a.applied = applied
	removed, err := a.tables.removeOthers(ctx, keep)
	for _, table := range removed {
		a.log.Info("Removed the table of a network that is gone", "table", table)
	}
	return err
}

// generation of what a table lets in, nothing if that is nothing.
func generation(lets *gateway.Wanted) string {
	if lets == nil {
		return ""
	}
	return lets.Generation()
}
