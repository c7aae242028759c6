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

package controllers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/domain"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/host"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/owner"
)

// lookForOrphans compares what is on a host with the LibvirtMachines. It costs a call per storage pool, and one for each
// domain and volume that is named like ours and that no LibvirtMachine stands for, the first time it is seen.
func (r *LibvirtHostReconciler) lookForOrphans(ctx context.Context, s *hostScope, before orphanage) (orphanage, error) {
	names := map[string][]string{}
	for _, pool := range append(diskPools(s.libvirtHost), seedPool(s.libvirtHost)) {
		var err error
		if names[pool], err = s.host.VolumeNames(ctx, pool); err != nil {
			return orphanage{}, err
		}
	}
	// A machine that is being made has its LibvirtMachine first, then its volumes, then its domain.
	domains := s.host.Domains()
	// An inventory that was lost meanwhile is empty, which mustn't be taken for a host without domains.
	if _, err := r.Hosts.Get(hostKey(s.libvirtHost.Namespace, s.libvirtHost.Name)); err != nil {
		return orphanage{}, err
	}
	var machines infrav1.LibvirtMachineList
	if err := r.Client.List(ctx, &machines); err != nil {
		return orphanage{}, fmt.Errorf("listing LibvirtMachines: %w", err)
	}
	claims := claimsOf(machines.Items)
	found := orphanage{at: time.Now()}
	var err error
	if found.marks, err = readMarks(ctx, s, domains, claims, before.marks); err != nil {
		return orphanage{}, err
	}
	find := func() []orphan {
		orphans := append(orphanDomains(s.libvirtHost, domains, found.marks, claims), orphanVolumes(names, domains, claims)...)
		return orphans[:min(len(orphans), maxOrphansKnown)]
	}
	found.orphans = find()
	if slices.ContainsFunc(found.orphans, func(o orphan) bool { return !slices.ContainsFunc(before.orphans, o.same) }) {
		// The cache may be a moment behind.
		var newest infrav1.LibvirtMachineList
		if err := r.APIReader.List(ctx, &newest, client.InNamespace(s.libvirtHost.Namespace)); err != nil {
			return orphanage{}, fmt.Errorf("listing LibvirtMachines: %w", err)
		}
		maps.Copy(claims, claimsOf(newest.Items))
		found.orphans = find()
	}
	found.orphans, err = recognize(ctx, s, found.orphans, before.orphans, found.at)
	return found, err
}

// recognize adds to the orphans when they were first seen, and to volumes that are seen for the first time when they were
// written to.
func recognize(ctx context.Context, s *hostScope, orphans, before []orphan, now time.Time) ([]orphan, error) {
	var known []orphan
	for _, o := range orphans {
		if k := slices.IndexFunc(before, o.same); k >= 0 {
			o.since, o.modified = before[k].since, before[k].modified
			known = append(known, o)
			continue
		}
		o.since = now
		if o.kind == orphanVolume {
			vol, err := s.host.Volume(ctx, o.pool, o.name)
			if errors.Is(err, host.ErrNotFound) {
				continue
			}
			if err != nil {
				return nil, err
			}
			o.modified = vol.ModifiedAt
		}
		known = append(known, o)
	}
	return known, nil
}

// claimsOf are the machines by the UUID of their domain.
func claimsOf(machines []infrav1.LibvirtMachine) map[string]*infrav1.LibvirtMachine {
	claims := map[string]*infrav1.LibvirtMachine{}
	for i := range machines {
		if uuid := domain.UUID(machines[i].Spec.ProviderID); uuid != "" {
			claims[uuid] = &machines[i]
		}
	}
	return claims
}

// readMarks reads the marks of the domains that may be orphans, unless they are known: they don't change.
func readMarks(ctx context.Context, s *hostScope, domains []host.Domain, claims map[string]*infrav1.LibvirtMachine, known map[string]*owner.Owner) (map[string]*owner.Owner, error) {
	marks := map[string]*owner.Owner{}
	read := 0
	for _, dom := range domains {
		if !mayBeOrphan(s.libvirtHost, dom, claims) {
			continue
		}
		if mark, ok := known[dom.UUID]; ok {
			marks[dom.UUID] = mark
			continue
		}
		if read++; read > maxMarksRead {
			break
		}
		document, err := s.host.DomainXML(ctx, dom.UUID)
		if errors.Is(err, host.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		marks[dom.UUID] = nil
		if by, ok := owner.Of(document); ok {
			marks[dom.UUID] = &by
		}
	}
	return marks, nil
}

// mayBeOrphan tells whether a domain is named like ours in the namespace of the host and isn't that of a machine there.
func mayBeOrphan(h *infrav1.LibvirtHost, dom host.Domain, claims map[string]*infrav1.LibvirtMachine) bool {
	claim := claims[dom.UUID]
	return strings.HasPrefix(dom.Name, domain.Name(h.Namespace, "")) && (claim == nil || claim.Namespace != h.Namespace || claim.Spec.HostName != h.Name)
}

// orphanDomains are the domains that carry the mark of a machine in the host's namespace and that no machine on the host
// stands for. One that is a machine's on another host, such as a copy that a migration left, is reported and never
// removed: the disks may be the same.
func orphanDomains(h *infrav1.LibvirtHost, domains []host.Domain, marks map[string]*owner.Owner, claims map[string]*infrav1.LibvirtMachine) []orphan {
	var orphans []orphan
	for _, dom := range domains {
		mark := marks[dom.UUID]
		if mark == nil || mark.Kind != machineKind || mark.Namespace != h.Namespace {
			continue
		}
		o := orphan{kind: orphanDomain, uuid: dom.UUID, name: dom.Name, owner: *mark}
		if claim := claims[dom.UUID]; claim != nil {
			o.kept = fmt.Sprintf("LibvirtMachine %s/%s has this UUID and is on host %s: look which of the two is in use", claim.Namespace, claim.Name, claim.Spec.HostName)
		}
		orphans = append(orphans, o)
	}
	return orphans
}

// orphanVolumes are the volumes that are named like ours and whose UUID is that of no machine and of no domain. names are
// those of all volumes by pool.
func orphanVolumes(names map[string][]string, domains []host.Domain, claims map[string]*infrav1.LibvirtMachine) []orphan {
	defined := map[string]bool{}
	for _, dom := range domains {
		defined[dom.UUID] = true
	}
	var orphans []orphan
	for pool, volumes := range names {
		for _, name := range volumes {
			if uuid, ok := domain.VolumeUUID(name); ok && claims[uuid] == nil && !defined[uuid] {
				orphans = append(orphans, orphan{kind: orphanVolume, uuid: uuid, name: name, pool: pool})
			}
		}
	}
	// A root disk comes before the bootstrap data of the same machine.
	slices.SortFunc(orphans, func(a, b orphan) int { return cmp.Compare(a.name, b.name) })
	return orphans
}
