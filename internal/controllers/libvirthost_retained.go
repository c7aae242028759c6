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
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/domain"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/host"
)

// maxRetainedKnown bounds the retained disks that a host reports.
const maxRetainedKnown = 1000

// lookForRetained lists the disks on a host that outlive their machines: a call for each pool, and one for each disk that
// is seen for the first time.
func (r *LibvirtHostReconciler) lookForRetained(ctx context.Context, s *hostScope) ([]infrav1.RetainedDisk, error) {
	// Asked first: a machine that goes while the pools are read may have made its disks after that.
	var machines infrav1.LibvirtMachineList
	if err := r.Client.List(ctx, &machines, client.InNamespace(s.libvirtHost.Namespace),
		client.MatchingFields{hostNameField: s.libvirtHost.Name}); err != nil {
		return nil, fmt.Errorf("listing LibvirtMachines: %w", err)
	}
	var found []infrav1.RetainedDisk
	for _, pool := range diskPools(s.libvirtHost) {
		names, err := s.host.VolumeNames(ctx, pool)
		if err != nil {
			return nil, err
		}
		slices.Sort(names)
		for _, name := range names {
			if _, _, ok := domain.SlotVolume(name); !ok || len(found) == maxRetainedKnown {
				continue
			}
			disk := infrav1.RetainedDisk{Pool: pool, Volume: name}
			// The size of a volume doesn't change: nobody of us resizes one.
			if known := retainedDisk(s.libvirtHost.Status.RetainedDisks, pool, name); known != nil && known.Capacity != nil {
				disk.Capacity = known.Capacity
			} else {
				volume, err := s.host.Volume(ctx, pool, name)
				if errors.Is(err, host.ErrNotFound) {
					continue
				}
				if err != nil {
					return nil, err
				}
				disk.Capacity = quantity(volume.CapacityBytes)
			}
			found = append(found, disk)
		}
	}
	return heldDisks(s.libvirtHost, found, machines.Items), nil
}

// heldDisks are the retained disks of a host with the machines that have them. The disks of a machine count from the time
// that it is placed: before they are there, and after it is gone until the next look says otherwise.
func heldDisks(h *infrav1.LibvirtHost, seen []infrav1.RetainedDisk, machines []infrav1.LibvirtMachine) []infrav1.RetainedDisk {
	disks := slices.Clone(seen)
	for k := range disks {
		disks[k].Machine = ""
	}
	for i := range machines {
		m := &machines[i]
		for _, disk := range slotDisks(m) {
			pool, volume := poolFor(h, disk.Pool), slotOf(m).VolumeName(disk.Name)
			known := retainedDisk(disks, pool, volume)
			if known == nil {
				if len(disks) == maxRetainedKnown {
					continue
				}
				disks = append(disks, infrav1.RetainedDisk{Pool: pool, Volume: volume, Capacity: quantity(disk.Size.Value())})
				known = &disks[len(disks)-1]
			}
			known.Machine = m.Name
		}
	}
	slices.SortFunc(disks, func(a, b infrav1.RetainedDisk) int {
		return cmp.Or(cmp.Compare(a.Pool, b.Pool), cmp.Compare(a.Volume, b.Volume))
	})
	return disks
}

func retainedDisk(disks []infrav1.RetainedDisk, pool, volume string) *infrav1.RetainedDisk {
	for k := range disks {
		if disks[k].Pool == pool && disks[k].Volume == volume {
			return &disks[k]
		}
	}
	return nil
}

// withRetained adds to what was promised on a host the retained disks that no machine on it has, and what others are
// larger than their machines ask for.
func (u usage) withRetained(h *infrav1.LibvirtHost, machines []infrav1.LibvirtMachine) usage {
	type key struct{ pool, volume string }
	counted := map[key]int64{}
	for i := range machines {
		for _, disk := range slotDisks(&machines[i]) {
			counted[key{poolFor(h, disk.Pool), slotOf(&machines[i]).VolumeName(disk.Name)}] = disk.Size.Value()
		}
	}
	for _, disk := range h.Status.RetainedDisks {
		u.disks[disk.Pool] += max(bytesOf(disk.Capacity)-counted[key{disk.Pool, disk.Volume}], 0)
	}
	return u
}
