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
	"os"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/domain"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/host"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/hosttest"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/placement"
)

// spec edits the spec of a LibvirtMachine.
func spec(edit func(*infrav1.LibvirtMachineSpec)) func(*machineParts) {
	return func(p *machineParts) { edit(&p.libvirtMachine.Spec) }
}

// TestDevicesAreGivenOut has machines ask for the devices that a host offers: none gets one that another has.
func TestDevicesAreGivenOut(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	kvm1 := s.readyHost("kvm1", testDriver(t, hosttest.PCIDevice(1, "10de", "20b5"), hosttest.PCIDevice(2, "10de", "20b5"),
		hosttest.PCIDevice(3, "15b3", "1017")))
	s.readyCluster("green", "10.20.0.0/27")
	gpu := spec(func(m *infrav1.LibvirtMachineSpec) {
		m.PCIDevices = []infrav1.PCIDeviceRequest{{Vendor: "10de", Device: "20b5"}}
	})
	first := s.createMachine("green", "first", gpu)
	s.expectCondition(first, infrav1.MachinePlacedCondition, metav1.ConditionFalse, infrav1.MachineNoHostFitsReason,
		"kvm1: has 0 PCI devices 10de:20b5 free of 0, needs 1")

	// Somebody's own domain has one of them.
	foreign := strings.Replace(foreignDomain("win11", foreignUUID), "</domain>",
		`<devices><hostdev mode="subsystem" type="pci" managed="yes"><source><address domain="0" bus="1" slot="1" function="0"/></source></hostdev></devices></domain>`, 1)
	must(t, s.kvm("kvm1").DefineDomain(t.Context(), foreign))
	change(s, kvm1, func(h *infrav1.LibvirtHost) {
		h.Spec.PCIDevices = []infrav1.PCIDeviceOffer{{Vendor: "10de", Device: "20b5"}}
	})
	s.expectReady(first)
	if !slices.Equal(first.Spec.PCIAddresses, []string{"0000:01:02.0"}) {
		t.Errorf("It has %v", first.Spec.PCIAddresses)
	}
	definition, err := s.kvm("kvm1").DomainXML(t.Context(), uuidOf(first))
	must(t, err)
	if got, err := domain.PCIAddresses(definition); err != nil || !slices.Equal(got, first.Spec.PCIAddresses) {
		t.Errorf("Its domain has %v, %v", got, err)
	}
	want := []infrav1.HostPCIDevice{
		{Address: "0000:01:01.0", Vendor: "10de", Device: "20b5", Domain: "win11"},
		{Address: "0000:01:02.0", Vendor: "10de", Device: "20b5", Machine: "first"},
	}
	eventually(t, "the host reports who has what", func() error {
		s.refresh(kvm1)
		if !slices.Equal(kvm1.Status.PCIDevices, want) {
			return fmt.Errorf("it reports %+v", kvm1.Status.PCIDevices)
		}
		return nil
	})

	second := s.createMachine("green", "second", gpu)
	s.expectCondition(second, infrav1.MachinePlacedCondition, metav1.ConditionFalse, infrav1.MachineNoHostFitsReason,
		"kvm1: has 0 PCI devices 10de:20b5 free of 2, needs 1")
	card := s.createMachine("green", "card", spec(func(m *infrav1.LibvirtMachineSpec) {
		m.PCIDevices = []infrav1.PCIDeviceRequest{{Address: "0000:01:03.0"}}
	}))
	s.expectCondition(card, infrav1.MachinePlacedCondition, metav1.ConditionFalse, infrav1.MachineNoHostFitsReason,
		"kvm1: doesn't offer a PCI device 0000:01:03.0 (spec.pciDevices of the LibvirtHost)")
	s.delete(first)
	s.expectGone(first)
	s.expectReady(second)
	if !slices.Equal(second.Spec.PCIAddresses, []string{"0000:01:02.0"}) {
		t.Errorf("The next one has %v", second.Spec.PCIAddresses)
	}

	// Whoever writes the choice of the provider by hand gets no further.
	forged := s.createMachine("green", "forged", func(p *machineParts) { setAnnotation(p.libvirtMachine, clusterv1.PausedAnnotation, "") })
	change(s, forged, func(m *infrav1.LibvirtMachine) {
		m.Spec.HostName, m.Spec.ProviderID, m.Spec.PCIAddresses = "kvm1", domain.ProviderID(string(m.UID)), []string{"0000:01:03.0"}
		delete(m.Annotations, clusterv1.PausedAnnotation)
	})
	s.expectCondition(forged, infrav1.MachineDomainReadyCondition, metav1.ConditionFalse, infrav1.MachineDeviceNotOfferedReason,
		"host kvm1 doesn't offer the PCI device 0000:01:03.0 of spec.pciAddresses: add it to spec.pciDevices of the LibvirtHost, or delete the Machine")
	if _, err := s.kvm("kvm1").Domain(uuidOf(forged)); err == nil {
		t.Error("It has a domain")
	}
}

// TestHardwareThatNoHostHas has the refusals say what is lacking.
func TestHardwareThatNoHostHas(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.readyHost("kvm1", testDriver(t))
	s.readyCluster("green", "10.20.0.0/27")
	for name, tt := range map[string]struct {
		edit func(*infrav1.LibvirtMachineSpec)
		want string
	}{
		"pages":  {func(m *infrav1.LibvirtMachineSpec) { m.HugePages.PageSize = "2Mi" }, "has 0 MiB of huge pages of 2048 KiB free of 0 MiB, needs 1024 MiB"},
		"cpu":    {func(m *infrav1.LibvirtMachineSpec) { m.CPUPinning.Emulator = "0,16-512" }, "has no CPU 512, which spec.cpuPinning names: it has 0 to "},
		"memory": {func(m *infrav1.LibvirtMachineSpec) { m.NUMA.HostNodes = "0-7" }, "reports no NUMA nodes, and spec.numa names node 7"},
	} {
		m := s.createMachine("green", name, spec(tt.edit))
		s.expectCondition(m, infrav1.MachinePlacedCondition, metav1.ConditionFalse, infrav1.MachineNoHostFitsReason, "kvm1: "+tt.want)
	}
}

// TestHardwareOnARealHost has QEMU start what this machine has, and leave nothing of it behind.
func TestHardwareOnARealHost(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	lab := newLab(t)
	s.readyHost("kvm1", lab.URI())
	green := s.readyCluster("green", "10.20.0.0/27")
	secure := s.createMachine("green", "secure", emulated, spec(func(m *infrav1.LibvirtMachineSpec) {
		m.Firmware, m.TPM.Type = infrav1.FirmwareSecureBoot, infrav1.TPMTypeEmulated
		m.Watchdog.Action, m.SerialConsole.Log = infrav1.WatchdogPowerOff, infrav1.ConsoleLogDisabled
	}))
	tied := s.createMachine("green", "tied", emulated, spec(func(m *infrav1.LibvirtMachineSpec) {
		m.VCPUs, m.Firmware = 2, infrav1.FirmwareUEFI
		m.CPU = infrav1.CPU{
			Mode: infrav1.CPUModeCustom, Model: "qemu64", Topology: infrav1.CPUTopology{Cores: 2},
			Features: []infrav1.CPUFeature{{Name: "ssse3"}, {Name: "hypervisor", Policy: infrav1.CPUFeatureDisable}},
		}
		m.CPUPinning = infrav1.CPUPinning{VCPUs: []infrav1.VCPUPin{{VCPU: ptr.To[int32](1), HostCPUs: "0"}}, Emulator: "0"}
		m.NUMA.HostNodes = "0"
	}))
	for m, want := range map[*infrav1.LibvirtMachine][]string{
		secure: {"OVMF_CODE_4M.ms.fd", "secure='yes'", "_VARS.fd</nvram>", "<tpm model='tpm-crb'>", "action='poweroff'"},
		tied:   {"OVMF_CODE_4M.fd", "<vcpupin vcpu='1' cpuset='0'/>", "<emulatorpin cpuset='0'/>", "<memory mode='strict' nodeset='0'/>", "qemu64</model>", "cores='2'"},
	} {
		s.expectReady(m)
		live := inside(t, lab, "virsh dumpxml "+uuidOf(m))
		for _, text := range want {
			if !strings.Contains(live, text) {
				t.Errorf("The domain of %s lacks %s:\n%s", m.Name, text, live)
			}
		}
	}
	if _, err := os.Stat(lab.Path("/var/log/libvirt/qemu/" + secure.Status.Domain.Name + "-console.log")); !os.IsNotExist(err) {
		t.Errorf("There is a log of a console that was to have none: %v", err)
	}
	state := func() string {
		return inside(t, lab, "find /var/lib/libvirt/qemu/nvram /var/lib/libvirt/swtpm -type f")
	}
	if found := state(); strings.Count(found, "_VARS.fd") != 2 || !strings.Contains(found, uuidOf(secure)) {
		t.Errorf("The state of firmware and TPM is\n%s", found)
	}

	// Neither restarts nor deletion forget it.
	inside(t, lab, "virsh destroy "+uuidOf(secure))
	s.expectCondition(secure, infrav1.MachineDomainReadyCondition, metav1.ConditionTrue, infrav1.MachineDomainRunningReason, "started again once")
	for _, m := range []*infrav1.LibvirtMachine{secure, tied} {
		s.delete(m)
		s.expectGone(m)
		s.expectNoTraces(green, "kvm1", uuidOf(m))
	}
	if found := state(); found != "" {
		t.Errorf("State of firmware and TPM is left:\n%s", found)
	}

	// What isn't there is told in libvirt's words.
	invariant := s.createMachine("green", "invariant", emulated, spec(func(m *infrav1.LibvirtMachineSpec) {
		m.CPU = infrav1.CPU{Mode: infrav1.CPUModeMaximum, Features: []infrav1.CPUFeature{{Name: "invtsc"}}}
	}))
	s.expectCondition(invariant, infrav1.MachineDomainReadyCondition, metav1.ConditionFalse, infrav1.MachineStartFailedReason, "invariant TSC")
}

func TestHugePagesAreCounted(t *testing.T) {
	const size, mib = 2 << 20, 1 << 20
	machine := func(uuid, memory, pages string) infrav1.LibvirtMachine {
		return infrav1.LibvirtMachine{Spec: infrav1.LibvirtMachineSpec{
			ProviderID: domain.ProviderID(uuid), VCPUs: 1, Memory: resource.MustParse(memory), HugePages: infrav1.HugePages{PageSize: pages},
		}}
	}
	const running, coming, plain = foreignUUID, "5e0f7f4e-6f8c-4b4e-9d0c-000000000002", "5e0f7f4e-6f8c-4b4e-9d0c-000000000003"
	machines := []infrav1.LibvirtMachine{machine(running, "1Gi", "2Mi"), machine(coming, "512Mi", "2Mi"), machine(plain, "2Gi", "")}
	domains := []host.Domain{
		{UUID: running, State: host.Running, MaxMemoryBytes: 1024 * mib, VCPUs: 1},
		{UUID: plain, State: host.Running, MaxMemoryBytes: 2048 * mib, VCPUs: 1},
	}
	// Of the 3 GiB that are taken a machine of ours has one.
	foreign := foreignPages([]host.HugePages{{PageBytes: size, TotalBytes: 8192 * mib, FreeBytes: 5120 * mib}}, domains, machines)
	if foreign[size] != 2048*mib {
		t.Errorf("Others have %d MiB", foreign[size]/mib)
	}
	used := promisedOn(domains, machines)
	if used.memory != 2048*mib || used.hugePages[size] != 1536*mib || used.vcpus != 3 {
		t.Errorf("Promised is %+v", used)
	}
	h := &infrav1.LibvirtHost{}
	reportHardware(&h.Status, survey{
		facts: host.Facts{HugePages: []host.HugePages{{PageBytes: size, TotalBytes: 8192 * mib}}}, foreignPages: foreign,
	}, machines, used)
	rooms, inStore := hugePageRooms(h, used)
	want := placement.Room{Resource: placement.HugePages(size), Capacity: 6144 * mib, Promised: 1536 * mib}
	if inStore != 8192*mib || len(rooms) != 1 || rooms[0] != want {
		t.Errorf("Of %d MiB in store there is room %+v, want %+v", inStore/mib, rooms, want)
	}
}
