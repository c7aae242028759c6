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
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/cluster-api/util/conditions"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/host"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/lab/privatehost"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/network"
)

// reserveForeign has somebody else reserve an address in a cluster's network.
func reserveForeign(t *testing.T, lab *privatehost.Host, green *infrav1.LibvirtCluster, command, mac, ip string) {
	t.Helper()
	inside(t, lab, fmt.Sprintf(`virsh net-update %s %s ip-dhcp-host "<host mac='%s' ip='%s'/>" --live --config`,
		green.Spec.Network.UUID, command, mac, ip))
}

// TestAddressesRunOut fills the network of a real host, partly with reservations of somebody else. That there is no address
// left shows before anything is made.
func TestAddressesRunOut(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	lab := newLab(t)
	s.readyHost("kvm1", lab.URI())
	green := s.readyCluster("green", "10.20.0.0/29") // .4 to .6
	const foreignMAC = "52:54:00:00:00:01"
	reserveForeign(t, lab, green, "add-last", foreignMAC, "10.20.0.4")
	first, second := s.readyMachine("green", "first", emulated), s.readyMachine("green", "second", emulated)
	if got := internalIP(first) + " " + internalIP(second); got != "10.20.0.5 10.20.0.6" {
		t.Errorf("The machines have %s", got)
	}
	writes := func() (count uint64) {
		for procedure, calls := range s.kvm("kvm1").Calls() {
			if libvirtWrites[procedure] {
				count += calls
			}
		}
		return count
	}
	before := writes()
	last := s.createMachine("green", "last", emulated)
	s.expectCondition(last, infrav1.MachineDomainReadyCondition, metav1.ConditionFalse, infrav1.MachineAddressesExhaustedReason,
		"every node address is taken: 3 of 3 in 10.20.0.4-10.20.0.6", "larger spec.network.cidr")
	staysSo(t, "nothing is made for it", func() error {
		if now := writes(); now != before {
			return fmt.Errorf("%d writes were made", now-before)
		}
		return nil
	})
	s.delete(first)
	s.expectGone(first)
	touch(s, last)
	s.expectReady(last)
	s.expectAllThere(green, last)
	if found := s.reservations(green, "kvm1"); len(found) != 3 || found[foreignMAC] != "10.20.0.4" || internalIP(last) != "10.20.0.5" {
		t.Errorf("The machine has %s and the reservations are %v", internalIP(last), found)
	}

	// libvirt tells nobody that a reservation was taken away.
	late := s.createMachine("green", "late", emulated)
	s.expectCondition(late, infrav1.MachineDomainReadyCondition, metav1.ConditionFalse, infrav1.MachineAddressesExhaustedReason)
	reserveForeign(t, lab, green, "delete", foreignMAC, "10.20.0.4")
	touch(s, late)
	s.expectReady(late)
	s.expectAllThere(green, late)
}

// TestAddressOfAMachineThatIsGone has the DHCP server keep the address of a guest that was deleted, as libvirt's does for an
// hour: the next machine would wait for it that long.
func TestAddressOfAMachineThatIsGone(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	lab := newLab(t)
	s.readyHost("kvm1", lab.URI())
	s.readyCluster("green", "10.20.0.0/27")
	first := s.readyMachine("green", "first", emulated)
	s.delete(first)
	s.expectGone(first)
	if next := s.readyMachine("green", "next", emulated); next.Spec.Address == first.Spec.Address {
		t.Errorf("Both have %s", next.Spec.Address)
	}
}

// TestReservationOfOurMAC has somebody reserve an address for the MAC address that a machine is going to have.
func TestReservationOfOurMAC(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	lab := newLab(t)
	s.readyHost("kvm1", lab.URI())
	green := s.readyCluster("green", "10.20.0.0/27")
	m := s.createMachine("green", "green-a", emulated, func(p *machineParts) { p.secret = nil })
	s.expectCondition(m, infrav1.MachineBootstrapDataReadyCondition, metav1.ConditionFalse, infrav1.MachineBootstrapSecretNotFoundReason)
	mac, virtual := network.MAC(uuidOf(m)), "10.20.0.2"
	reserveForeign(t, lab, green, "add-last", mac, virtual)
	s.create(s.machineParts("green", "green-a").secret)
	s.expectCondition(m, infrav1.MachineDomainReadyCondition, metav1.ConditionFalse, infrav1.MachineAddressConflictReason,
		"host kvm1", virtual, "remove that reservation")
	if dom, err := s.kvm("kvm1").Domain(uuidOf(m)); !errors.Is(err, host.ErrNotFound) {
		t.Errorf("It has the domain %+v, %v", dom, err)
	}
	reserveForeign(t, lab, green, "delete", mac, virtual)
	touch(s, m)
	s.expectReady(m)
	s.expectAllThere(green, m)
}

// TestDomainOfOurMAC has a domain of somebody else with the MAC address of a machine, in its network. Neither is touched.
func TestDomainOfOurMAC(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	lab := newLab(t)
	s.readyHost("kvm1", lab.URI())
	green := s.readyCluster("green", "10.20.0.0/27")
	m := s.createMachine("green", "green-a", emulated, func(p *machineParts) { p.secret = nil })
	s.expectCondition(m, infrav1.MachineBootstrapDataReadyCondition, metav1.ConditionFalse, infrav1.MachineBootstrapSecretNotFoundReason)
	foreign := strings.Replace(strings.Replace(foreignDomain("foreign", foreignUUID), `type="test"`, `type="qemu"`, 1), "</os>",
		fmt.Sprintf(`</os><devices><interface type="network"><mac address=%q/><source network=%q/></interface></devices>`,
			network.MAC(uuidOf(m)), network.Name(s.namespace, "green")), 1)
	must(t, s.kvm("kvm1").DefineDomain(t.Context(), foreign))
	must(t, s.kvm("kvm1").StartDomain(t.Context(), foreignUUID))
	definition, err := s.kvm("kvm1").DomainXML(t.Context(), foreignUUID)
	must(t, err)
	s.create(s.machineParts("green", "green-a").secret)
	s.expectReady(m)
	s.expectAllThere(green, m)
	s.delete(m)
	s.expectGone(m)
	s.expectNoTraces(green, "kvm1", uuidOf(m))
	found, err := s.kvm("kvm1").DomainXML(t.Context(), foreignUUID)
	if err != nil || found != definition {
		t.Errorf("The foreign domain was\n%s\nand is\n%s\n%v", definition, found, err)
	}
	if dom, err := s.kvm("kvm1").Domain(foreignUUID); err != nil || dom.State != host.Running {
		t.Errorf("The foreign domain is %+v, %v", dom, err)
	}
}

// TestUndefinedByHand has somebody undefine the domains of machines: one that is stopped, and one that runs.
func TestUndefinedByHand(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	lab := newLab(t)
	s.readyHost("kvm1", lab.URI())
	green := s.readyCluster("green", "10.20.0.0/27")
	stopped, running := s.readyMachine("green", "stopped", emulated), s.readyMachine("green", "running", emulated)
	removed := s.readyMachine("green", "removed", emulated)

	inside(t, lab, "virsh destroy "+uuidOf(stopped)+" && virsh undefine "+uuidOf(stopped))
	s.expectCondition(stopped, infrav1.MachineDomainReadyCondition, metav1.ConditionFalse, infrav1.MachineDomainMissingReason,
		"domain "+uuidOf(stopped)+" is gone from host kvm1", "delete it to have it replaced")

	// A guest that runs goes on without its definition; there is nothing to be repaired as long as it does.
	for _, m := range []*infrav1.LibvirtMachine{running, removed} {
		inside(t, lab, "virsh undefine "+uuidOf(m))
		touch(s, m)
	}
	staysSo(t, "the machine is ready", func() error {
		for _, m := range []*infrav1.LibvirtMachine{running, removed} {
			if s.refresh(m); !conditions.IsTrue(m, infrav1.ReadyCondition) {
				return errors.New(describe(m))
			}
			if dom, err := s.kvm("kvm1").Domain(uuidOf(m)); err != nil || dom.State != host.Running {
				return fmt.Errorf("the domain is %+v, %w", dom, err)
			}
		}
		return nil
	})
	// When it stops it is gone, and isn't made again from bootstrap data of the past.
	inside(t, lab, "kill -9 $(cat /run/libvirt/qemu/"+running.Status.Domain.Name+".pid)")
	s.expectCondition(running, infrav1.MachineDomainReadyCondition, metav1.ConditionFalse, infrav1.MachineDomainMissingReason, "is gone")
	if _, err := s.kvm("kvm1").Domain(uuidOf(running)); !errors.Is(err, host.ErrNotFound) {
		t.Errorf("There is a domain again: %v", err)
	}
	for _, m := range []*infrav1.LibvirtMachine{stopped, running, removed} {
		s.delete(m)
		s.expectGone(m)
		s.expectNoTraces(green, "kvm1", uuidOf(m))
	}
	expectEmpty(t, lab)
	if output := inside(t, lab, "virsh list --all --uuid"); strings.Contains(output, uuidOf(removed)) || strings.TrimSpace(output) != "" {
		t.Errorf("There are the domains %s", output)
	}
}
