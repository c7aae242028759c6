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
	"errors"
	"fmt"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clusterctlv1 "sigs.k8s.io/cluster-api/cmd/clusterctl/api/v1alpha3"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/domain"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/host"
)

// TestDesertedObjectsAreRemoved takes Machines and Clusters away by force, and deletes ours as the garbage collector does
// then.
func TestDesertedObjectsAreRemoved(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.readyHost("kvm1", testDriver(t))
	green := s.readyCluster("green", "10.20.0.0/27")
	noMachine, nobody, moved := s.readyMachine("green", "no-machine"), s.readyMachine("green", "nobody"), s.readyMachine("green", "moved")

	s.delete(s.machine("no-machine"))
	s.delete(noMachine)
	s.expectGone(noMachine)
	s.expectNoTraces(green, "kvm1", uuidOf(noMachine))

	s.delete(s.cluster("green"))
	s.delete(s.machine("nobody"))
	s.delete(nobody)
	s.expectGone(nobody)
	s.expectNoTraces(green, "kvm1", uuidOf(nobody))

	// What clusterctl has moved is in use elsewhere.
	change(s, moved, func(m *infrav1.LibvirtMachine) { setAnnotation(m, clusterctlv1.DeleteForMoveAnnotation, "") })
	s.delete(moved)
	s.expectGone(moved)
	if dom, err := s.kvm("kvm1").Domain(uuidOf(moved)); err != nil || dom.State != host.Running {
		t.Errorf("The domain that was moved to another management cluster is %+v, %v", dom, err)
	}

	s.delete(green)
	s.expectGone(green)
	if found, err := s.kvm("kvm1").Network(t.Context(), green.Spec.Network.UUID); !errors.Is(err, host.ErrNotFound) {
		t.Errorf("The network is %+v, %v", found, err)
	}
	blue := s.readyCluster("blue", "10.20.1.0/27")
	change(s, blue, func(c *infrav1.LibvirtCluster) { setAnnotation(c, clusterctlv1.DeleteForMoveAnnotation, "") })
	s.delete(s.cluster("blue"))
	s.delete(blue)
	s.expectGone(blue)
	if _, err := s.kvm("kvm1").Network(t.Context(), blue.Spec.Network.UUID); err != nil {
		t.Errorf("The network that was moved to another management cluster: %v", err)
	}
}

// TestProviderIDOfAnother writes the providerID of a machine into another one, on a host that has the disk too, as hosts
// with one storage have.
func TestProviderIDOfAnother(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.readyHost("kvm1", testDriver(t))
	s.readyHost("kvm2", testDriver(t))
	green := s.readyCluster("green", "10.20.0.0/27")
	victim := s.readyMachine("green", "victim", onHost("kvm1"))
	uuid := uuidOf(victim)
	root, err := s.kvm("kvm1").Volume(t.Context(), infrav1.DefaultPool, domain.RootVolumeName(uuid))
	must(t, err)
	document, err := domain.RenderRootVolume(uuid, root.CapacityBytes, root.BackingPath, "qcow2")
	must(t, err)
	must(t, s.kvm("kvm2").CreateVolume(t.Context(), infrav1.DefaultPool, document))
	document, err = domain.RenderSeedVolume(uuid, 1<<20)
	must(t, err)
	must(t, s.kvm("kvm2").CreateVolume(t.Context(), infrav1.DefaultSeedPool, document))

	thief := func(p *machineParts) {
		p.libvirtMachine.Spec.ProviderID, p.libvirtMachine.Spec.HostName = victim.Spec.ProviderID, "kvm2"
	}
	plain := s.createMachine("green", "plain", thief)
	s.expectCondition(plain, infrav1.MachinePlacedCondition, metav1.ConditionFalse, infrav1.MachineDomainConflictReason,
		"spec.providerID "+victim.Spec.ProviderID+" isn't that of this machine")
	marked := s.createMachine("green", "marked", thief, func(p *machineParts) {
		setAnnotation(p.libvirtMachine, provisionedAnnotation, "true")
	})
	s.expectCondition(marked, infrav1.MachineDomainReadyCondition, metav1.ConditionFalse, infrav1.MachineDomainMissingReason)
	for _, m := range []*infrav1.LibvirtMachine{plain, marked} {
		s.delete(m)
		s.expectGone(m)
		for _, name := range []string{domain.RootVolumeName(uuid), domain.SeedVolumeName(uuid)} {
			if _, err := s.kvm("kvm2").Volume(t.Context(), poolOf(name), name); err != nil {
				t.Errorf("%s took %s along: %v", m.Name, name, err)
			}
		}
	}
	s.expectAllThere(green, victim)
}

// TestAddressOfAMachineThatWentWithItsHost is given to another one.
func TestAddressOfAMachineThatWentWithItsHost(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	kvm1 := s.readyHost("kvm1", testDriver(t))
	s.readyHost("kvm2", testDriver(t))
	s.readyCluster("green", "10.20.0.0/29")
	var lost []*infrav1.LibvirtMachine
	for k := range 3 {
		lost = append(lost, s.readyMachine("green", fmt.Sprintf("lost-%d", k), onHost("kvm1")))
	}
	s.delete(kvm1)
	change(s, kvm1, func(h *infrav1.LibvirtHost) { h.Finalizers = nil })
	s.expectGone(kvm1)
	s.delete(lost[1])
	s.expectGone(lost[1])
	next := s.readyMachine("green", "next")
	if got, want := internalIP(next), internalIP(lost[1]); got != want {
		t.Errorf("It has the address %s, want %s", got, want)
	}
}

// TestDomainThatWasMigratedTwice leaves nothing on the first of its hosts.
func TestDomainThatWasMigratedTwice(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	hosts := []string{"kvm1", "kvm2", "kvm3"}
	for _, name := range hosts {
		s.readyHost(name, testDriver(t))
	}
	green := s.readyCluster("green", "10.20.0.0/27")
	m := s.readyMachine("green", "green-a", onHost("kvm1"))
	uuid := uuidOf(m)
	definition, err := s.kvm("kvm1").DomainXML(t.Context(), uuid)
	must(t, err)
	for k, to := range hosts[1:] {
		from := hosts[k]
		must(t, s.kvm(to).DefineDomain(t.Context(), definition))
		must(t, s.kvm(to).StartDomain(t.Context(), uuid))
		must(t, s.kvm(from).DestroyDomain(t.Context(), uuid))
		must(t, s.kvm(from).UndefineDomain(t.Context(), uuid))
		eventually(t, "the machine is followed", func() error {
			s.refresh(m)
			if m.Spec.HostName != to || m.Spec.MigratedFrom != from {
				return fmt.Errorf("it is on %s, from %s", m.Spec.HostName, m.Spec.MigratedFrom)
			}
			return nil
		})
		s.expectReady(m)
	}
	root := domain.RootVolumeName(uuid)
	if _, err := s.kvm("kvm1").Volume(t.Context(), infrav1.DefaultPool, root); err != nil {
		t.Errorf("The disk, which may be shared, is gone while the machine runs: %v", err)
	}
	s.delete(m)
	s.expectGone(m)
	for _, name := range hosts {
		s.expectNoTraces(green, name, uuid)
	}
}

// TestNameThatIsTakenOnOneHost has a machine go to another.
func TestNameThatIsTakenOnOneHost(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.readyHost("kvm1", testDriver(t))
	s.readyHost("kvm2", testDriver(t), func(h *infrav1.LibvirtHost) { h.Spec.Scheduling = infrav1.HostSchedulingDisabled })
	s.readyCluster("green", "10.20.0.0/27")
	definition := s.defineForeign("kvm1", domain.Name(s.namespace, "green-a"), foreignUUID)
	m := s.createMachine("green", "green-a")
	s.expectCondition(m, infrav1.MachinePlacedCondition, metav1.ConditionFalse, infrav1.MachineDomainConflictReason,
		"kvm1: already has a domain "+domain.Name(s.namespace, "green-a"), "kvm2: spec.scheduling is Disabled")
	kvm2 := &infrav1.LibvirtHost{ObjectMeta: s.meta("kvm2", "")}
	change(s, kvm2, func(h *infrav1.LibvirtHost) { h.Spec.Scheduling = infrav1.HostSchedulingEnabled })
	s.expectReady(m)
	if m.Spec.HostName != "kvm2" {
		t.Errorf("It is on %s", m.Spec.HostName)
	}
	s.expectUntouched("kvm1", foreignUUID, definition)
}
