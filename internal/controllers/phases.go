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
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kerrors "k8s.io/apimachinery/pkg/util/errors"
	utilwait "k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/cluster-api/util/conditions"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/host"
)

// phase is one step of a reconcile. It observes, compares and acts. It returns nil when the next may run, a *waiting
// when it can't go on for a reason that isn't an error, or an error, which is tried again.
type phase[S any] struct {
	// condition that the phase decides.
	condition string
	// reason of the condition when the phase succeeds.
	reason string
	run    func(context.Context, S) error
}

// waiting is why a phase can't go on. Something is expected to wake the reconciler when that changes.
type waiting struct {
	reason, message string
	// unknown makes the condition Unknown instead of False.
	unknown bool
	// done makes the condition True, for this reason instead of that of the phase.
	done bool
	// keep leaves the condition as it is when there is one: nothing new is known yet.
	keep bool
	// after, when set, is when to look again at the latest.
	after time.Duration
}

func (w *waiting) Error() string {
	return w.message
}

// runPhases runs phases in order until one can't go on. Each sets its condition; the conditions of those that didn't
// run stay as they are, and are Unknown when they never ran.
func runPhases[S any](ctx context.Context, object conditions.Setter, scope S, phases []phase[S]) (ctrl.Result, error) {
	for i, p := range phases {
		err := p.run(ctx, scope)
		if keeps(object, p.condition, err) {
			return phaseResult(err)
		}
		conditions.Set(object, phaseCondition(p.condition, p.reason, err))
		if err == nil {
			continue
		}
		for _, later := range phases[i+1:] {
			if !conditions.Has(object, later.condition) {
				conditions.Set(object, metav1.Condition{
					Type: later.condition, Status: metav1.ConditionUnknown, Reason: infrav1.NotYetReason,
					Message: "Waits for " + p.condition,
				})
			}
		}
		return phaseResult(err)
	}
	return ctrl.Result{}, nil
}

// runBeside runs phases of which none waits for another. Each sets its condition.
func runBeside[S any](ctx context.Context, object conditions.Setter, scope S, phases []phase[S]) (ctrl.Result, error) {
	var first ctrl.Result
	var failures []error
	for _, p := range phases {
		err := p.run(ctx, scope)
		if !keeps(object, p.condition, err) {
			conditions.Set(object, phaseCondition(p.condition, p.reason, err))
		}
		result, err := phaseResult(err)
		failures = append(failures, err)
		first = sooner(first, result)
	}
	return first, errors.Join(failures...)
}

// sooner is the result that has the reconciler look again first.
func sooner(a, b ctrl.Result) ctrl.Result {
	if a.RequeueAfter == 0 || (b.RequeueAfter != 0 && b.RequeueAfter < a.RequeueAfter) {
		return b
	}
	return a
}

// keeps tells that a condition stays as it is, because what a phase returned says nothing new. A host that is too busy
// for a call makes nothing untrue.
func keeps(object conditions.Setter, conditionType string, err error) bool {
	if errors.Is(err, host.ErrHostBusy) {
		return conditions.IsTrue(object, conditionType)
	}
	return saysNothing(err) && conditions.Has(object, conditionType)
}

// unasked is an error of the API server that kept a host from being asked.
type unasked struct{ error }

func (u unasked) Unwrap() error { return u.error }

// connected returns the connection to a host. While the first connection of this process is under way, as after a start
// of the manager, what was known of the host before stands.
func connected(hosts *host.Pool, namespace, name string) (*host.Host, error) {
	kvm, err := hosts.Get(hostKey(namespace, name))
	if errors.Is(err, host.ErrNotFound) || errors.Is(err, host.ErrConnecting) {
		return nil, &waiting{
			reason: infrav1.HostUnreachableReason, message: fmt.Sprintf("host %s isn't connected yet", name), unknown: true, keep: true,
		}
	}
	return kvm, err
}

// together makes one of what went wrong on several hosts: the first that says something new decides, the message has them
// all.
func together(failures []error) error {
	if len(failures) < 2 {
		return errors.Join(failures...)
	}
	slices.SortStableFunc(failures, func(a, b error) int {
		switch silentA, silentB := saysNothing(a), saysNothing(b); {
		case silentA == silentB:
			return 0
		case silentA:
			return 1
		}
		return -1
	})
	messages := make([]string, 0, len(failures))
	for _, failure := range failures {
		messages = append(messages, failure.Error())
	}
	var wait *waiting
	if errors.As(failures[0], &wait) {
		all := *wait
		all.message, all.after = strings.Join(messages, "; "), soonest(failures)
		return &all
	}
	return fmt.Errorf("%w; %s", failures[0], strings.Join(messages[1:], "; "))
}

// saysNothing tells of what a phase returned that it makes nothing untrue that was known before: a host is too busy for a
// call, or isn't connected yet, or the API server didn't answer.
func saysNothing(err error) bool {
	var wait *waiting
	if errors.As(err, &wait) {
		return wait.keep
	}
	return errors.Is(err, host.ErrHostBusy) || errors.As(err, new(unasked))
}

// soonest is when the first of several failures asks for another look, 0 when none does.
func soonest(failures []error) time.Duration {
	var first time.Duration
	for _, failure := range failures {
		result, err := phaseResult(failure)
		after := result.RequeueAfter
		if err != nil {
			after = unreachableInterval
		}
		if after > 0 && (first == 0 || after < first) {
			first = after
		}
	}
	return first
}

// unlessGone leaves out of the error of a patch helper that the object is gone: the patch took its last finalizer away.
func unlessGone(err error) error {
	var several kerrors.Aggregate
	if errors.As(err, &several) {
		return kerrors.FilterOut(several, apierrors.IsNotFound)
	}
	return client.IgnoreNotFound(err)
}

// phaseCondition is the condition that follows from what a phase returned.
func phaseCondition(conditionType, reason string, err error) metav1.Condition {
	condition := metav1.Condition{Type: conditionType, Status: metav1.ConditionTrue, Reason: reason}
	if err == nil {
		return condition
	}
	condition.Status, condition.Message = metav1.ConditionFalse, err.Error()
	var wait *waiting
	var libvirtError *host.Error
	switch {
	case errors.As(err, &wait):
		condition.Reason = wait.reason
		switch {
		case wait.done:
			condition.Status = metav1.ConditionTrue
		case wait.unknown:
			condition.Status = metav1.ConditionUnknown
		}
	case errors.Is(err, host.ErrHostBusy):
		condition.Status, condition.Reason = metav1.ConditionUnknown, infrav1.HostBusyReason
	case errors.Is(err, host.ErrUnreachable), errors.Is(err, host.ErrTimeout):
		condition.Status, condition.Reason = metav1.ConditionUnknown, infrav1.HostUnreachableReason
	case errors.As(err, &libvirtError), errors.Is(err, host.ErrNoSpace):
		condition.Reason = infrav1.LibvirtErrorReason
	default:
		condition.Reason = infrav1.InternalErrorReason
	}
	return condition
}

// noSpaceInterval is how long a full disk is left alone before the next try.
const noSpaceInterval = 30 * time.Second

// unreachableInterval is when to look again at the latest at a host that a call said is out of reach. Its return wakes
// the reconciler, unless the connection turns out to have been alive all along.
const unreachableInterval = time.Minute

// busyInterval is about when to try again what a host was too busy for; not all at once.
const busyInterval = 2 * time.Second

// phaseResult is what the reconciler returns for what a phase returned.
func phaseResult(err error) (ctrl.Result, error) {
	var wait *waiting
	switch {
	case errors.As(err, &wait):
		return ctrl.Result{RequeueAfter: wait.after}, nil
	case errors.Is(err, host.ErrHostBusy):
		return ctrl.Result{RequeueAfter: utilwait.Jitter(busyInterval, 0.5)}, nil
	case errors.Is(err, host.ErrUnreachable):
		return ctrl.Result{RequeueAfter: unreachableInterval}, nil
	case errors.Is(err, host.ErrNoSpace):
		return ctrl.Result{RequeueAfter: noSpaceInterval}, nil
	}
	return ctrl.Result{}, err
}

// setReady sums up conditions, in the order in which their phases run: Ready is the first that isn't true.
func setReady(object conditions.Setter, readyReason string, conditionTypes ...string) {
	ready := metav1.Condition{Type: infrav1.ReadyCondition, Status: metav1.ConditionTrue, Reason: readyReason}
	for _, conditionType := range conditionTypes {
		condition := conditions.Get(object, conditionType)
		if condition == nil {
			ready.Status, ready.Reason = metav1.ConditionUnknown, infrav1.NotYetReason
			break
		}
		if condition.Status != metav1.ConditionTrue {
			ready.Status, ready.Reason = condition.Status, condition.Reason
			ready.Message = conditionType + ": " + condition.Message
			break
		}
	}
	conditions.Set(object, ready)
}

// setDeleting reports on a deletion. While an object goes it isn't ready.
func setDeleting(object conditions.Setter, err error) {
	condition := metav1.Condition{Type: infrav1.DeletingCondition, Status: metav1.ConditionTrue, Reason: infrav1.DeletingReason}
	if err != nil {
		failed := phaseCondition(infrav1.DeletingCondition, "", err)
		condition.Reason, condition.Message = failed.Reason, failed.Message
	}
	conditions.Set(object, condition)
	conditions.Set(object, metav1.Condition{
		Type: infrav1.ReadyCondition, Status: metav1.ConditionFalse, Reason: infrav1.DeletingReason, Message: condition.Message,
	})
}
