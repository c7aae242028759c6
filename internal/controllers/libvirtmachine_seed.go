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
	"net/netip"
	"path"

	"sigs.k8s.io/cluster-api/util/conditions"
	ctrl "sigs.k8s.io/controller-runtime"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/bootstrap"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/domain"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/network"
)

// renderSeed is the content of the volume with a machine's bootstrap data.
func renderSeed(s *machineScope, definition domain.Definition) ([]byte, error) {
	guest := network.Guest{MAC: definition.MAC, MTU: definition.MTU, Plan: s.plan}
	if network.Existing(s.libvirtCluster.Spec.Network) {
		var err error
		if guest.Address, err = netip.ParseAddr(s.libvirtMachine.Spec.Address); err != nil {
			return nil, fmt.Errorf("reading spec.address: %w", err)
		}
	}
	seed := bootstrap.Seed{
		UserData:      s.userData,
		InstanceID:    s.uuid,
		LocalHostname: hostname(s),
		LocalIPv4:     s.libvirtMachine.Spec.Address,
	}
	if s.format == bootstrap.Ignition {
		name, content := network.RenderNetworkd(guest)
		return bootstrap.RenderIgnition(seed, []bootstrap.File{
			{Path: path.Join("/etc/systemd/network", name), Mode: 0o644, Content: content},
		})
	}
	seed.NetworkConfig = network.RenderGuestConfig(guest)
	return bootstrap.RenderSeed(seed)
}

// reconcileSeed takes the bootstrap data away once the Node has registered: it has secrets in it, and nobody needs it any
// more. First the domain lets go of it, then it is deleted; that it is gone is remembered by the condition, and done once
// more where a move to another management cluster lost that.
func (r *LibvirtMachineReconciler) reconcileSeed(ctx context.Context, s *machineScope) error {
	if conditions.IsTrue(s.libvirtMachine, infrav1.MachineBootstrapDataRemovedCondition) {
		return nil
	}
	if !s.machine.Status.NodeRef.IsDefined() {
		return &waiting{reason: infrav1.MachineWaitingForNodeReason, message: "The bootstrap data stays on the host until the Node has registered"}
	}
	definition, err := s.host.DomainXML(ctx, s.uuid)
	if err != nil {
		return fmt.Errorf("looking for the bootstrap data: %w", err)
	}
	seed, err := domain.SeedOf(definition, s.uuid)
	if err != nil {
		return err
	}
	if seed.Drive != nil {
		if err := s.host.EjectMedia(ctx, s.uuid, seed.Drive.Device, seed.Drive.Bus); err != nil {
			return fmt.Errorf("ejecting the bootstrap data: %w", err)
		}
	}
	if seed.Firmware {
		// The hypervisor read the file when it started. Without this it would look for it the next time.
		if err := s.host.EditDomain(ctx, s.uuid, domain.WithoutFirmwareSeed); err != nil {
			return fmt.Errorf("taking the bootstrap data out of the firmware configuration: %w", err)
		}
	}
	if err := deleteVolume(ctx, s.host, seedPool(s.libvirtHost), domain.SeedVolumeName(s.uuid)); err != nil {
		return fmt.Errorf("deleting the bootstrap data: %w", err)
	}
	ctrl.LoggerFrom(ctx).Info("Removed bootstrap data", "host", s.libvirtHost.Name, "domainUUID", s.uuid)
	return nil
}
