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
	"path"
	"slices"
	"time"

	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/domain"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/host"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/image"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/network"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/owner"
)

// reconcileDelete removes all that was made for a machine. It finds that again from the UUID and the names that follow
// from it, whatever the status says. Only a confirmed "not found" counts as gone.
func (r *LibvirtMachineReconciler) reconcileDelete(ctx context.Context, s *machineScope) error {
	s.uuid = domain.UUID(s.libvirtMachine.Spec.ProviderID)
	if s.uuid == "" || movedAway(s.libvirtMachine) {
		// Nothing was ever written to a host, or what was isn't this object's any more.
		r.promises.drop(string(s.libvirtMachine.UID))
		controllerutil.RemoveFinalizer(s.libvirtMachine, infrav1.MachineFinalizer)
		return nil
	}
	// The cache may show for a while a machine that is gone: its removal mustn't begin anew.
	if err := r.APIReader.Get(ctx, client.ObjectKeyFromObject(s.libvirtMachine), &infrav1.LibvirtMachine{}); err != nil {
		return client.IgnoreNotFound(err)
	}
	if err := r.findHost(ctx, s, s.libvirtMachine.Spec.HostName); errors.Is(err, errHostGone) {
		// The finalizer of a LibvirtHost waits for its machines: whoever took it away by force says that the host is gone.
		ctrl.LoggerFrom(ctx).Info("Gave up machine with its host", "host", s.libvirtMachine.Spec.HostName, "domainUUID", s.uuid)
		r.release(s)
		return nil
	} else if err != nil {
		return err
	}
	if dom, err := s.host.Domain(s.uuid); err == nil {
		s.domain = &dom
	}
	if err := r.follow(ctx, s); err != nil && !errors.As(err, new(*waiting)) {
		return err
	}
	if err := checkReported(s); err != nil {
		return err
	}
	if err := r.remove(ctx, s); err != nil {
		return err
	}
	if err := r.removeFromOrigins(ctx, s); err != nil {
		return err
	}
	r.release(s)
	return nil
}

// release lets a machine go of which nothing is left, and forgets it.
func (r *LibvirtMachineReconciler) release(s *machineScope) {
	key := ownedDomain{hostKey(s.libvirtMachine.Namespace, s.libvirtMachine.Spec.HostName), s.uuid}
	r.owned.forget(key)
	r.reserved.forget(key)
	r.looks.forget(key)
	r.claims.release(s.cluster, s.uuid)
	r.restarts.drop(s.uuid)
	r.promises.drop(s.uuid)
	controllerutil.RemoveFinalizer(s.libvirtMachine, infrav1.MachineFinalizer)
}

// remove removes all that was made for a machine from one host.
func (r *LibvirtMachineReconciler) remove(ctx context.Context, s *machineScope) error {
	defined, err := r.removeDomain(ctx, s)
	if err != nil {
		return err
	}
	if !defined {
		entitled, err := r.entitled(ctx, s.libvirtMachine)
		if err != nil || !entitled {
			return err
		}
	}
	if err := r.removeVolumes(ctx, s, defined); err != nil {
		return err
	}
	if s.libvirtCluster != nil && s.libvirtCluster.Spec.Network.UUID != "" {
		err := s.host.Release(ctx, s.libvirtCluster.Spec.Network.UUID, network.MAC(s.uuid))
		if err != nil {
			return fmt.Errorf("giving back the address: %w", err)
		}
	}
	r.owned.forget(r.ownedKey(s))
	r.reserved.forget(r.ownedKey(s))
	r.looks.forget(r.ownedKey(s))
	ctrl.LoggerFrom(ctx).Info("Removed machine from host", "host", s.libvirtHost.Name, "domainUUID", s.uuid)
	return nil
}

// entitled tells whether what a machine's providerID names can be its own where no domain bears that out. It is when we gave
// it that providerID, which is its UID; a move to another management cluster changes the UID, and leaves the mark of a
// machine that was started. Anybody can write the providerID of another machine, whose disk it isn't to take along.
func (r *LibvirtMachineReconciler) entitled(ctx context.Context, libvirtMachine *infrav1.LibvirtMachine) (bool, error) {
	if ownIdentity(libvirtMachine) {
		return true, nil
	}
	if !provisioned(libvirtMachine) {
		return false, nil
	}
	var namesakes infrav1.LibvirtMachineList
	if err := r.Client.List(ctx, &namesakes, client.MatchingFields{providerIDField: libvirtMachine.Spec.ProviderID}); err != nil {
		return false, fmt.Errorf("listing LibvirtMachines: %w", err)
	}
	return len(namesakes.Items) < 2, nil
}

// ownIdentity tells whether the providerID of a machine is the one that we give it.
func ownIdentity(libvirtMachine *infrav1.LibvirtMachine) bool {
	return libvirtMachine.Spec.ProviderID == domain.ProviderID(string(libvirtMachine.UID))
}

// removeFromOrigins removes what migrations left on the hosts that the domain came from. The last of these is written down
// and waited for. An earlier one is any host of the cluster, so those that are connected are searched: not before the
// machine goes, because where storage is shared, what lies there is the disk of the domain that runs.
func (r *LibvirtMachineReconciler) removeFromOrigins(ctx context.Context, s *machineScope) error {
	last := s.libvirtMachine.Spec.MigratedFrom
	if last == "" {
		return nil
	}
	names := []string{last}
	if s.libvirtCluster != nil {
		names = append(names, s.libvirtCluster.Status.Hosts...)
	}
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		if name == s.libvirtMachine.Spec.HostName {
			continue
		}
		origin := *s
		err := r.findHost(ctx, &origin, name)
		if errors.Is(err, errHostGone) || (err != nil && name != last) {
			continue
		}
		if err != nil {
			return err
		}
		if err := r.remove(ctx, &origin); err != nil {
			return fmt.Errorf("host %s: %w", name, err)
		}
	}
	return nil
}

// removeDomain removes the domain and tells whether it was there.
func (r *LibvirtMachineReconciler) removeDomain(ctx context.Context, s *machineScope) (bool, error) {
	err := r.checkOwner(ctx, s)
	if errors.Is(err, host.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, destroyDomain(ctx, s.host, s.uuid)
}

// destroyDomain stops and undefines a domain. One that is gone is fine.
func destroyDomain(ctx context.Context, kvm *host.Host, uuid string) error {
	if err := kvm.DestroyDomain(ctx, uuid); err != nil && !errors.Is(err, host.ErrNotFound) {
		return fmt.Errorf("stopping domain %s: %w", uuid, err)
	}
	if err := kvm.UndefineDomain(ctx, uuid); err != nil && !errors.Is(err, host.ErrNotFound) {
		return fmt.Errorf("undefining domain %s: %w", uuid, err)
	}
	return nil
}

// deleteVolume deletes a volume. One that is gone is fine, but not one whose pool is.
func deleteVolume(ctx context.Context, kvm *host.Host, pool, name string) error {
	err := kvm.DeleteVolume(ctx, pool, name)
	if errors.Is(err, host.ErrNoPool) {
		return noPool(pool, name)
	}
	if err != nil && !errors.Is(err, host.ErrNotFound) {
		return err
	}
	return nil
}

// noPool waits for a storage pool, without which nothing is known of a volume.
func noPool(pool, volume string) error {
	return &waiting{reason: infrav1.MachineStoragePoolNotFoundReason, after: time.Minute, message: fmt.Sprintf(
		"storage pool %s doesn't exist on the host, so that its volume %s can't be removed: define it again, with virsh pool-define-as %s dir --target PATH, "+
			"over an empty directory if its storage is gone for good", pool, volume, pool)}
}

// removeVolumes removes the disks that go with their machine and the bootstrap data. Without the domain's mark, a root
// disk must look like one of ours.
func (r *LibvirtMachineReconciler) removeVolumes(ctx context.Context, s *machineScope, defined bool) error {
	pool, name := poolFor(s.libvirtHost, s.libvirtMachine.Spec.RootDisk.Pool), domain.RootVolumeName(s.uuid)
	if s.libvirtMachine.Spec.MigratedFrom != "" {
		// libvirt doesn't know of files that an operator moved here until it is asked for one that it doesn't know.
		volumes := []struct{ pool, name string }{{pool, name}, {seedPool(s.libvirtHost), domain.SeedVolumeName(s.uuid)}}
		for _, disk := range s.libvirtMachine.Spec.DataDisks {
			volumes = append(volumes, struct{ pool, name string }{poolFor(s.libvirtHost, disk.Pool), dataVolume(s, disk)})
		}
		for _, v := range volumes {
			if _, err := s.host.Volume(ctx, v.pool, v.name); err != nil && !errors.Is(err, host.ErrNotFound) {
				return fmt.Errorf("looking at volume %s: %w", v.name, err)
			}
		}
	}
	ours := defined
	if !ours {
		var err error
		if ours, err = r.looksOurs(ctx, s, pool, name); err != nil {
			return fmt.Errorf("removing the root disk: %w", err)
		}
	}
	if ours {
		if err := deleteVolume(ctx, s.host, pool, name); err != nil {
			return fmt.Errorf("removing the root disk: %w", err)
		}
	}
	if err := removeDataDisks(ctx, s, defined); err != nil {
		return err
	}
	if err := deleteVolume(ctx, s.host, seedPool(s.libvirtHost), domain.SeedVolumeName(s.uuid)); err != nil {
		return fmt.Errorf("removing the bootstrap data: %w", err)
	}
	return nil
}

// checkOwner makes sure that the domain with our UUID carries our mark. It is read once, unless this process wrote it.
// The error is host.ErrNotFound when there is no such domain.
func (r *LibvirtMachineReconciler) checkOwner(ctx context.Context, s *machineScope) error {
	_, unseen := s.host.Domain(s.uuid)
	if _, known := r.owned.get(r.ownedKey(s), 0); known && unseen == nil {
		return nil
	}
	document, err := s.host.DomainXML(ctx, s.uuid)
	if err != nil {
		return fmt.Errorf("reading domain %s: %w", s.uuid, err)
	}
	if by, ok := owner.Of(document); !ok || by != machineOwner(s) {
		return domainConflict("a domain on host %s has our UUID %s and isn't ours: remove it", s.libvirtHost.Name, s.uuid)
	}
	r.owned.set(r.ownedKey(s), 0, struct{}{})
	return nil
}

// ownedDomain is a domain on a host.
type ownedDomain struct {
	host, uuid string
}

func (r *LibvirtMachineReconciler) ownedKey(s *machineScope) ownedDomain {
	return ownedDomain{hostKey(s.libvirtHost.Namespace, s.libvirtHost.Name), s.uuid}
}

// looksOurs tells whether a root disk is an overlay over the machine's image, as we make them.
func (r *LibvirtMachineReconciler) looksOurs(ctx context.Context, s *machineScope, pool, name string) (bool, error) {
	found, err := s.host.Volume(ctx, pool, name)
	if errors.Is(err, host.ErrNoPool) {
		return false, noPool(pool, name)
	}
	if errors.Is(err, host.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("looking at volume %s: %w", name, err)
	}
	volume := s.libvirtMachine.Spec.Image.Volume
	if volume == "" {
		digest, err := image.ParseChecksum(s.libvirtMachine.Spec.Image.Checksum)
		if err != nil {
			return false, fmt.Errorf("reading spec.image.checksum: %w", err)
		}
		volume = image.VolumeName(digest)
	}
	return found.Format == "qcow2" && path.Base(found.BackingPath) == volume, nil
}
