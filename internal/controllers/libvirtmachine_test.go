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
	"k8s.io/utils/ptr"
	"libvirt.org/go/libvirtxml"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/domain"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/host"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/hosttest"
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

func TestMachineWaitsForItsBootstrapData(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.readyHost("kvm1", testDriver(t))
	green := s.readyCluster("green", "10.20.0.0/27")

	early := s.createMachine("green", "early", func(p *machineParts) {
		p.secret, p.machine.Spec.Bootstrap = nil, clusterv1.Bootstrap{ConfigRef: clusterv1.ContractVersionedObjectReference{
			APIGroup: "bootstrap.cluster.x-k8s.io", Kind: "KubeadmConfig", Name: "early-config",
		}}
	})
	s.expectCondition(early, infrav1.MachineBootstrapDataReadyCondition, metav1.ConditionFalse,
		infrav1.MachineWaitingForBootstrapDataReason, "KubeadmConfig early-config")
	s.expectCondition(early, infrav1.MachinePlacedCondition, metav1.ConditionTrue, infrav1.MachinePlacedReason)
	s.expectCondition(early, infrav1.MachineDomainReadyCondition, metav1.ConditionUnknown, infrav1.NotYetReason)

	missing := s.createMachine("green", "missing", func(p *machineParts) { p.secret = nil })
	s.expectCondition(missing, infrav1.MachineBootstrapDataReadyCondition, metav1.ConditionFalse,
		infrav1.MachineBootstrapSecretNotFoundReason, "Secret missing of Machine.spec.bootstrap.dataSecretName doesn't exist")
	empty := s.createMachine("green", "empty", func(p *machineParts) { delete(p.secret.Data, "value") })
	s.expectCondition(empty, infrav1.MachineBootstrapDataReadyCondition, metav1.ConditionFalse,
		infrav1.MachineBootstrapSecretNotFoundReason, "Secret empty of Machine.spec.bootstrap.dataSecretName has no key named value")
	script := s.createMachine("green", "script", func(p *machineParts) { p.secret.Data["format"] = []byte("script") })
	s.expectCondition(script, infrav1.ReadyCondition, metav1.ConditionFalse,
		infrav1.MachineBootstrapFormatUnsupportedReason, "BootstrapDataReady: ", "script", "cloud-config")
	invalid := s.createMachine("green", "invalid", func(p *machineParts) { p.secret.Data["format"] = []byte("ignition") })
	s.expectCondition(invalid, infrav1.ReadyCondition, metav1.ConditionFalse,
		infrav1.MachineBootstrapDataInvalidReason, "BootstrapDataReady: ", "isn't an Ignition config", "spec.format")
	for _, m := range []*infrav1.LibvirtMachine{early, missing, empty, script, invalid} {
		s.expectNoTraces(green, "kvm1", uuidOf(m))
	}

	s.create(s.machineParts("green", "missing").secret)
	s.expectReady(missing)
	secret := s.machineParts("green", "early").secret
	s.create(secret)
	change(s, s.machine("early"), func(m *clusterv1.Machine) { m.Spec.Bootstrap.DataSecretName = ptr.To("early") })
	s.expectReady(early)
}

func TestMachineWaitsForItsCluster(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.readyHost("kvm1", testDriver(t))
	green := s.createCluster("green", "10.20.0.0/27")
	s.expectReady(green)
	m := s.createMachine("green", "green-a")
	s.expectCondition(m, infrav1.MachinePlacedCondition, metav1.ConditionFalse, infrav1.MachineClusterNotReadyReason, "LibvirtCluster")
	s.setInfrastructureProvisioned("green")
	s.expectReady(m)
}

func TestMachineSaysWhyNoHostFits(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.readyHost("kvm1", testDriver(t, hosttest.Memory(4)))
	s.readyHost("kvm2", testDriver(t, hosttest.Memory(8)), func(h *infrav1.LibvirtHost) { h.Spec.Reserved.Memory = ptr.To(resource.MustParse("5Gi")) })
	kvm3 := s.readyHost("kvm3", testDriver(t), func(h *infrav1.LibvirtHost) { h.Spec.Scheduling = infrav1.HostSchedulingDisabled })
	s.readyCluster("green", "10.20.0.0/27")

	large := s.createMachine("green", "large", memory("4Gi"))
	s.expectCondition(large, infrav1.MachinePlacedCondition, metav1.ConditionFalse, infrav1.MachineNoHostFitsReason,
		"kvm1: has 3072 MiB of memory free of 3072 MiB, needs 4096 MiB",
		"kvm2: has 3072 MiB of memory free of 3072 MiB, needs 4096 MiB",
		"kvm3: spec.scheduling is Disabled")
	elsewhere := s.createMachine("green", "elsewhere", func(p *machineParts) { p.machine.Spec.FailureDomain = "cellar" })
	s.expectCondition(elsewhere, infrav1.MachinePlacedCondition, metav1.ConditionFalse, infrav1.MachineNoHostFitsReason,
		"kvm1: is in failure domain kvm1, not cellar", "kvm2: is in failure domain kvm2, not cellar")
	pinned := s.createMachine("green", "pinned", func(p *machineParts) { p.libvirtMachine.Spec.HostName = "kvm9" })
	s.expectCondition(pinned, infrav1.MachinePlacedCondition, metav1.ConditionFalse, infrav1.MachineNoHostFitsReason,
		"kvm1: spec.hostName asks for kvm9")

	// None of them ever went to a host that it must not be on, and each goes on when it may.
	change(s, kvm3, func(h *infrav1.LibvirtHost) { h.Spec.Scheduling = infrav1.HostSchedulingEnabled })
	s.expectReady(large)
	if large.Spec.HostName != "kvm3" {
		t.Errorf("It is on %s", large.Spec.HostName)
	}
	s.delete(pinned)
	s.expectGone(pinned)
	if s.refresh(elsewhere); elsewhere.Spec.HostName != "" || elsewhere.Spec.ProviderID != "" {
		t.Errorf("It is on %s already", elsewhere.Spec.HostName)
	}
	change(s, kvm3, func(h *infrav1.LibvirtHost) { h.Spec.FailureDomain = "cellar" })
	s.expectReady(elsewhere)
	if elsewhere.Spec.HostName != "kvm3" || elsewhere.Status.FailureDomain != "cellar" {
		t.Errorf("It is on %s in failure domain %s", elsewhere.Spec.HostName, elsewhere.Status.FailureDomain)
	}
}

func TestMachineGetsTheMemoryThatAnotherGaveBack(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.readyHost("kvm1", testDriver(t, hosttest.Memory(4)))
	s.readyCluster("green", "10.20.0.0/27")
	first := s.readyMachine("green", "first", memory("2Gi"))
	second := s.createMachine("green", "second", memory("2Gi"))
	s.expectCondition(second, infrav1.MachinePlacedCondition, metav1.ConditionFalse, infrav1.MachineNoHostFitsReason,
		"kvm1: has 1024 MiB of memory free of 3072 MiB, needs 2048 MiB")
	s.delete(first)
	s.expectReady(second)
}

// TestMemoryOfAMachineThatCameAndWent makes one machine after the other, and nothing is placed meanwhile.
func TestMemoryOfAMachineThatCameAndWent(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.readyHost("kvm1", testDriver(t, hosttest.Memory(4)))
	s.readyCluster("green", "10.20.0.0/27")
	for _, name := range []string{"first", "second"} {
		m := s.readyMachine("green", name, memory("2Gi"))
		s.delete(m)
		s.expectGone(m)
	}
}

func memory(size string) func(*machineParts) {
	return func(p *machineParts) { p.libvirtMachine.Spec.Memory = resource.MustParse(size) }
}

func TestMachineNeedsAFittingImage(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.readyHost("kvm1", testDriver(t, hosttest.Volume("default", "large-image", "raw", 5<<30)))
	green := s.readyCluster("green", "10.20.0.0/27")

	missing := s.createMachine("green", "missing", func(p *machineParts) { p.libvirtMachine.Spec.Image.Volume = "other-image" })
	s.expectCondition(missing, infrav1.MachineImageReadyCondition, metav1.ConditionFalse, infrav1.MachineImageNotFoundReason,
		"spec.image.volume: storage pool default of host kvm1 has no volume other-image")
	small := s.createMachine("green", "small", func(p *machineParts) { p.libvirtMachine.Spec.Image.Volume = "large-image" })
	s.expectCondition(small, infrav1.ReadyCondition, metav1.ConditionFalse, infrav1.MachineImageRefusedReason,
		"spec.rootDisk.size is 2048 MiB and the image needs 5120 MiB", "larger root disk")

	must(t, s.kvm("kvm1").CreateVolume(t.Context(), "default",
		`<volume><name>other-image</name><capacity unit="MiB">64</capacity><target><format type="raw"/></target></volume>`))
	touch(s, missing)
	s.expectReady(missing)
	s.delete(small)
	s.expectGone(small)
	s.expectNoTraces(green, "kvm1", uuidOf(small))
}

func TestMachineNeedsAnAddress(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.readyHost("kvm1", testDriver(t))
	green := s.readyCluster("green", "10.20.0.0/29")
	var first *infrav1.LibvirtMachine
	for _, name := range []string{"a", "b", "c"} {
		first = s.readyMachine("green", name)
	}
	last := s.createMachine("green", "d")
	s.expectCondition(last, infrav1.MachineDomainReadyCondition, metav1.ConditionFalse, infrav1.MachineAddressesExhaustedReason,
		"every node address is taken: 3 of 3 in 10.20.0.4-10.20.0.6", "larger spec.network.cidr")
	s.expectNoTraces(green, "kvm1", uuidOf(last))
	s.settles(last)

	s.delete(first)
	s.expectGone(first)
	s.expectWoken(last)
	if got, want := internalIP(last), internalIP(first); got != want {
		t.Errorf("It has %s and not %s, which was given back", got, want)
	}
}

// TestMachinesMadeAtOnce makes as many machines at once as two hosts have memory for.
func TestMachinesMadeAtOnce(t *testing.T) {
	t.Parallel()
	const count = 20
	s := newScene(t)
	s.readyHost("kvm1", testDriver(t, hosttest.Memory(16)))
	s.readyHost("kvm2", testDriver(t, hosttest.Memory(16)))
	s.readyCluster("green", "10.20.0.0/27")
	var machines []*infrav1.LibvirtMachine
	for k := range count {
		machines = append(machines, s.createMachine("green", fmt.Sprintf("green-%d", k), memory("1536Mi")))
	}
	addresses, perHost := map[string]string{}, map[string]int{}
	for _, m := range machines {
		s.expectReady(m)
		ip := internalIP(m)
		if other, taken := addresses[ip]; taken || ip == "" {
			t.Errorf("%s and %s both have the address %q", m.Name, other, ip)
		}
		addresses[ip] = m.Name
		perHost[m.Spec.HostName]++
	}
	if perHost["kvm1"] != count/2 || perHost["kvm2"] != count/2 {
		t.Errorf("The hosts have %v machines", perHost)
	}
	for _, hostName := range []string{"kvm1", "kvm2"} {
		var promised int64
		for _, dom := range s.kvm(hostName).Domains() {
			promised += dom.MaxMemoryBytes
		}
		if promised != 15<<30 {
			t.Errorf("%s has promised %d MiB of 15360 MiB", hostName, promised>>20)
		}
	}
	late := s.createMachine("green", "late")
	s.expectCondition(late, infrav1.MachinePlacedCondition, metav1.ConditionFalse, infrav1.MachineNoHostFitsReason,
		"kvm1: has 0 MiB", "kvm2: has 0 MiB")
}

func TestMachineIsLeftAloneWhilePaused(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.readyHost("kvm1", testDriver(t))
	green := s.readyCluster("green", "10.20.0.0/27")
	running := s.readyMachine("green", "running")
	uuid := uuidOf(running)

	setPaused := func(paused bool) {
		change(s, s.cluster("green"), func(c *clusterv1.Cluster) { c.Spec.Paused = ptr.To(paused) })
	}
	setPaused(true)
	s.expectCondition(green, clusterv1.PausedCondition, metav1.ConditionTrue, clusterv1.PausedReason)
	s.expectCondition(running, clusterv1.PausedCondition, metav1.ConditionTrue, clusterv1.PausedReason)
	waiting := s.createMachine("green", "waiting")
	s.expectCondition(waiting, clusterv1.PausedCondition, metav1.ConditionTrue, clusterv1.PausedReason)
	s.delete(running)
	must(t, s.kvm("kvm1").DestroyDomain(t.Context(), uuid))
	staysSo(t, "nothing is made, started or removed", func() error {
		s.refresh(waiting)
		if waiting.Spec.ProviderID != "" || len(s.kvm("kvm1").Domains()) != 1 {
			return fmt.Errorf("it has %s, the domains are %v", waiting.Spec.ProviderID, s.kvm("kvm1").Domains())
		}
		if dom, err := s.kvm("kvm1").Domain(uuid); err != nil || dom.State != host.Shutoff {
			return fmt.Errorf("the domain is %+v, %w", dom, err)
		}
		return nil
	})
	setPaused(false)
	s.expectReady(waiting)
	s.expectGone(running)
	s.expectNoTraces(green, "kvm1", uuid)

	change(s, waiting, func(m *infrav1.LibvirtMachine) { setAnnotation(m, clusterv1.PausedAnnotation, "") })
	s.expectCondition(waiting, clusterv1.PausedCondition, metav1.ConditionTrue, clusterv1.PausedReason, "annotation")
	s.delete(waiting)
	staysSo(t, "the domain runs", func() error {
		if dom, err := s.kvm("kvm1").Domain(uuidOf(waiting)); err != nil || dom.State != host.Running {
			return fmt.Errorf("the domain is %+v, %w", dom, err)
		}
		return nil
	})
	change(s, waiting, func(m *infrav1.LibvirtMachine) { delete(m.Annotations, clusterv1.PausedAnnotation) })
	s.expectGone(waiting)
}
