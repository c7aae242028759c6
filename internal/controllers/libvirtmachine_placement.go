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
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/cluster-api/util/conditions"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/domain"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/host"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/placement"
)

// reconcilePlacement finds the machine's host, chooses it the first time, and looks at the domain there.
func (r *LibvirtMachineReconciler) reconcilePlacement(ctx context.Context, s *machineScope) error {
	if s.libvirtCluster == nil || !ptr.Deref(s.cluster.Status.Initialization.InfrastructureProvisioned, false) {
		return &waiting{reason: infrav1.MachineClusterNotReadyReason, message: "Waiting for the infrastructure of the cluster: see the LibvirtCluster"}
	}
	if s.libvirtMachine.Spec.ProviderID == "" {
		if err := r.place(ctx, s); err != nil {
			return err
		}
	}
	s.uuid = domain.UUID(s.libvirtMachine.Spec.ProviderID)
	if err := r.findHost(ctx, s, s.libvirtMachine.Spec.HostName); errors.Is(err, errHostGone) {
		return &waiting{reason: infrav1.MachineHostNotFoundReason, message: fmt.Sprintf(
			"LibvirtHost %s of spec.hostName doesn't exist: create it again, or delete the Machine if the host is gone for good",
			s.libvirtMachine.Spec.HostName)}
	} else if err != nil {
		return err
	}
	dom, err := s.host.Domain(s.uuid)
	switch {
	case errors.Is(err, host.ErrNotFound):
	case err != nil:
		return err
	default:
		s.domain = &dom
	}
	return nil
}

// errHostGone says that the LibvirtHost of a machine doesn't exist.
var errHostGone = errors.New("LibvirtHost doesn't exist")

// findHost finds a host and its connection. The error is errHostGone when there is no such LibvirtHost.
func (r *LibvirtMachineReconciler) findHost(ctx context.Context, s *machineScope, name string) error {
	s.libvirtHost = &infrav1.LibvirtHost{}
	key := client.ObjectKey{Namespace: s.libvirtMachine.Namespace, Name: name}
	if err := r.Client.Get(ctx, key, s.libvirtHost); err != nil {
		s.libvirtHost = nil
		if apierrors.IsNotFound(err) {
			return errHostGone
		}
		return fmt.Errorf("looking up LibvirtHost %s: %w", key.Name, err)
	}
	var err error
	s.host, err = connected(r.Hosts, key.Namespace, key.Name)
	return err
}

// place chooses a host and writes the choice and the identity down. Nothing is written to the host before that, so that
// a crash at any point finds its way back.
func (r *LibvirtMachineReconciler) place(ctx context.Context, s *machineScope) error {
	r.promises.mu.Lock()
	defer r.promises.mu.Unlock()
	candidates, err := r.candidates(ctx, s)
	if err != nil {
		return err
	}
	chosen, err := placement.Pick(candidates, placement.Request{
		HostName:      s.libvirtMachine.Spec.HostName,
		FailureDomain: s.machine.Spec.FailureDomain,
		Memory:        s.libvirtMachine.Spec.Memory.Value(),
		DomainType:    string(domainType(s.libvirtMachine)),
	})
	if err != nil {
		return &waiting{reason: infrav1.MachineNoHostFitsReason, message: err.Error()}
	}
	uuid := string(s.libvirtMachine.UID)
	if err := r.checkFree(s, chosen, uuid); err != nil {
		return err
	}
	written := s.libvirtMachine.DeepCopy()
	written.Spec.HostName, written.Spec.ProviderID = chosen, domain.ProviderID(uuid)
	// The lock keeps a reconcile with an old copy from choosing a second time.
	if err := r.Client.Patch(ctx, written, client.MergeFromWithOptions(s.libvirtMachine, client.MergeFromWithOptimisticLock{})); err != nil {
		return fmt.Errorf("writing spec.hostName and spec.providerID: %w", err)
	}
	// The old resource version stays, or the patch at the end of the reconcile would ask for it.
	s.libvirtMachine.Spec.HostName, s.libvirtMachine.Spec.ProviderID = written.Spec.HostName, written.Spec.ProviderID
	r.promises.add(uuid, hostKey(s.libvirtMachine.Namespace, chosen), s.libvirtMachine.Spec.Memory.Value())
	ctrl.LoggerFrom(ctx).Info("Placed machine", "host", chosen, "domainUUID", uuid)
	return nil
}

// checkFree makes sure that neither the name nor the UUID of the machine is taken on the host.
func (r *LibvirtMachineReconciler) checkFree(s *machineScope, hostName, uuid string) error {
	kvm, err := r.Hosts.Get(hostKey(s.libvirtMachine.Namespace, hostName))
	if err != nil {
		return err
	}
	name := domain.Name(s.libvirtMachine.Namespace, s.libvirtMachine.Name)
	for _, dom := range kvm.Domains() {
		if dom.UUID == uuid || dom.Name == name {
			return domainConflict("host %s already has a domain %s with the UUID %s, which isn't ours: remove or rename it",
				hostName, dom.Name, dom.UUID)
		}
	}
	return nil
}

func domainConflict(format string, args ...any) error {
	return &waiting{reason: infrav1.MachineDomainConflictReason, message: fmt.Sprintf(format, args...), after: conflictInterval}
}

// candidates are the hosts of the cluster as placement sees them.
func (r *LibvirtMachineReconciler) candidates(ctx context.Context, s *machineScope) ([]placement.Candidate, error) {
	var hosts infrav1.LibvirtHostList
	if err := r.Client.List(ctx, &hosts, client.InNamespace(s.libvirtMachine.Namespace)); err != nil {
		return nil, fmt.Errorf("listing LibvirtHosts: %w", err)
	}
	var candidates []placement.Candidate
	for i := range hosts.Items {
		h := &hosts.Items[i]
		if !slices.Contains(s.libvirtCluster.Status.Hosts, h.Name) {
			continue
		}
		candidate := placement.Candidate{Name: h.Name, FailureDomain: failureDomain(h), Unusable: r.unusable(h)}
		for _, served := range h.Status.DomainTypes {
			candidate.DomainTypes = append(candidate.DomainTypes, string(served))
		}
		if candidate.Unusable == "" {
			if err := r.measure(ctx, h, &candidate); err != nil {
				candidate.Unusable = err.Error()
			}
		}
		candidates = append(candidates, candidate)
	}
	return candidates, nil
}

// unusable says why nothing can be placed on a host now, and nothing when it can.
func (r *LibvirtMachineReconciler) unusable(h *infrav1.LibvirtHost) string {
	switch {
	case !h.DeletionTimestamp.IsZero():
		return "is being deleted"
	case h.Spec.Scheduling == infrav1.HostSchedulingDisabled:
		return "spec.scheduling is Disabled"
	case !conditions.IsTrue(h, infrav1.ReadyCondition):
		return "isn't ready: " + hostTrouble(conditions.Get(h, infrav1.ReadyCondition))
	case h.Status.Capacity.Memory == nil:
		return "hasn't reported its capacity yet"
	}
	return ""
}

// measure finds how much memory a host has and how much of it is promised.
func (r *LibvirtMachineReconciler) measure(ctx context.Context, h *infrav1.LibvirtHost, candidate *placement.Candidate) error {
	key := hostKey(h.Namespace, h.Name)
	kvm, err := r.Hosts.Get(key)
	if err != nil {
		return err
	}
	var machines infrav1.LibvirtMachineList
	if err := r.Client.List(ctx, &machines, client.InNamespace(h.Namespace), client.MatchingFields{hostNameField: h.Name}); err != nil {
		return fmt.Errorf("listing LibvirtMachines: %w", err)
	}
	domains := kvm.Domains()
	candidate.Capacity = h.Status.Capacity.Memory.Value() - reservedMemory(h)
	candidate.Promised = promisedMemory(domains, machines.Items) + r.promises.unseen(key, domains, machines.Items)
	return nil
}

// promises remembers which machine was given memory on which host until the cache or the host shows it, so that two
// machines aren't given the same memory within a moment. They are forgotten after a while, because a machine may come
// and go with nobody looking.
type promises struct {
	mu     sync.Mutex
	byUUID map[string]promise
}

type promise struct {
	host   string
	memory int64
	at     time.Time
}

// promiseLifetime is far longer than the cache is ever behind.
const promiseLifetime = time.Minute

// add notes a promise. The caller holds the lock.
func (p *promises) add(uuid, host string, memory int64) {
	if p.byUUID == nil {
		p.byUUID = map[string]promise{}
	}
	p.byUUID[uuid] = promise{host, memory, time.Now()}
}

// drop forgets a machine that is gone.
func (p *promises) drop(uuid string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.byUUID, uuid)
}

// unseen is the memory of a host that was promised to machines that neither the cache nor the host shows yet. What they
// show is forgotten. The caller holds the lock.
func (p *promises) unseen(key string, domains []host.Domain, machines []infrav1.LibvirtMachine) int64 {
	seen := map[string]bool{}
	for _, dom := range domains {
		seen[dom.UUID] = true
	}
	for i := range machines {
		seen[domain.UUID(machines[i].Spec.ProviderID)] = true
	}
	var sum int64
	for uuid, promised := range p.byUUID {
		switch {
		case promised.host != key:
		case seen[uuid], time.Since(promised.at) > promiseLifetime:
			delete(p.byUUID, uuid)
		default:
			sum += promised.memory
		}
	}
	return sum
}
