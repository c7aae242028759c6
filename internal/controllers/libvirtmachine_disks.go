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
	"maps"
	"slices"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/domain"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/host"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/placement"
)

// poolFor is the pool on a host of a disk that names a pool, or none.
func poolFor(h *infrav1.LibvirtHost, named string) string {
	return orDefault(named, diskPool(h))
}

// diskNeeds is the space that a machine takes in the pools of a host, each disk with its full size. Of the retained disks
// of a slot there are those that the host reports.
func diskNeeds(h *infrav1.LibvirtHost, spec *infrav1.LibvirtMachineSpec, slot *domain.Slot) []placement.Need {
	sizes := map[string]int64{poolFor(h, spec.RootDisk.Pool): spec.RootDisk.Size.Value()}
	for _, disk := range spec.DataDisks {
		pool := poolFor(h, disk.Pool)
		if slot != nil && domain.Retained(disk) && retainedDisk(h.Status.RetainedDisks, pool, slot.VolumeName(disk.Name)) != nil {
			continue
		}
		sizes[pool] += disk.Size.Value()
	}
	var needs []placement.Need
	for _, pool := range slices.Sorted(maps.Keys(sizes)) {
		promise, space := placement.DiskPromise, placement.DiskSpace
		if pool != diskPool(h) {
			promise, space = promise.In(pool), space.In(pool)
		}
		needs = append(needs, placement.Need{Resource: promise, Amount: sizes[pool]}, placement.Need{Resource: space, Amount: sizes[pool]})
	}
	return needs
}

// dataVolume is the name of the volume with a data disk of a machine.
func dataVolume(s *machineScope, disk infrav1.DataDisk) string {
	if domain.Retained(disk) {
		return slotOf(s.libvirtMachine).VolumeName(disk.Name)
	}
	return domain.DataVolumeName(s.uuid, disk.Name)
}

// createDataDisks makes the volumes of the data disks. A retained one that is there already is used as it is.
func (r *LibvirtMachineReconciler) createDataDisks(ctx context.Context, s *machineScope) error {
	for _, disk := range s.libvirtMachine.Spec.DataDisks {
		pool, name := poolFor(s.libvirtHost, disk.Pool), dataVolume(s, disk)
		document, err := domain.RenderDataVolume(name, disk.Size.Value())
		if err != nil {
			return err
		}
		err = s.host.CreateVolume(ctx, pool, document)
		if errors.Is(err, host.ErrExists) {
			var found bool
			if found, err = plainVolume(ctx, s.host, pool, name); err == nil && !found {
				return domainConflict("storage pool %s of host %s already has a volume %s, which isn't one of our data disks: remove it", pool, s.libvirtHost.Name, name)
			}
			if err == nil && !domain.Retained(disk) {
				// Left by an earlier try.
				if err = deleteVolume(ctx, s.host, pool, name); err == nil {
					err = s.host.CreateVolume(ctx, pool, document)
				}
			}
		}
		if err != nil {
			return fmt.Errorf("creating data disk %s: %w", disk.Name, err)
		}
	}
	return nil
}

// removeDataDisks removes the data disks that go with their machine. Without the domain's mark they must look like ours.
func removeDataDisks(ctx context.Context, s *machineScope, defined bool) error {
	for _, disk := range s.libvirtMachine.Spec.DataDisks {
		if domain.Retained(disk) {
			continue
		}
		pool, name := poolFor(s.libvirtHost, disk.Pool), dataVolume(s, disk)
		if !defined {
			ours, err := plainVolume(ctx, s.host, pool, name)
			switch {
			case errors.Is(err, host.ErrNoPool):
				return noPool(pool, name)
			case errors.Is(err, host.ErrNotFound) || err == nil && !ours:
				continue
			case err != nil:
				return fmt.Errorf("looking at data disk %s: %w", disk.Name, err)
			}
		}
		if err := deleteVolume(ctx, s.host, pool, name); err != nil {
			return fmt.Errorf("removing data disk %s: %w", disk.Name, err)
		}
	}
	return nil
}

// plainVolume tells whether a volume is a qcow2 image that lies over no other, as we make data disks.
func plainVolume(ctx context.Context, kvm *host.Host, pool, name string) (bool, error) {
	found, err := kvm.Volume(ctx, pool, name)
	return err == nil && found.Format == "qcow2" && found.BackingPath == "", err
}
