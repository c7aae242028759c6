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
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/cluster-api/util/conditions"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/host"
)

// TestBusyHostMakesNothingUntrue runs a phase whose calls a busy host has no time for.
func TestBusyHostMakesNothingUntrue(t *testing.T) {
	busy := fmt.Errorf("reading it: %w: it hasn't answered for 1.4s", host.ErrHostBusy)
	returned := error(nil)
	phases := []phase[struct{}]{{infrav1.MachineDomainReadyCondition, infrav1.MachineDomainRunningReason,
		func(context.Context, struct{}) error { return returned }}}
	machine := &infrav1.LibvirtMachine{}
	reconcile := func(err error, status metav1.ConditionStatus, reason string) {
		t.Helper()
		returned = err
		result, err := runPhases(t.Context(), machine, struct{}{}, phases)
		if err != nil || (result.RequeueAfter > 0) != (returned != nil) ||
			errors.Is(returned, host.ErrHostBusy) && result.RequeueAfter > 2*busyInterval {
			t.Errorf("the result is %+v, %v", result, err)
		}
		setReady(machine, infrav1.ReadyReason, infrav1.MachineDomainReadyCondition)
		if c := conditions.Get(machine, infrav1.ReadyCondition); c.Status != status || c.Reason != reason {
			t.Errorf("it is %s, %s: %s; want %s, %s", c.Status, c.Reason, c.Message, status, reason)
		}
	}
	reconcile(busy, metav1.ConditionUnknown, infrav1.HostBusyReason) // nothing was known
	reconcile(nil, metav1.ConditionTrue, infrav1.ReadyReason)
	reconcile(busy, metav1.ConditionTrue, infrav1.ReadyReason)
	reconcile(fmt.Errorf("reading it: %w", host.ErrUnreachable), metav1.ConditionUnknown, infrav1.HostUnreachableReason)
	reconcile(busy, metav1.ConditionUnknown, infrav1.HostBusyReason)
}

// TestSilenceHidesNothing has several hosts fail, of which one says nothing new.
func TestSilenceHidesNothing(t *testing.T) {
	found := conflict("a network is in the way")
	for name, silent := range map[string]error{
		"busy":       fmt.Errorf("kvm1: %w", host.ErrHostBusy),
		"connecting": wrapHost("kvm1", &waiting{reason: infrav1.HostUnreachableReason, message: "isn't connected yet", unknown: true, keep: true}),
	} {
		err := together([]error{silent, wrapHost("kvm2", found)})
		condition := phaseCondition(infrav1.ClusterNetworkReadyCondition, "", err)
		if condition.Status != metav1.ConditionFalse || condition.Reason != infrav1.ClusterNetworkConflictReason {
			t.Errorf("%s: it is %s, %s: %s", name, condition.Status, condition.Reason, condition.Message)
		}
		if want := "kvm2: a network is in the way; " + silent.Error(); condition.Message != want && name == "connecting" {
			t.Errorf("%s: the message is %q, want %q", name, condition.Message, want)
		}
		cluster := &infrav1.LibvirtCluster{}
		conditions.Set(cluster, metav1.Condition{Type: infrav1.ClusterNetworkReadyCondition, Status: metav1.ConditionTrue, Reason: infrav1.ClusterNetworkReadyReason})
		if keeps(cluster, infrav1.ClusterNetworkReadyCondition, err) {
			t.Errorf("%s: the network stays ready", name)
		}
		result, err := phaseResult(err)
		if err != nil || result.RequeueAfter == 0 || result.RequeueAfter > conflictInterval {
			t.Errorf("%s: the result is %+v, %v", name, result, err)
		}
		if name == "busy" && result.RequeueAfter > 2*busyInterval {
			t.Errorf("a busy host is looked at again only after %s", result.RequeueAfter)
		}
	}
}
