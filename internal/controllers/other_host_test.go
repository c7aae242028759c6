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

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/lab/privatehost"
)

// virsh runs commands of virsh inside a private host.
func virsh(t *testing.T, lab *privatehost.Host, commands string) string {
	t.Helper()
	output, err := lab.Inside(t.Context(), "sh", "-c", commands).CombinedOutput()
	if err != nil {
		t.Fatalf("Running %q inside the host: %v: %s", commands, err, output)
	}
	return string(output)
}

// TestOtherHost changes a host's URI to that of another host: its machines don't seem to be gone, and nothing happens there.
func TestOtherHost(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	lab, other := newLab(t), newLab(t)
	kvm1 := s.readyHost("kvm1", lab.URI())
	green := s.readyCluster("green", "10.20.0.0/27")
	one, two := s.readyMachine("green", "one", emulated), s.readyMachine("green", "two", emulated)
	if s.refresh(kvm1); kvm1.Status.HostUUID == "" {
		t.Fatal("The host has no UUID")
	}
	lead := func(uri string) { change(s, kvm1, func(h *infrav1.LibvirtHost) { h.Spec.URI = uri }) }

	lead(other.URI())
	s.expectCondition(kvm1, infrav1.ReadyCondition, metav1.ConditionFalse, infrav1.HostOtherHostReason,
		"another host answers", kvm1.Status.HostUUID, "correct spec.uri", "status.hostUUID")
	s.expectCondition(two, infrav1.ReadyCondition, metav1.ConditionUnknown, infrav1.HostUnreachableReason)
	s.delete(one)
	s.expectCondition(one, infrav1.DeletingCondition, metav1.ConditionTrue, infrav1.HostUnreachableReason)
	staysSo(t, "the machine isn't taken for gone", func() error {
		return api.Get(t.Context(), client.ObjectKeyFromObject(one), one)
	})
	if found := strings.TrimSpace(virsh(t, other, "virsh list --all --name; virsh net-list --all --name")); found != "" {
		t.Errorf("on the other host there is now: %s", found)
	}

	lead(lab.URI())
	s.expectGone(one)
	s.expectNoTraces(green, "kvm1", uuidOf(one))
	s.expectReady(two)

	// The host was replaced: whoever says so has its machines counted as missing.
	lead(other.URI())
	s.expectCondition(kvm1, infrav1.ReadyCondition, metav1.ConditionFalse, infrav1.HostOtherHostReason)
	changeStatus(s, kvm1, func(h *infrav1.LibvirtHost) { h.Status.HostUUID = "" })
	s.expectCondition(two, infrav1.ReadyCondition, metav1.ConditionFalse, infrav1.MachineDomainMissingReason)
}

// TestPoolRemoved has somebody remove the pool of a machine's disk, which isn't gone with it.
func TestPoolRemoved(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	lab := newLab(t)
	s.readyHost("kvm1", lab.URI())
	green := s.readyCluster("green", "10.20.0.0/27")
	m := s.readyMachine("green", "green-a", emulated)
	virsh(t, lab, "virsh pool-destroy default && virsh pool-undefine default")
	s.delete(m)
	s.expectCondition(m, infrav1.DeletingCondition, metav1.ConditionTrue, infrav1.MachineStoragePoolNotFoundReason,
		"removing the root disk: storage pool default doesn't exist on the host", "virsh pool-define-as default")
	virsh(t, lab, "virsh pool-define-as default dir --target /var/lib/libvirt/images") // and it is started by itself
	s.expectGone(m)
	s.expectNoTraces(green, "kvm1", uuidOf(m))
	if kept := fmt.Sprint(imagesIn(t, lab)); kept != "["+imageVolume+"]" {
		t.Errorf("left in the pool: %s", kept)
	}
}
