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

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/cluster-api/util"
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
	if !ownIdentity(s.libvirtMachine) && !provisioned(s.libvirtMachine) {
		// It would be made where nobody asked whether there is room, and with the identity of another machine.
		return domainConflict("spec.providerID %s isn't that of this machine, which the provider writes by itself: make the Machine anew without it",
			s.libvirtMachine.Spec.ProviderID)
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
	err := r.Client.Get(ctx, key, s.libvirtHost)
	if apierrors.IsNotFound(err) {
		// A machine is given up with its host, so the cache's word isn't enough.
		err = r.APIReader.Get(ctx, key, s.libvirtHost)
	}
	if err != nil {
		s.libvirtHost = nil
		if apierrors.IsNotFound(err) {
			return errHostGone
		}
		return fmt.Errorf("looking up LibvirtHost %s: %w", key.Name, err)
	}
	s.host, err = connected(r.Hosts, key.Namespace, key.Name)
	return sinceDisconnected(s.libvirtHost, err)
}

// sinceDisconnected is why there is no connection to a host. What was known before doesn't stand when it is known by now
// that the host can't be connected, as when its Secret is gone.
func sinceDisconnected(libvirtHost *infrav1.LibvirtHost, err error) error {
	found := conditions.Get(libvirtHost, infrav1.HostConnectedCondition)
	var wait *waiting
	if !errors.As(err, &wait) || found == nil || found.Status != metav1.ConditionFalse {
		return err
	}
	known := *wait
	known.keep, known.message = false, fmt.Sprintf("host %s isn't connected: %s", libvirtHost.Name, found.Message)
	return &known
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
	uuid := string(s.libvirtMachine.UID)
	chosen, slot, err := r.pick(ctx, s, candidates, uuid)
	if err != nil {
		return err
	}
	written := s.libvirtMachine.DeepCopy()
	written.Spec.HostName, written.Spec.ProviderID, written.Spec.Slot = chosen, domain.ProviderID(uuid), slot
	// An error doesn't mean that nothing was written: the answer may be lost, or a conflict be with an earlier try of ours.
	r.promises.add(written)
	// The lock keeps a reconcile with an old copy from choosing a second time.
	if err := r.Client.Patch(ctx, written, client.MergeFromWithOptions(s.libvirtMachine, client.MergeFromWithOptimisticLock{})); err != nil {
		if apierrors.IsInvalid(err) || apierrors.IsForbidden(err) || apierrors.IsNotFound(err) {
			delete(r.promises.byUUID, uuid)
		}
		return fmt.Errorf("writing spec.hostName and spec.providerID: %w", err)
	}
	// The old resource version stays, or the patch at the end of the reconcile would ask for it.
	s.libvirtMachine.Spec.HostName, s.libvirtMachine.Spec.ProviderID = written.Spec.HostName, written.Spec.ProviderID
	s.libvirtMachine.Spec.Slot = written.Spec.Slot
	ctrl.LoggerFrom(ctx).Info("Placed machine", "host", chosen, "domainUUID", uuid)
	return nil
}

// pick chooses among the hosts on which neither the name nor the UUID of the machine is taken, and a slot for a machine
// that has retained disks.
func (r *LibvirtMachineReconciler) pick(
	ctx context.Context, s *machineScope, candidates []placement.Candidate, uuid string,
) (string, infrav1.MachineSlot, error) {
	refusal := &waiting{reason: infrav1.MachineNoHostFitsReason}
	for {
		chosen, slot, err := r.choose(ctx, s, candidates)
		var noHost *placement.NoHostFitsError
		var noSlot *placement.SlotWaitError
		switch {
		case errors.As(err, &noHost):
			refusal.message = noHost.Error()
			return "", slot, refusal
		case errors.As(err, &noSlot):
			return "", slot, &waiting{reason: infrav1.MachineWaitingForSlotReason, message: noSlot.Error(), after: conflictInterval}
		case err != nil:
			return "", slot, err
		}
		err = r.checkFree(s, chosen, uuid)
		var taken *waiting
		if !errors.As(err, &taken) {
			return chosen, slot, err
		}
		refusal.reason, refusal.after = taken.reason, taken.after
		k := slices.IndexFunc(candidates, func(c placement.Candidate) bool { return c.Name == chosen })
		candidates[k].Unusable = append(candidates[k].Unusable, taken.message)
	}
}

// choose chooses a host, and a slot for a machine that has retained disks.
func (r *LibvirtMachineReconciler) choose(ctx context.Context, s *machineScope, candidates []placement.Candidate) (string, infrav1.MachineSlot, error) {
	if retains(&s.libvirtMachine.Spec) {
		return r.chooseSlot(ctx, s, candidates)
	}
	chosen, err := placement.Pick(candidates, requestOf(s))
	return chosen, infrav1.MachineSlot{}, err
}

// requestOf is what a machine asks of any host.
func requestOf(s *machineScope) placement.Request {
	spec := &s.libvirtMachine.Spec
	return placement.Request{
		HostName:      spec.HostName,
		FailureDomain: s.machine.Spec.FailureDomain,
		DomainType:    string(domainType(s.libvirtMachine)),
		ControlPlane:  util.IsControlPlaneMachine(s.machine),
		Needs: []placement.Need{
			{Resource: placement.Memory, Amount: spec.Memory.Value()},
			{Resource: placement.VCPUs, Amount: int64(spec.VCPUs)},
		},
	}
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
			return domainConflict("already has a domain %s with the UUID %s, which isn't ours: remove or rename it", dom.Name, dom.UUID)
		}
	}
	return nil
}

func domainConflict(format string, args ...any) error {
	return &waiting{reason: infrav1.MachineDomainConflictReason, message: fmt.Sprintf(format, args...), after: conflictInterval}
}
