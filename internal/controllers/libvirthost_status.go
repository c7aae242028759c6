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
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/domain"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/host"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/placement"
)

// surveyLifetime is how long an answer of a host about itself is good for. A host is reconciled whenever one of its
// machines changes, which must cost it nothing.
const surveyLifetime = 10 * time.Minute

// surveys remembers what hosts said of themselves.
type surveys struct {
	mu    sync.Mutex
	known map[string]survey
}

type survey struct {
	facts host.Facts
	// epoch of the host when it was asked: a new connection or a changed pool makes the answers stale.
	epoch uint64
	at    time.Time
	// pools are those of spec.storage, once they were found in order, and retained the retained disks in them.
	pools    []host.StoragePool
	retained []infrav1.RetainedDisk
}

// covers tells whether all of the pools were found in order. One that was added to spec.storage since wasn't.
func (s *survey) covers(pools []string) bool {
	return !slices.ContainsFunc(pools, func(name string) bool {
		return !slices.ContainsFunc(s.pools, func(pool host.StoragePool) bool { return pool.Name == name })
	})
}

// get returns what a host said of itself, unless that is stale.
func (s *surveys) get(key string, epoch uint64) (survey, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	known, ok := s.known[key]
	return known, ok && known.epoch == epoch && time.Since(known.at) < surveyLifetime
}

func (s *surveys) set(key string, known survey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known == nil {
		s.known = map[string]survey{}
	}
	s.known[key] = known
}

func (s *surveys) forget(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.known, key)
}

// reportFacts writes what a host says of itself to the status.
func reportFacts(libvirtHost *infrav1.LibvirtHost, facts host.Facts) {
	status := &libvirtHost.Status
	status.Hostname = facts.Hostname
	status.HostUUID = facts.UUID
	status.LibvirtVersion = facts.LibvirtVersion
	status.HypervisorVersion = facts.HypervisorVersion
	status.Architecture = facts.Architecture
	status.Capacity = infrav1.HostResources{
		CPUs:   ptr.To(int32(facts.CPUs)),
		Memory: quantity(facts.MemoryBytes),
	}
	status.DomainTypes = domain.Types(facts.DomainTypes)
}

// reportAllocated writes to the status what domains and machines of the host may use.
func (r *LibvirtHostReconciler) reportAllocated(ctx context.Context, s *hostScope) error {
	var machines infrav1.LibvirtMachineList
	if err := r.Client.List(ctx, &machines, client.InNamespace(s.libvirtHost.Namespace),
		client.MatchingFields{hostNameField: s.libvirtHost.Name}); err != nil {
		return fmt.Errorf("listing LibvirtMachines: %w", err)
	}
	status := &s.libvirtHost.Status
	seen := status.RetainedDisks
	if s.survey.pools != nil {
		seen = s.survey.retained
	}
	status.RetainedDisks = heldDisks(s.libvirtHost, seen, machines.Items)
	if s.survey.pools != nil {
		s.survey.retained = status.RetainedDisks
		r.surveys.set(hostKey(s.libvirtHost.Namespace, s.libvirtHost.Name), s.survey)
	}
	used := promisedOn(s.host.Domains(), machines.Items).withRetained(s.libvirtHost, machines.Items)
	status.Allocated = infrav1.HostResources{CPUs: ptr.To(int32(used.vcpus)), Memory: quantity(used.memory)}
	status.Machines = ptr.To(int32(len(machines.Items)))
	if s.survey.pools != nil {
		status.Storage = poolStatuses(s.libvirtHost, s.survey.pools, used)
	}
	return nil
}

// poolStatuses reports on the pools of a host, with what was promised of those that hold disks.
func poolStatuses(h *infrav1.LibvirtHost, pools []host.StoragePool, used usage) []infrav1.HostPoolStatus {
	statuses := make([]infrav1.HostPoolStatus, 0, len(pools))
	for _, pool := range pools {
		status := infrav1.HostPoolStatus{
			Name: pool.Name, Capacity: quantity(pool.CapacityBytes), Available: quantity(pool.AvailableBytes),
		}
		if slices.Contains(diskPools(h), pool.Name) {
			status.Allocated = quantity(used.inPool(h, pool.Name))
		}
		statuses = append(statuses, status)
	}
	return statuses
}

// usage is what was promised of a host: memory in bytes, a number of virtual CPUs, and disks in bytes by the pool that
// they name.
type usage struct {
	memory, vcpus int64
	disks         map[string]int64
}

// inPool is what was promised of a pool: of the disk pool also to the disks that name none.
func (u usage) inPool(h *infrav1.LibvirtHost, pool string) int64 {
	promised := u.disks[pool]
	if pool == diskPool(h) {
		promised += u.disks[""]
	}
	return promised
}

// promisedOn adds up what the domains of a host may use, with the machines that are on their way there and have no domain
// yet, or one whose size isn't known yet. A domain that is shut off counts: it may be started at any time. Disks are
// promised to machines only, because what others have in the pool is unknown.
func promisedOn(domains []host.Domain, machines []infrav1.LibvirtMachine) usage {
	sum := usage{disks: map[string]int64{}}
	defined := make(map[string]host.Domain, len(domains))
	for _, dom := range domains {
		sum.memory += dom.MaxMemoryBytes
		sum.vcpus += int64(dom.VCPUs)
		defined[dom.UUID] = dom
	}
	for i := range machines {
		spec := &machines[i].Spec
		uuid := domain.UUID(spec.ProviderID)
		if uuid == "" {
			continue
		}
		sum.disks[spec.RootDisk.Pool] += spec.RootDisk.Size.Value()
		for _, disk := range spec.DataDisks {
			sum.disks[disk.Pool] += disk.Size.Value()
		}
		sum.memory += max(0, spec.Memory.Value()-defined[uuid].MaxMemoryBytes)
		sum.vcpus += max(0, int64(spec.VCPUs)-int64(defined[uuid].VCPUs))
	}
	return sum
}

// reportedUsage is what a host reports to have promised.
func reportedUsage(h *infrav1.LibvirtHost) usage {
	used := usage{
		vcpus: int64(ptr.Deref(h.Status.Allocated.CPUs, 0)), memory: bytesOf(h.Status.Allocated.Memory), disks: map[string]int64{},
	}
	for _, pool := range h.Status.Storage {
		used.disks[pool.Name] = bytesOf(pool.Allocated)
	}
	return used
}

// rooms are what machines may have of a host's resources, and what of that is used already: nil as long as the host
// hasn't reported what it has.
func rooms(h *infrav1.LibvirtHost, used usage) []placement.Room {
	capacity, pool := h.Status.Capacity, poolStatus(h, diskPool(h))
	if capacity.Memory == nil || capacity.CPUs == nil || pool == nil {
		return nil
	}
	found := []placement.Room{
		{Resource: placement.Memory, Capacity: capacity.Memory.Value() - reservedMemory(h), Promised: used.memory},
		{Resource: placement.VCPUs, Capacity: vcpusFor(h, *capacity.CPUs), Promised: used.vcpus},
		{Resource: placement.DiskPromise, Capacity: bytesOf(pool.Capacity) - reservedStorage(h), Promised: used.inPool(h, pool.Name)},
		{Resource: placement.DiskSpace, Capacity: bytesOf(pool.Available)},
	}
	for _, name := range extraDiskPools(h) {
		if extra := poolStatus(h, name); extra != nil {
			found = append(found,
				placement.Room{Resource: placement.DiskPromise.In(name), Capacity: bytesOf(extra.Capacity), Promised: used.inPool(h, name)},
				placement.Room{Resource: placement.DiskSpace.In(name), Capacity: bytesOf(extra.Available)})
		}
	}
	return found
}

// poolStatus is what a host reports of a pool, nil when it hasn't.
func poolStatus(h *infrav1.LibvirtHost, name string) *infrav1.HostPoolStatus {
	for i := range h.Status.Storage {
		if h.Status.Storage[i].Name == name {
			return &h.Status.Storage[i]
		}
	}
	return nil
}

// bytesOf is an amount of bytes, none when it isn't reported.
func bytesOf(amount *resource.Quantity) int64 {
	if amount == nil {
		return 0
	}
	return amount.Value()
}

// quantity is an amount of bytes, rounded down to MiB to be readable.
func quantity(bytes int64) *resource.Quantity {
	return resource.NewQuantity(bytes>>20<<20, resource.BinarySI)
}
