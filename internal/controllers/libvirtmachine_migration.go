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
	"strings"

	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/host"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/owner"
)

// follow finds the domain of a machine on another host when an operator migrated it there, and writes that down. A
// domain that was migrated away must never be started where it was: two would write to one disk.
func (r *LibvirtMachineReconciler) follow(ctx context.Context, s *machineScope) error {
	if !provisioned(s.libvirtMachine) || !left(s.domain) {
		return nil
	}
	var hosts infrav1.LibvirtHostList
	if err := r.Client.List(ctx, &hosts, client.InNamespace(s.libvirtMachine.Namespace)); err != nil {
		return fmt.Errorf("listing LibvirtHosts: %w", err)
	}
	var away []string
	for i := range hosts.Items {
		candidate := &hosts.Items[i]
		if candidate.Name == s.libvirtHost.Name {
			continue
		}
		kvm, err := r.Hosts.Get(hostKey(candidate.Namespace, candidate.Name))
		if err != nil {
			if s.libvirtCluster != nil && slices.Contains(s.libvirtCluster.Status.Hosts, candidate.Name) {
				away = append(away, candidate.Name)
			}
			continue
		}
		dom, err := kvm.Domain(s.uuid)
		if err != nil || left(&dom) {
			continue
		}
		ours, err := r.isOurs(ctx, s, kvm)
		if err != nil {
			return fmt.Errorf("%s: %w", candidate.Name, err)
		}
		if ours {
			return r.move(ctx, s, candidate, kvm, dom)
		}
	}
	if s.domain != nil {
		return &waiting{reason: infrav1.MachineDomainMigratedReason, message: fmt.Sprintf(
			"domain %s was migrated away from host %s, and no host that is connected has it: create a LibvirtHost for the host "+
				"that it went to, migrate it back, or delete the Machine", s.domain.Name, s.libvirtHost.Name)}
	}
	if len(away) > 0 {
		return &waiting{reason: infrav1.HostUnreachableReason, unknown: true, after: unreachableInterval, message: fmt.Sprintf(
			"domain %s isn't on host %s any more, and may have been migrated to one that isn't connected: %s",
			s.uuid, s.libvirtHost.Name, strings.Join(away, ", "))}
	}
	return nil
}

// left tells whether a domain isn't where it was looked for, or is there only as what a migration leaves behind.
func left(dom *host.Domain) bool {
	return dom == nil || (dom.State == host.Shutoff && dom.Reason == host.ReasonMigrated)
}

// isOurs tells whether the domain with our UUID on another host carries our mark.
func (r *LibvirtMachineReconciler) isOurs(ctx context.Context, s *machineScope, kvm *host.Host) (bool, error) {
	document, err := kvm.DomainXML(ctx, s.uuid)
	if errors.Is(err, host.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	by, ok := owner.Of(document)
	return ok && by == machineOwner(s), nil
}

// move writes down that the domain is on another host and goes on there.
func (r *LibvirtMachineReconciler) move(ctx context.Context, s *machineScope, to *infrav1.LibvirtHost, kvm *host.Host, dom host.Domain) error {
	written := s.libvirtMachine.DeepCopy()
	written.Spec.HostName, written.Spec.MigratedFrom = to.Name, s.libvirtHost.Name
	if err := r.Client.Patch(ctx, written, client.MergeFrom(s.libvirtMachine)); err != nil {
		return fmt.Errorf("writing spec.hostName and spec.migratedFrom: %w", err)
	}
	ctrl.LoggerFrom(ctx).Info("Followed domain to another host", "domainUUID", s.uuid, "host", to.Name, "from", s.libvirtHost.Name)
	s.libvirtMachine.Spec.HostName, s.libvirtMachine.Spec.MigratedFrom = written.Spec.HostName, written.Spec.MigratedFrom
	s.libvirtHost, s.host, s.domain = to, kvm, &dom
	return nil
}
