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
	"libvirt.org/go/libvirtxml"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/domain"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/network"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/owner"
)

func TestMachineIsMadeAndRemoved(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.readyHost("kvm1", testDriver(t))
	green := s.readyCluster("green", "10.20.0.0/27")
	m := s.readyMachine("green", "green-a")

	for _, condition := range []struct{ conditionType, reason string }{
		{infrav1.MachinePlacedCondition, infrav1.MachinePlacedReason},
		{infrav1.MachineImageReadyCondition, infrav1.MachineImageReadyReason},
		{infrav1.MachineBootstrapDataReadyCondition, infrav1.MachineBootstrapDataReadyReason},
		{infrav1.MachineDomainReadyCondition, infrav1.MachineDomainRunningReason},
	} {
		s.expectCondition(m, condition.conditionType, metav1.ConditionTrue, condition.reason)
	}
	uuid := uuidOf(m)
	if m.Spec.ProviderID != "libvirt:///"+string(m.UID) || m.Spec.HostName != "kvm1" || m.Status.FailureDomain != "kvm1" {
		t.Errorf("got providerID %s, host %s, failure domain %s", m.Spec.ProviderID, m.Spec.HostName, m.Status.FailureDomain)
	}
	if !ptr.Deref(m.Status.Initialization.Provisioned, false) {
		t.Error("It isn't provisioned")
	}
	if m.Status.Domain.Name != s.namespace+".green-a" || m.Status.Domain.State != "Running" {
		t.Errorf("The domain is %+v", m.Status.Domain)
	}
	for _, want := range []clusterv1.MachineAddress{
		{Type: clusterv1.MachineInternalIP, Address: "10.20.0.10"},
		{Type: clusterv1.MachineHostName, Address: "green-a"},
		{Type: clusterv1.MachineInternalDNS, Address: "green-a"},
	} {
		if !contains(m.Status.Addresses, want) {
			t.Errorf("%v lack %v", m.Status.Addresses, want)
		}
	}
	s.expectAllThere(green, m)

	document, err := s.kvm("kvm1").DomainXML(t.Context(), uuid)
	if err != nil {
		t.Fatal(err)
	}
	if by, _ := owner.Of(document); by != (owner.Owner{Kind: "LibvirtMachine", Namespace: s.namespace, Name: "green-a", Cluster: "green"}) {
		t.Errorf("The domain belongs to %s", by)
	}
	dom := parse[libvirtxml.Domain](t, document)
	if dom.Memory.Value != 1<<20 || dom.VCPU.Value != 2 || dom.Type != "kvm" {
		t.Errorf("The domain is\n%s", document)
	}
	nic := dom.Devices.Interfaces[0]
	if nic.MAC.Address != network.MAC(uuid) || nic.Source.Network.Network != s.namespace+".green" {
		t.Errorf("The interface is %+v", nic)
	}
	root, err := s.kvm("kvm1").Volume(t.Context(), "default", domain.RootVolumeName(uuid))
	if err != nil || root.CapacityBytes != 2<<30 || root.BackingPath != "/pools/default/"+imageVolume || root.Format != "qcow2" {
		t.Errorf("The root disk is %+v, %v", root, err)
	}
	seed := uploaded.of(domain.SeedVolumeName(uuid))
	for _, text := range []string{userData, uuid, "green-a", network.MAC(uuid)} {
		if !strings.Contains(seed, text) {
			t.Errorf("The bootstrap data lacks %q", text)
		}
	}

	s.delete(m)
	s.expectGone(m)
	s.expectNoTraces(green, "kvm1", uuid)
}

func contains(addresses []clusterv1.MachineAddress, want clusterv1.MachineAddress) bool {
	for _, address := range addresses {
		if address == want {
			return true
		}
	}
	return false
}
