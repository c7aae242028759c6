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
	"fmt"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/cluster-api/util/conditions"
	ctrl "sigs.k8s.io/controller-runtime"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/host"
)

// runs tells whether a guest runs.
func runs(dom host.Domain) bool {
	return dom.State == host.Running || dom.State == host.Blocked
}

// recover looks after a domain that ran once and doesn't now.
func (r *LibvirtMachineReconciler) recover(ctx context.Context, s *machineScope) error {
	power := &s.libvirtMachine.Status.Power
	r.restarts.recall(s.uuid, int(power.Restarts), power.LastRestartTime.Time)
	wait := trouble(*s.domain)
	switch {
	case s.domain.State == host.Paused && s.domain.Reason == host.ReasonIOError:
		return r.resume(ctx, s, wait)
	case s.domain.State == host.Paused, s.domain.State == host.PMSuspended, s.domain.State == host.ShuttingDown:
		// The next event of the domain tells how it goes on.
		return wait
	case !restarted(s.libvirtMachine.Spec.RestartPolicy, *s.domain):
		wait.message += fmt.Sprintf("; spec.restartPolicy is %s, so it stays like this: start it with virsh start %s, or delete the Machine",
			s.libvirtMachine.Spec.RestartPolicy, s.domain.Name)
		return wait
	}
	if failed := r.restAfterFailure(s); failed != nil {
		return failed
	}
	due := r.restarts.due(s.uuid, time.Now())
	if due > 0 {
		wait.message += "; it is started again by itself" + times(power.Restarts)
		wait.after = due
		return wait
	}
	return r.restart(ctx, s)
}

// restart starts a domain that stopped, and writes down that it did.
func (r *LibvirtMachineReconciler) restart(ctx context.Context, s *machineScope) error {
	power, stopped := &s.libvirtMachine.Status.Power, *s.domain
	err := s.host.StartDomain(ctx, s.uuid)
	if err != nil && mayHaveWorked(err) {
		return err
	}
	power.Restarts++
	power.LastRestartTime = metav1.Now()
	power.LastStopReason = cmp.Or(stopped.Reason, string(stopped.State))
	if err != nil {
		return r.startFailed(s, err)
	}
	r.restarts.next(s.uuid, time.Now(), "")
	ctrl.LoggerFrom(ctx).Info("Restarted domain", "host", s.libvirtHost.Name, "domainUUID", s.uuid, "was", stopped.State,
		"reason", stopped.Reason, "restarts", power.Restarts)
	s.domain.State, s.domain.Reason = host.Running, ""
	return nil
}

// restarted tells whether a domain that stopped is started again. After a restart of its daemon libvirt may not know why
// a domain stopped: what didn't stop by anybody's will has failed.
func restarted(policy infrav1.RestartPolicy, dom host.Domain) bool {
	switch policy {
	case infrav1.RestartNever:
		return false
	case infrav1.RestartOnFailure:
		switch dom.Reason {
		case host.ReasonShutdown, host.ReasonDestroyed, host.ReasonSaved:
			return false
		}
	}
	return true
}

// times says how often a domain was started again already. Empty when it wasn't.
func times(restarts int32) string {
	if restarts == 0 {
		return ""
	}
	return fmt.Sprintf(", as it was %s already", often(restarts))
}

func often(restarts int32) string {
	if restarts == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", restarts)
}

// trouble says what is the matter with a domain that doesn't run.
func trouble(dom host.Domain) *waiting {
	reason := infrav1.MachineDomainShutoffReason
	switch {
	case dom.State == host.Paused && dom.Reason == host.ReasonIOError:
		return &waiting{reason: infrav1.MachineDomainIOErrorReason, message: fmt.Sprintf(
			"domain %s stands still because the host's storage failed a write", dom.Name)}
	case dom.State == host.Paused || dom.State == host.PMSuspended:
		return &waiting{reason: infrav1.MachineDomainPausedReason, message: fmt.Sprintf(
			"domain %s is paused (%s): resume it with virsh resume %s", dom.Name, dom.Reason, dom.Name)}
	case dom.State == host.Crashed || dom.Reason == host.ReasonCrashed || dom.Reason == host.ReasonFailed:
		reason = infrav1.MachineDomainCrashedReason
	}
	return &waiting{reason: reason, message: fmt.Sprintf("domain %s is not running: %s (%s)", dom.Name, dom.State, dom.Reason)}
}

// forgetPast forgets what was done to a domain that has run steadily since.
func (r *LibvirtMachineReconciler) forgetPast(s *machineScope) {
	r.restarts.forget(s.uuid)
	power := &s.libvirtMachine.Status.Power
	if over(power.LastRestartTime) {
		power.Restarts, power.LastRestartTime, power.LastStopReason = 0, metav1.Time{}, ""
	}
	if over(power.ResumeTime) {
		power.ResumeTime = metav1.Time{}
	}
}

func over(since metav1.Time) bool {
	return time.Since(since.Time) > steady
}

// pastIsOver is in how long a domain that runs now will have run steadily since it was started again or resumed. Zero when
// there is nothing to forget.
func pastIsOver(m *infrav1.LibvirtMachine) time.Duration {
	if !conditions.IsTrue(m, infrav1.MachineDomainReadyCondition) {
		return 0
	}
	last := m.Status.Power.LastRestartTime.Time
	if resumed := m.Status.Power.ResumeTime.Time; resumed.After(last) {
		last = resumed
	}
	if last.IsZero() {
		return 0
	}
	return max(time.Until(last.Add(steady)), 0) + time.Second
}

// reportPast has the condition of a domain that runs say what was done to it lately.
func reportPast(m *infrav1.LibvirtMachine) {
	ready, power := conditions.Get(m, infrav1.MachineDomainReadyCondition), m.Status.Power
	if ready == nil || ready.Status != metav1.ConditionTrue {
		return
	}
	var past []string
	if power.Restarts > 0 {
		past = append(past, fmt.Sprintf("started again %s, last at %s because it had stopped (%s)",
			often(power.Restarts), power.LastRestartTime.UTC().Format(time.RFC3339), power.LastStopReason))
	}
	if !power.ResumeTime.IsZero() {
		past = append(past, fmt.Sprintf("resumed at %s after the host's storage had been full", power.ResumeTime.UTC().Format(time.RFC3339)))
	}
	ready.Message = strings.Join(past, "; ")
	conditions.Set(m, *ready)
}
