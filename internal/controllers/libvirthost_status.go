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
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/domain"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/host"
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
	// storage tells that the pools were found in order.
	storage bool
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
	memory := promisedMemory(s.host.Domains(), machines.Items)
	var cpus int32
	for i := range machines.Items {
		cpus += machines.Items[i].Spec.VCPUs
	}
	s.libvirtHost.Status.Allocated = infrav1.HostResources{CPUs: ptr.To(cpus), Memory: quantity(memory)}
	s.libvirtHost.Status.Machines = ptr.To(int32(len(machines.Items)))
	return nil
}

// promisedMemory is the memory in bytes that the domains of a host may use, with the machines that are on their way
// there and have no domain yet. A domain that is shut off counts: it may be started at any time.
func promisedMemory(domains []host.Domain, machines []infrav1.LibvirtMachine) int64 {
	var sum int64
	defined := map[string]bool{}
	for _, dom := range domains {
		sum += dom.MaxMemoryBytes
		defined[dom.UUID] = true
	}
	for i := range machines {
		if uuid := domain.UUID(machines[i].Spec.ProviderID); uuid != "" && !defined[uuid] {
			sum += machines[i].Spec.Memory.Value()
		}
	}
	return sum
}

// quantity is an amount of bytes, rounded down to MiB to be readable.
func quantity(bytes int64) *resource.Quantity {
	return resource.NewQuantity(bytes>>20<<20, resource.BinarySI)
}
