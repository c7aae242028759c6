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
	"fmt"
	"maps"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/cluster-api/util/conditions"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/lab/privatehost"
)

// TestOneOfThreeHostsIsLost spreads a set of machines over three real hosts and pulls the plug of one: the machines of the
// others don't notice, and new ones are made there.
func TestOneOfThreeHostsIsLost(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	labs, one := map[string]*privatehost.Host{}, map[string]int{}
	for _, name := range []string{"kvm1", "kvm2", "kvm3"} {
		labs[name], one[name] = newLab(t), 1
		s.readyHost(name, labs[name].URI())
	}
	green := s.readyCluster("green", "10.20.0.0/27")
	var machines []*infrav1.LibvirtMachine
	for k := range 3 {
		machines = append(machines, s.createMachine("green", fmt.Sprintf("web-%d", k), emulated, of("web")))
	}
	addresses := map[string]bool{}
	for _, m := range machines {
		s.expectReady(m)
		s.expectAllThere(green, m)
		addresses[internalIP(m)] = true
	}
	if perHost, _ := s.placedMachines(machines); !maps.Equal(perHost, one) || len(addresses) != 3 {
		t.Fatalf("The machines are on %v and have the addresses %v", perHost, addresses)
	}
	since := map[string]metav1.Time{}
	for _, m := range machines {
		since[m.Name] = conditions.Get(m, infrav1.ReadyCondition).LastTransitionTime
	}

	const lost = "kvm2"
	must(t, labs[lost].Stop(t.Context()))
	kvm2 := &infrav1.LibvirtHost{ObjectMeta: s.meta(lost, "")}
	s.expectCondition(kvm2, infrav1.ReadyCondition, metav1.ConditionFalse, infrav1.HostUnreachableReason)
	for _, m := range machines {
		if m.Spec.HostName == lost {
			s.expectCondition(m, infrav1.ReadyCondition, metav1.ConditionUnknown, infrav1.HostUnreachableReason, lost)
		}
	}
	// The next machine of the set, as a MachineHealthCheck would have it made, is on one of the others.
	next := s.readyMachine("green", "web-3", emulated, of("web"))
	if next.Spec.HostName == lost || addresses[internalIP(next)] {
		t.Errorf("It is on %s and has %s of %v", next.Spec.HostName, internalIP(next), addresses)
	}
	s.expectAllThere(green, next)
	s.expectReady(green)
	for _, m := range machines {
		if m.Spec.HostName == lost {
			continue
		}
		s.expectAllThere(green, m)
		ready, before := conditions.Get(m, infrav1.ReadyCondition), since[m.Name]
		if ready.Status != metav1.ConditionTrue || !ready.LastTransitionTime.Equal(&before) {
			t.Errorf("%s on %s noticed: %+v", m.Name, m.Spec.HostName, ready)
		}
		hostName, uuid := m.Spec.HostName, uuidOf(m)
		s.delete(m)
		s.expectGone(m)
		s.expectNoTraces(green, hostName, uuid)
	}
}
