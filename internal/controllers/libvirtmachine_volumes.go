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
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"time"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/bootstrap"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/domain"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/host"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/network"
)

type poolKey struct {
	host, pool string
}

// poolPath is the directory of a storage pool. A host is asked once per connection.
func (r *LibvirtMachineReconciler) poolPath(ctx context.Context, s *machineScope, pool string) (string, error) {
	key := poolKey{hostKey(s.libvirtHost.Namespace, s.libvirtHost.Name), pool}
	epoch := r.Events.epoch(key.host, "")
	if known, ok := r.pools.get(key, epoch); ok {
		return known, nil
	}
	found, err := s.host.StoragePool(ctx, pool)
	if err != nil {
		return "", fmt.Errorf("looking up storage pool %s: %w", pool, err)
	}
	r.pools.set(key, epoch, found.Path)
	return found.Path, nil
}

// definition resolves all that the domain's XML is made from.
func (r *LibvirtMachineReconciler) definition(ctx context.Context, s *machineScope) (domain.Definition, error) {
	root, err := r.poolPath(ctx, s, poolFor(s.libvirtHost, s.libvirtMachine.Spec.RootDisk.Pool))
	if err != nil {
		return domain.Definition{}, err
	}
	var disks []domain.Disk
	for _, disk := range s.libvirtMachine.Spec.DataDisks {
		pool, err := r.poolPath(ctx, s, poolFor(s.libvirtHost, disk.Pool))
		if err != nil {
			return domain.Definition{}, err
		}
		disks = append(disks, domain.Disk{Spec: disk, Path: path.Join(pool, dataVolume(s, disk))})
	}
	seeds, err := r.poolPath(ctx, s, seedPool(s.libvirtHost))
	if err != nil {
		return domain.Definition{}, err
	}
	return domain.Definition{
		UUID:          s.uuid,
		Name:          domain.Name(s.libvirtMachine.Namespace, s.libvirtMachine.Name),
		Owner:         machineOwner(s),
		Spec:          s.libvirtMachine.Spec,
		RootPath:      path.Join(root, domain.RootVolumeName(s.uuid)),
		SeedPath:      path.Join(seeds, domain.SeedVolumeName(s.uuid)),
		Disks:         disks,
		BackingPath:   s.image.Path,
		BackingFormat: s.image.Format,
		NetworkName:   cmp.Or(s.libvirtCluster.Spec.Network.Name, network.Name(s.cluster.Namespace, s.cluster.Name)),
		Bridge:        s.libvirtCluster.Spec.Network.Bridge,
		MAC:           network.MAC(s.uuid),
		MTU:           network.AskedMTU(s.libvirtCluster.Spec.Network),
		Ignition:      s.format == bootstrap.Ignition,
	}, nil
}

// fullDisk is what came of the last try to make volumes on a host whose storage was full.
type fullDisk struct {
	uuid string
	at   time.Time
	err  error
}

// createVolumes makes the volumes of a machine. A host whose storage is full is left alone for a while, whichever of its
// machines found out and whatever wakes the others.
func (r *LibvirtMachineReconciler) createVolumes(ctx context.Context, s *machineScope, definition domain.Definition) error {
	key := hostKey(s.libvirtHost.Namespace, s.libvirtHost.Name)
	if last, ok := r.full.get(key, 0); ok && time.Since(last.at) < noSpaceInterval {
		if last.uuid == s.uuid {
			return last.err
		}
		return fmt.Errorf("host %s was out of room a moment ago: %w", s.libvirtHost.Name, host.ErrNoSpace)
	}
	err := r.createRoot(ctx, s)
	if err == nil {
		err = r.createDataDisks(ctx, s)
	}
	if err == nil {
		err = r.createSeed(ctx, s, definition)
	}
	if errors.Is(err, host.ErrNoSpace) {
		r.full.set(key, 0, fullDisk{s.uuid, time.Now(), err})
	}
	return err
}

// createRoot makes the volume of the root disk over the image.
func (r *LibvirtMachineReconciler) createRoot(ctx context.Context, s *machineScope) error {
	size := s.libvirtMachine.Spec.RootDisk.Size.Value()
	if size < s.image.VirtualSizeBytes {
		return &waiting{reason: infrav1.MachineImageRefusedReason, message: fmt.Sprintf(
			"spec.rootDisk.size is %d MiB and the image needs %d MiB: make a template with a larger root disk",
			size>>20, s.image.VirtualSizeBytes>>20)}
	}
	document, err := domain.RenderRootVolume(s.uuid, size, s.image.Path, s.image.Format)
	if err != nil {
		return err
	}
	pool, name := poolFor(s.libvirtHost, s.libvirtMachine.Spec.RootDisk.Pool), domain.RootVolumeName(s.uuid)
	err = s.host.CreateVolume(ctx, pool, document)
	if errors.Is(err, host.ErrExists) {
		if err := r.removeLeftover(ctx, s, pool, name); err != nil {
			return err
		}
		err = s.host.CreateVolume(ctx, pool, document)
	}
	if err != nil {
		// Perhaps somebody removed the image: have it looked for again.
		r.forgetImage(s)
		return fmt.Errorf("creating the root disk: %w", err)
	}
	return nil
}

// removeLeftover removes a root disk that an earlier try left behind. An overlay over our image, which no domain uses
// yet, is one; anything else isn't ours.
func (r *LibvirtMachineReconciler) removeLeftover(ctx context.Context, s *machineScope, pool, name string) error {
	found, err := s.host.Volume(ctx, pool, name)
	if errors.Is(err, host.ErrNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("looking at volume %s: %w", name, err)
	}
	if found.Format != "qcow2" || found.BackingPath != s.image.Path {
		return domainConflict("storage pool %s of host %s already has a volume %s, which isn't ours: remove it", pool, s.libvirtHost.Name, name)
	}
	if err := s.host.DeleteVolume(ctx, pool, name); err != nil && !errors.Is(err, host.ErrNotFound) {
		return fmt.Errorf("removing the root disk of an earlier try: %w", err)
	}
	return nil
}

// createSeed makes the volume with the bootstrap data. Its pool holds nothing but seeds of ours, so one that is there
// was left by an earlier try.
func (r *LibvirtMachineReconciler) createSeed(ctx context.Context, s *machineScope, definition domain.Definition) error {
	seed, err := renderSeed(s, definition)
	if err != nil {
		return fmt.Errorf("rendering the bootstrap data: %w", err)
	}
	document, err := domain.RenderSeedVolume(s.uuid, int64(len(seed)))
	if err != nil {
		return err
	}
	pool, name := seedPool(s.libvirtHost), domain.SeedVolumeName(s.uuid)
	err = s.host.CreateVolume(ctx, pool, document)
	if errors.Is(err, host.ErrExists) {
		if err := s.host.DeleteVolume(ctx, pool, name); err != nil && !errors.Is(err, host.ErrNotFound) {
			return fmt.Errorf("removing the bootstrap data of an earlier try: %w", err)
		}
		err = s.host.CreateVolume(ctx, pool, document)
	}
	if err != nil {
		return fmt.Errorf("creating the volume for the bootstrap data: %w", err)
	}
	if err := s.host.UploadVolume(ctx, pool, name, int64(len(seed)), bytes.NewReader(seed)); err != nil {
		return fmt.Errorf("uploading the bootstrap data: %w", err)
	}
	return nil
}
