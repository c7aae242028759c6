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
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/hosttest"
)

func TestHostReportsWhatItHas(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	kvm1 := s.readyHost("kvm1", testDriver(t, hosttest.Memory(64), hosttest.CPUs(12)))

	status := kvm1.Status
	if got := ptr.Deref(status.Capacity.CPUs, 0); got != 12 {
		t.Errorf("got %d CPUs", got)
	}
	if got := status.Capacity.Memory; got == nil || got.String() != "64Gi" {
		t.Errorf("got %v of memory", got)
	}
	if status.Hostname == "" || status.Architecture == "" || len(status.DomainTypes) != 2 {
		t.Errorf("got %+v", status)
	}
	for _, version := range []string{status.LibvirtVersion, status.HypervisorVersion} {
		if strings.Count(version, ".") != 2 {
			t.Errorf("got the version %q", version)
		}
	}
	if got := status.Allocated.Memory; got == nil || !got.IsZero() || ptr.Deref(status.Machines, -1) != 0 {
		t.Errorf("got %v of %v machines on an empty host", got, status.Machines)
	}
	s.expectCondition(kvm1, infrav1.HostConnectedCondition, metav1.ConditionTrue, infrav1.HostConnectedReason)
	s.expectCondition(kvm1, infrav1.HostStorageReadyCondition, metav1.ConditionTrue, infrav1.HostStorageReadyReason)
	seeds, err := s.kvm("kvm1").StoragePool(t.Context(), infrav1.DefaultSeedPool)
	if err != nil || !seeds.Active {
		t.Errorf("The seed pool is %+v, %v", seeds, err)
	}

	s.delete(kvm1)
	s.expectGone(kvm1)
}

func TestHostStaysWhileItIsInUse(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	kvm1 := s.readyHost("kvm1", testDriver(t))
	libvirtCluster := s.readyCluster("green", "10.20.0.0/27")
	libvirtMachine := s.readyMachine("green", "green-a")

	s.delete(kvm1)
	s.expectCondition(kvm1, infrav1.DeletingCondition, metav1.ConditionTrue, infrav1.HostInUseReason, "1 LibvirtMachine", "green-a")
	s.expectCondition(kvm1, infrav1.ReadyCondition, metav1.ConditionFalse, infrav1.DeletingReason, "green-a")
	s.delete(libvirtMachine)
	s.expectGone(libvirtMachine)
	s.delete(libvirtCluster)
	s.expectGone(libvirtCluster)
	s.expectGone(kvm1)
}
