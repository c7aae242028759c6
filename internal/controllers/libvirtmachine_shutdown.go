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
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/host"
)

// shutDown gives the guest of a machine that goes time to shut down, if its spec says so. It returns a *waiting until the
// guest has done so, of which an event tells, or its time is up; then nil.
func (r *LibvirtMachineReconciler) shutDown(ctx context.Context, s *machineScope) error {
	grace := shutdownGrace(s.libvirtMachine.Spec.Shutdown)
	dom, err := s.host.Domain(s.uuid)
	if grace == 0 || err != nil || (!runs(dom) && dom.State != host.ShuttingDown) {
		return nil //nolint:nilerr // What isn't there, or stands still, can't shut down.
	}
	log, power := ctrl.LoggerFrom(ctx).WithValues("host", s.libvirtHost.Name, "domainUUID", s.uuid), &s.libvirtMachine.Status.Power
	if power.ShutdownTime.IsZero() {
		if err := s.host.ShutdownDomain(ctx, s.uuid); err != nil {
			if mayHaveWorked(err) {
				return err
			}
			log.Error(err, "Failed to ask the guest to shut down, so its plug is pulled")
			return nil
		}
		power.ShutdownTime = metav1.Now()
		log.Info("Asked the guest to shut down", "grace", grace)
	}
	deadline := power.ShutdownTime.Add(grace)
	left := time.Until(deadline)
	if left <= 0 {
		log.Info("The guest didn't shut down in time, so its plug is pulled", "grace", grace)
		return nil
	}
	return &waiting{
		reason: infrav1.MachineShuttingDownReason, after: left, message: fmt.Sprintf(
			"the guest was asked to shut down; its plug is pulled at %s (spec.shutdown.timeoutSeconds)", deadline.UTC().Format(time.RFC3339)),
	}
}

// shutdownGrace is how long a guest has to shut down before its plug is pulled.
func shutdownGrace(shutdown infrav1.Shutdown) time.Duration {
	if shutdown.Mode != infrav1.ShutdownGraceful {
		return 0
	}
	return time.Duration(cmp.Or(shutdown.TimeoutSeconds, infrav1.DefaultShutdownTimeoutSeconds)) * time.Second
}

// mayHaveWorked tells whether a call failed in a way that leaves its outcome open, so that it is made again later.
func mayHaveWorked(err error) bool {
	return errors.Is(err, host.ErrUnreachable) || errors.Is(err, host.ErrTimeout) || errors.Is(err, host.ErrHostBusy)
}
