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
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/bootstrap"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/domain"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/host"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/owner"
)

// reconcileBootstrapData reads the bootstrap data. A machine that has a domain has had it.
func (r *LibvirtMachineReconciler) reconcileBootstrapData(ctx context.Context, s *machineScope) error {
	if s.domain != nil || provisioned(s.libvirtMachine) {
		return nil
	}
	name := ptr.Deref(s.machine.Spec.Bootstrap.DataSecretName, "")
	if name == "" {
		return &waiting{reason: infrav1.MachineWaitingForBootstrapDataReason, message: "Waiting for the bootstrap provider: see the KubeadmConfig " +
			s.machine.Spec.Bootstrap.ConfigRef.Name}
	}
	secret := &corev1.Secret{}
	err := r.Client.Get(ctx, client.ObjectKey{Namespace: s.machine.Namespace, Name: name}, secret)
	if apierrors.IsNotFound(err) {
		return &waiting{reason: infrav1.MachineBootstrapSecretNotFoundReason, after: secretInterval, message: fmt.Sprintf(
			"Secret %s of Machine.spec.bootstrap.dataSecretName doesn't exist", name)}
	}
	if err != nil {
		return fmt.Errorf("reading the bootstrap data in Secret %s: %w", name, err)
	}
	if s.format, err = bootstrap.ParseFormat(string(secret.Data["format"])); err != nil {
		return &waiting{reason: infrav1.MachineBootstrapFormatUnsupportedReason, message: err.Error()}
	}
	if s.userData = secret.Data["value"]; len(s.userData) == 0 {
		return &waiting{reason: infrav1.MachineBootstrapSecretNotFoundReason, after: secretInterval, message: fmt.Sprintf(
			"Secret %s of Machine.spec.bootstrap.dataSecretName has no key named value", name)}
	}
	if s.format == bootstrap.Ignition {
		if err := bootstrap.CheckIgnition(s.userData); err != nil {
			return &waiting{reason: infrav1.MachineBootstrapDataInvalidReason, message: err.Error(), after: secretInterval}
		}
	}
	return nil
}

// reconcileDomain makes the domain, or looks after the one that is there.
func (r *LibvirtMachineReconciler) reconcileDomain(ctx context.Context, s *machineScope) error {
	if err := r.follow(ctx, s); err != nil {
		return err
	}
	if s.domain == nil && provisioned(s.libvirtMachine) {
		return &waiting{reason: infrav1.MachineDomainMissingReason, message: fmt.Sprintf(
			"domain %s is gone from host %s, though nobody deleted the Machine: delete it to have it replaced",
			s.uuid, s.libvirtMachine.Spec.HostName)}
	}
	var err error
	if s.domain != nil {
		err = r.checkOwner(ctx, s)
	} else {
		err = r.checkSlot(ctx, s)
	}
	if err != nil {
		return err
	}
	if err := r.reconcileAddress(ctx, s); err != nil {
		return err
	}
	if s.domain == nil {
		if err := r.create(ctx, s); err != nil {
			return err
		}
	}
	if s.domain.State == host.Running || s.domain.State == host.Blocked {
		r.restarts.forget(s.uuid)
		setProvisioned(s.libvirtMachine)
		s.runs = true
		return nil
	}
	if !provisioned(s.libvirtMachine) {
		// Defined by a reconcile that didn't come to its end.
		return r.start(ctx, s)
	}
	return r.recover(ctx, s)
}

// create makes the volumes and the domain and starts it. The definition of the domain is the point of no return: until
// it stands, volumes that are there were left by a try that failed and are made anew.
func (r *LibvirtMachineReconciler) create(ctx context.Context, s *machineScope) error {
	definition, err := r.definition(ctx, s)
	if err != nil {
		return err
	}
	document, err := domain.Render(definition)
	if err != nil {
		return err
	}
	if err := r.createVolumes(ctx, s, definition); err != nil {
		return err
	}
	if err := s.host.DefineDomain(ctx, document); err != nil {
		if errors.Is(err, host.ErrExists) {
			return domainConflict("host %s already has another domain named %s: remove or rename it", s.libvirtHost.Name, definition.Name)
		}
		return fmt.Errorf("defining domain %s: %w", definition.Name, err)
	}
	s.domain = &host.Domain{UUID: s.uuid, Name: definition.Name, State: host.Shutoff}
	r.owned.set(r.ownedKey(s), 0, struct{}{})
	ctrl.LoggerFrom(ctx).Info("Defined domain", "host", s.libvirtHost.Name, "domainUUID", s.uuid, "address", s.libvirtMachine.Spec.Address)
	return nil
}

// start starts a domain for the first time, and has the host start it whenever it boots itself.
func (r *LibvirtMachineReconciler) start(ctx context.Context, s *machineScope) error {
	if wait := r.restAfterFailure(s); wait != nil {
		return wait
	}
	if err := s.host.SetAutostart(ctx, s.uuid); err != nil {
		return fmt.Errorf("setting autostart of domain %s: %w", s.domain.Name, err)
	}
	s.host.FollowAgents(ctx) // so that the guest isn't asked before its agent is there
	if err := s.host.StartDomain(ctx, s.uuid); err != nil {
		return r.startFailed(s, err)
	}
	s.domain.State, s.domain.Reason = host.Running, ""
	setProvisioned(s.libvirtMachine)
	ctrl.LoggerFrom(ctx).Info("Started domain", "host", s.libvirtHost.Name, "domainUUID", s.uuid)
	return nil
}

func (r *LibvirtMachineReconciler) startFailed(s *machineScope, err error) error {
	if errors.Is(err, host.ErrUnreachable) || errors.Is(err, host.ErrTimeout) || errors.Is(err, host.ErrHostBusy) {
		return err
	}
	message := fmt.Sprintf("domain %s didn't start on host %s: %s", s.domain.Name, s.libvirtHost.Name, err)
	return &waiting{
		reason: infrav1.MachineStartFailedReason, message: message, after: r.restarts.next(s.uuid, time.Now(), message),
	}
}

// restAfterFailure tells that a domain that didn't start isn't started again yet: the failure itself has woken the
// reconciler. It is nil when the domain may be started.
func (r *LibvirtMachineReconciler) restAfterFailure(s *machineScope) *waiting {
	failure, rest := r.restarts.resting(s.uuid, time.Now())
	if failure == "" || rest <= 0 {
		return nil
	}
	return &waiting{reason: infrav1.MachineStartFailedReason, message: failure, after: rest}
}

// recover looks after a domain that ran once and doesn't now.
func (r *LibvirtMachineReconciler) recover(ctx context.Context, s *machineScope) error {
	wait := trouble(*s.domain)
	switch s.domain.State {
	case host.Paused, host.PMSuspended, host.ShuttingDown:
		// The next event of the domain tells how it goes on.
		return wait
	}
	if failed := r.restAfterFailure(s); failed != nil {
		return failed
	}
	due := r.restarts.due(s.uuid, time.Now())
	if due > 0 {
		wait.after = due
		return wait
	}
	if err := s.host.StartDomain(ctx, s.uuid); err != nil {
		return r.startFailed(s, err)
	}
	r.restarts.next(s.uuid, time.Now(), "")
	ctrl.LoggerFrom(ctx).Info("Restarted domain", "host", s.libvirtHost.Name, "domainUUID", s.uuid, "was", s.domain.State, "reason", s.domain.Reason)
	s.domain.State, s.domain.Reason = host.Running, ""
	return nil
}

// trouble says what is the matter with a domain that doesn't run.
func trouble(dom host.Domain) *waiting {
	reason := infrav1.MachineDomainShutoffReason
	switch {
	case dom.State == host.Paused && dom.Reason == host.ReasonIOError:
		return &waiting{reason: infrav1.MachineDomainIOErrorReason, message: fmt.Sprintf(
			"domain %s stands still because the host's storage failed a write: make room or repair it, then resume it with virsh resume %s",
			dom.Name, dom.Name)}
	case dom.State == host.Paused || dom.State == host.PMSuspended:
		return &waiting{reason: infrav1.MachineDomainPausedReason, message: fmt.Sprintf(
			"domain %s is paused (%s): resume it with virsh resume %s", dom.Name, dom.Reason, dom.Name)}
	case dom.State == host.Crashed || dom.Reason == host.ReasonCrashed || dom.Reason == host.ReasonFailed:
		reason = infrav1.MachineDomainCrashedReason
	}
	return &waiting{reason: reason, message: fmt.Sprintf("domain %s is not running: %s (%s); it is started again by itself",
		dom.Name, dom.State, dom.Reason)}
}

func machineOwner(s *machineScope) owner.Owner {
	return owner.Owner{
		Kind: "LibvirtMachine", Namespace: s.libvirtMachine.Namespace, Name: s.libvirtMachine.Name, Cluster: s.cluster.Name,
	}
}
