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
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/domain"
)

// TestHostOutOfMemory takes the memory away that a host promised: a machine whose hypervisor was killed for want of it,
// as the kernel does, and one that is to be made can't start. Both do by themselves once there is memory again.
func TestHostOutOfMemory(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	lab := newLab(t)
	s.readyHost("kvm1", lab.URI())
	green := s.readyCluster("green", "10.20.0.0/27")
	large := func(p *machineParts) {
		emulated(p)
		p.libvirtMachine.Spec.Memory = resource.MustParse("6Gi")
	}
	killed := s.readyMachine("green", "killed", large)
	// Hypervisors inherit from the daemon how much address space they may have.
	limit := func(bytes string) {
		t.Helper()
		inside(t, lab, "prlimit --pid $(cat /run/libvirtd.pid) --as="+bytes)
	}
	limit("5368709120:unlimited")
	inside(t, lab, "kill -9 $(cat /run/libvirt/qemu/"+killed.Status.Domain.Name+".pid)")
	s.expectCondition(killed, infrav1.MachineDomainReadyCondition, metav1.ConditionFalse, infrav1.MachineDomainCrashedReason,
		"domain "+killed.Status.Domain.Name+" is not running", "started again by itself")
	late := s.createMachine("green", "late", large)
	tries := func() uint64 { return s.kvm("kvm1").Calls()["domainCreateWithFlags"] }
	for _, m := range []*infrav1.LibvirtMachine{late, killed} {
		s.expectCondition(m, infrav1.MachineDomainReadyCondition, metav1.ConditionFalse, infrav1.MachineStartFailedReason,
			"didn't start on host kvm1: ", "annot allocate memory")
	}
	// Each was started once, and late may have been once more.
	before := tries()
	staysSo(t, "nobody tries again and again", func() error {
		touch(s, killed)
		touch(s, late)
		if now := tries(); now > before+1 {
			return fmt.Errorf("there were %d tries, now there are %d", before, now)
		}
		return nil
	})
	if links := inside(t, lab, "ls /sys/class/net"); strings.Contains(links, "vnet") {
		t.Errorf("Interfaces of machines that don't run are left:\n%s", links)
	}
	expectFiles(t, lab, "images", imageVolume, domain.RootVolumeName(uuidOf(late)), domain.RootVolumeName(uuidOf(killed)))
	expectFiles(t, lab, infrav1.DefaultSeedPool, domain.SeedVolumeName(uuidOf(late)), domain.SeedVolumeName(uuidOf(killed)))
	if domains, reservations := s.kvm("kvm1").Domains(), s.reservations(green, "kvm1"); len(domains) != 2 || len(reservations) != 2 {
		t.Errorf("The two machines have the domains %+v and the addresses %v", domains, reservations)
	}

	limit("unlimited")
	for _, m := range []*infrav1.LibvirtMachine{late, killed} {
		s.expectReady(m)
		s.expectAllThere(green, m)
		s.delete(m)
		s.expectGone(m)
		s.expectNoTraces(green, "kvm1", uuidOf(m))
	}
	expectEmpty(t, lab)
}
