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
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/host"
)

// resume lets a domain that stands still for want of room go on, once there is room. QEMU stops a guest for that alone:
// other errors are the guest's to handle. If it stands still again before it has run steadily, somebody has to look at
// it: resuming it again and again would only hammer on a full disk. It is never reset, which would lose what the guest
// has yet to write.
func (r *LibvirtMachineReconciler) resume(ctx context.Context, s *machineScope, wait *waiting) error {
	pools, power := poolsOf(s.libvirtHost, &s.libvirtMachine.Spec), &s.libvirtMachine.Status.Power
	if !power.ResumeTime.IsZero() {
		wait.message += fmt.Sprintf(" again, after it was resumed at %s: make more room in storage pool %s or repair it, then resume it with virsh resume %s",
			power.ResumeTime.UTC().Format(time.RFC3339), strings.Join(pools, " or "), s.domain.Name)
		return wait
	}
	for _, pool := range pools {
		found, err := r.lookAtPool(ctx, s, pool)
		if needed := roomToResume(found); err != nil || found.AvailableBytes < needed {
			wait.message += fmt.Sprintf(": make room in storage pool %s, and it is resumed by itself", pool)
			if err == nil {
				wait.message += fmt.Sprintf(" once %d MiB are available", needed>>20)
			}
			wait.after = noSpaceInterval // nothing tells of room in a pool
			return wait
		}
	}
	if err := s.host.ResumeDomain(ctx, s.uuid); err != nil {
		return fmt.Errorf("resuming domain %s: %w", s.domain.Name, err)
	}
	power.ResumeTime = metav1.Now()
	ctrl.LoggerFrom(ctx).Info("Resumed domain, as there is room again", "host", s.libvirtHost.Name, "domainUUID", s.uuid, "pools", pools)
	s.domain.State, s.domain.Reason = host.Running, ""
	return nil
}

// poolsOf are the pools on a host that hold the disks of a machine.
func poolsOf(h *infrav1.LibvirtHost, spec *infrav1.LibvirtMachineSpec) []string {
	pools := []string{poolFor(h, spec.RootDisk.Pool)}
	for _, disk := range spec.DataDisks {
		pools = append(pools, poolFor(h, disk.Pool))
	}
	slices.Sort(pools)
	return slices.Compact(pools)
}

// roomToResume is how many bytes of a pool must be available before a domain is resumed: enough that it doesn't stand
// still again at once.
func roomToResume(pool host.StoragePool) int64 {
	return min(1<<30, pool.CapacityBytes/20)
}

// poolLook is what came of having a pool read anew.
type poolLook struct {
	pool host.StoragePool
	err  error
	at   time.Time
}

// lookAtPool has a pool read anew, at most every noSpaceInterval, however many domains wait for room in it.
func (r *LibvirtMachineReconciler) lookAtPool(ctx context.Context, s *machineScope, pool string) (host.StoragePool, error) {
	key := poolKey{hostKey(s.libvirtHost.Namespace, s.libvirtHost.Name), pool}
	if last, ok := r.poolLooks.get(key, 0); ok && time.Since(last.at) < noSpaceInterval-time.Second {
		return last.pool, last.err
	}
	found, err := s.host.RefreshStoragePool(ctx, pool)
	if err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "Failed to look for room in a storage pool", "host", s.libvirtHost.Name, "pool", pool)
	}
	r.poolLooks.set(key, 0, poolLook{found, err, time.Now()})
	return found, err
}
