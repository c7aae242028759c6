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
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"libvirt.org/go/libvirtxml"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/domain"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/host"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/hosttest"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/placement"
)

// withDisks gives a machine data disks.
func withDisks(disks ...infrav1.DataDisk) func(*machineParts) {
	return func(p *machineParts) { p.libvirtMachine.Spec.DataDisks = disks }
}

func dataDisk(name, size string, edits ...func(*infrav1.DataDisk)) infrav1.DataDisk {
	disk := infrav1.DataDisk{Name: name, Size: resource.MustParse(size)}
	for _, edit := range edits {
		edit(&disk)
	}
	return disk
}

func retained(d *infrav1.DataDisk) { d.ReclaimPolicy = infrav1.DiskReclaimPolicyRetain }

func onPool(pool string) func(*infrav1.DataDisk) {
	return func(d *infrav1.DataDisk) { d.Pool = pool }
}

// dbMachine makes a machine one of the MachineDeployment db, with a disk that is retained.
func dbMachine(p *machineParts) {
	of("db")(p)
	withDisks(dataDisk("brick", "1Gi", retained))(p)
}

// removeMachine removes a machine as Cluster API does: the LibvirtMachine, and then the Machine.
func (s *scene) removeMachine(m *infrav1.LibvirtMachine) {
	s.t.Helper()
	s.delete(m)
	s.expectGone(m)
	s.delete(s.machine(m.Name))
}

// brick is the volume with the retained disk of a machine of dbMachine.
func brick(m *infrav1.LibvirtMachine) string { return slotOf(m).VolumeName("brick") }

func slotNumber(m *infrav1.LibvirtMachine) int { return int(ptr.Deref(m.Spec.Slot.Number, -1)) }

// expectRetained waits until a host lists one retained disk with its machine.
func (s *scene) expectRetained(h *infrav1.LibvirtHost, volume, machine string) {
	s.t.Helper()
	eventually(s.t, fmt.Sprintf("host %s lists %s for %q", h.Name, volume, machine), func() error {
		s.refresh(h)
		disks := h.Status.RetainedDisks
		if len(disks) != 1 || disks[0].Volume != volume || disks[0].Machine != machine || disks[0].Pool != "default" || disks[0].Capacity.String() != "1Gi" {
			return fmt.Errorf("it lists %+v", disks)
		}
		return nil
	})
}

// TestDataDisksComeAndGoWithTheirMachine has disks in two pools.
func TestDataDisksComeAndGoWithTheirMachine(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	kvm1 := s.readyHost("kvm1", testDriver(t, hosttest.Pool("ssd")), func(h *infrav1.LibvirtHost) { h.Spec.Storage.ExtraDiskPools = []string{"ssd"} })
	green := s.readyCluster("green", "10.20.0.0/27")
	m := s.readyMachine("green", "green-a", func(p *machineParts) { p.libvirtMachine.Spec.RootDisk.Pool = "ssd" },
		withDisks(dataDisk("scratch", "3Gi"), dataDisk("fast", "5Gi", onPool("ssd"))))
	kvm, uuid := s.kvm("kvm1"), uuidOf(m)
	if m.Spec.Slot.Set != "" {
		t.Errorf("It has the slot %+v though nothing is retained", m.Spec.Slot)
	}
	volumes := map[string]string{
		domain.RootVolumeName(uuid): "ssd", domain.DataVolumeName(uuid, "scratch"): "default", domain.DataVolumeName(uuid, "fast"): "ssd",
	}
	for name, pool := range volumes {
		if _, err := kvm.Volume(t.Context(), pool, name); err != nil {
			t.Error(err)
		}
	}
	document, err := kvm.DomainXML(t.Context(), uuid)
	must(t, err)
	var paths []string
	for _, disk := range parse[libvirtxml.Domain](t, document).Devices.Disks {
		paths = append(paths, disk.Target.Dev+" "+disk.Serial+" "+disk.Source.File.File)
	}
	slices.Sort(paths)
	want := []string{
		"sda  /var/lib/libvirt/capi-seeds/" + domain.SeedVolumeName(uuid), "vda root /pools/ssd/" + domain.RootVolumeName(uuid),
		"vdb scratch /pools/default/" + domain.DataVolumeName(uuid, "scratch"), "vdc fast /pools/ssd/" + domain.DataVolumeName(uuid, "fast"),
	}
	if !slices.Equal(paths, want) {
		t.Errorf("The disks are %v, want %v", paths, want)
	}
	eventually(t, "the host reports what was promised of its pools", func() error {
		s.refresh(kvm1)
		disks, ssd := poolStatus(kvm1, "default"), poolStatus(kvm1, "ssd")
		if disks == nil || ssd == nil || disks.Allocated.String() != "3Gi" || ssd.Allocated.String() != "7Gi" {
			return fmt.Errorf("it reports %+v", kvm1.Status.Storage)
		}
		return nil
	})

	// They are found again without the domain, whose mark is on nothing else.
	must(t, kvm.DestroyDomain(t.Context(), uuid))
	must(t, kvm.UndefineDomain(t.Context(), uuid))
	s.delete(m)
	s.expectGone(m)
	s.expectNoTraces(green, "kvm1", uuid)
	for name, pool := range volumes {
		if _, err := kvm.Volume(t.Context(), pool, name); !errors.Is(err, host.ErrNotFound) {
			t.Errorf("The volume %s is still there: %v", name, err)
		}
	}
}

// TestSpaceOfAllDisksIsCheckedFirst has machines ask for more than there is, pool by pool.
func TestSpaceOfAllDisksIsCheckedFirst(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	kvm1 := s.readyHost("kvm1", testDriver(t, hosttest.Pool("ssd"), hosttest.Pool("tape")), func(h *infrav1.LibvirtHost) { h.Spec.Storage.ExtraDiskPools = []string{"ssd"} })
	green := s.readyCluster("green", "10.20.0.0/27")
	machines := map[string]*infrav1.LibvirtMachine{}
	for name, tt := range map[string]struct {
		disks []infrav1.DataDisk
		want  string
	}{
		"together": {[]infrav1.DataDisk{dataDisk("a", "44Gi"), dataDisk("b", "45Gi")},
			"kvm1: has 92160 MiB of the disk pool left to promise of 92160 MiB, needs 93184 MiB"},
		"extra":   {[]infrav1.DataDisk{dataDisk("a", "101Gi", onPool("ssd"))}, "kvm1: has 102400 MiB of storage pool ssd left to promise of 102400 MiB, needs 103424 MiB"},
		"missing": {[]infrav1.DataDisk{dataDisk("a", "1Gi", onPool("tape"))}, "kvm1: has no storage pool tape among spec.storage.extraDiskPools"},
	} {
		m := s.createMachine("green", name, withDisks(tt.disks...))
		s.expectCondition(m, infrav1.MachinePlacedCondition, metav1.ConditionFalse, infrav1.MachineNoHostFitsReason, tt.want)
		s.expectNoTraces(green, "kvm1", string(m.UID))
		machines[name] = m
	}
	names, err := s.kvm("kvm1").VolumeNames(t.Context(), "default")
	if err != nil || !slices.Equal(names, []string{imageVolume}) {
		t.Errorf("The disk pool has %v, %v", names, err)
	}
	change(s, kvm1, func(h *infrav1.LibvirtHost) { h.Spec.Storage.ExtraDiskPools = []string{"ssd", "tape"} })
	s.expectReady(machines["missing"])
}

// TestRetainedDiskIsFoundByTheNextMachine replaces a machine.
func TestRetainedDiskIsFoundByTheNextMachine(t *testing.T) {
	t.Parallel()
	s := newOrphanScene(t)
	// The other host is the freer one by far.
	kvm1 := s.readyHost("kvm1", testDriver(t, hosttest.Memory(4)))
	green := s.readyCluster("green", "10.20.0.0/27")
	first := s.readyMachine("green", "db-abc", dbMachine)
	if first.Spec.Slot.Set != "MachineDeployment/db" || slotNumber(first) != 0 {
		t.Errorf("It has the slot %+v", first.Spec.Slot)
	}
	s.expectRetained(kvm1, brick(first), "db-abc")
	kvm2 := s.readyHost("kvm2", testDriver(t, hosttest.Memory(64)))
	eventually(t, "the cluster uses both hosts", func() error {
		if s.refresh(green); len(green.Status.Hosts) != 2 {
			return fmt.Errorf("it uses %v", green.Status.Hosts)
		}
		return nil
	})
	other := s.readyMachine("green", "web-abc", of("web"), withDisks(dataDisk("brick", "1Gi", retained)))

	s.removeMachine(first)
	s.expectRetained(kvm1, brick(first), "")
	s.expectNoTraces(green, "kvm1", uuidOf(first))
	second := s.readyMachine("green", "db-def", dbMachine)
	if second.Spec.Slot.Set != first.Spec.Slot.Set || slotNumber(second) != 0 || second.Spec.HostName != "kvm1" || uuidOf(second) == uuidOf(first) {
		t.Errorf("It has the slot %+v on %s", second.Spec.Slot, second.Spec.HostName)
	}
	for _, want := range []clusterv1.MachineAddress{{Type: clusterv1.MachineHostName, Address: "db-0"}, {Type: clusterv1.MachineInternalDNS, Address: "db-0"}} {
		if !contains(second.Status.Addresses, want) {
			t.Errorf("%v lack %v", second.Status.Addresses, want)
		}
	}
	if seed := uploaded.of(domain.SeedVolumeName(uuidOf(second))); !strings.Contains(seed, "local-hostname: db-0\n") {
		t.Errorf("The guest isn't called db-0")
	}
	s.expectRetained(kvm1, brick(second), "db-def")
	s.expectRetained(kvm2, brick(other), "web-abc")

	// It outlives its cluster, and it is no orphan.
	for _, m := range []*infrav1.LibvirtMachine{second, other} {
		s.removeMachine(m)
	}
	s.delete(green)
	s.expectGone(green)
	s.delete(s.cluster("green"))
	staysSo(t, "the disk is kept and is no orphan", func() error {
		if _, err := s.kvm("kvm1").Volume(t.Context(), "default", brick(first)); err != nil {
			return err
		}
		s.expectNoOrphans(kvm1)
		return nil
	})
	s.expectRetained(kvm1, brick(first), "")
	s.readyCluster("green", "10.20.0.0/27")
	if again := s.readyMachine("green", "db-ghi", dbMachine); again.Spec.HostName != "kvm1" || brick(again) != brick(first) {
		t.Errorf("In a new cluster of the same name it has the slot %+v on %s", again.Spec.Slot, again.Spec.HostName)
	}
}

// TestTwentyMachinesAtOnceHaveTwentySlots makes the machines of a set at once, removes half of them and makes as many
// anew.
func TestTwentyMachinesAtOnceHaveTwentySlots(t *testing.T) {
	t.Parallel()
	const count = 20
	s := newScene(t)
	for _, name := range []string{"kvm1", "kvm2", "kvm3"} {
		s.readyHost(name, testDriver(t, hosttest.Memory(16), hosttest.CPUs(32)))
	}
	s.createCluster("green", "10.20.0.0/26")
	var machines []*infrav1.LibvirtMachine
	for k := range count {
		machines = append(machines, s.createMachine("green", fmt.Sprintf("db-old-%02d", k), dbMachine))
	}
	s.expectReady(&infrav1.LibvirtCluster{ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: "green"}})
	s.setInfrastructureProvisioned("green")
	hosts := map[int]string{}
	expectAll := func() {
		t.Helper()
		seen := map[int]string{}
		for _, m := range machines {
			s.expectReady(m)
			n := slotNumber(m)
			if other := seen[n]; other != "" || n < 0 || n >= count {
				t.Errorf("%s has slot %d, and so has %q", m.Name, n, other)
			}
			if was := hosts[n]; was != "" && was != m.Spec.HostName {
				t.Errorf("%s has slot %d on %s, the disk of which is on %s", m.Name, n, m.Spec.HostName, was)
			}
			seen[n], hosts[n] = m.Name, m.Spec.HostName
			if _, err := s.kvm(m.Spec.HostName).Volume(t.Context(), "default", brick(m)); err != nil {
				t.Error(err)
			}
		}
	}
	expectAll()
	for _, m := range machines[:count/2] {
		s.delete(m)
	}
	for _, m := range machines[:count/2] {
		s.expectGone(m)
		s.delete(s.machine(m.Name))
	}
	for k := range count / 2 {
		machines[k] = s.createMachine("green", fmt.Sprintf("db-new-%02d", k), dbMachine)
	}
	expectAll()
	total := 0
	for _, name := range []string{"kvm1", "kvm2", "kvm3"} {
		volumes, err := s.kvm(name).VolumeNames(t.Context(), "default")
		must(t, err)
		for _, volume := range volumes {
			if _, _, ok := domain.SlotVolume(volume); ok {
				total++
			}
		}
	}
	if total != count {
		t.Errorf("There are %d retained disks for %d slots", total, count)
	}
}

// TestSlotIsWaitedForUntilItsMachineIsGone follows a replacement in the order of Cluster API, which deletes the Node after
// the LibvirtMachine and before the Machine.
func TestSlotIsWaitedForUntilItsMachineIsGone(t *testing.T) {
	t.Parallel()
	const finalizer = "test.example.org/node"
	s := newScene(t)
	s.readyHost("kvm1", testDriver(t))
	s.readyCluster("green", "10.20.0.0/27")
	old := s.readyMachine("green", "db-old", dbMachine, func(p *machineParts) { p.machine.Finalizers = []string{finalizer} })
	changeStatus(s, s.machine("db-old"), func(m *clusterv1.Machine) { m.Status.NodeRef.Name = "db-0" })

	// A surge makes another slot: nobody leaves yet.
	if surge := s.readyMachine("green", "db-surge", dbMachine); slotNumber(surge) != 1 {
		t.Errorf("It has slot %d", slotNumber(surge))
	}
	// The Node is drained: the LibvirtMachine knows nothing of that.
	s.delete(s.machine("db-old"))
	next := s.createMachine("green", "db-next", dbMachine)
	waits := func(text string) {
		t.Helper()
		s.expectCondition(next, infrav1.MachinePlacedCondition, metav1.ConditionFalse, infrav1.MachineWaitingForSlotReason, text)
		if next.Spec.ProviderID != "" {
			t.Errorf("It is on %s", next.Spec.HostName)
		}
	}
	waits("slot 0 is held by LibvirtMachine db-old, which is being deleted")
	// One waits for the one that leaves; the next doesn't.
	if another := s.readyMachine("green", "db-other", dbMachine); slotNumber(another) != 2 {
		t.Errorf("It has slot %d", slotNumber(another))
	}
	s.delete(old)
	s.expectGone(old)
	waits("slot 0 is free once the Machine before is gone, which removes the Node")
	change(s, s.machine("db-old"), func(m *clusterv1.Machine) { m.Finalizers = nil })
	s.expectReady(next)
	if slotNumber(next) != 0 {
		t.Errorf("It has slot %d", slotNumber(next))
	}
}

// TestSlotWaitsForItsHost takes the host with the disks of a free slot away in every way.
func TestSlotWaitsForItsHost(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	kvm1 := s.readyHost("kvm1", testDriver(t, hosttest.Memory(3)))
	green := s.readyCluster("green", "10.20.0.0/27")
	old := s.readyMachine("green", "db-old", dbMachine)
	s.readyHost("kvm2", testDriver(t))
	s.expectFailureDomains(green, "kvm1", "kvm2")
	s.expectRetained(kvm1, brick(old), "db-old")
	s.removeMachine(old)
	big := s.readyMachine("green", "big", memory("1536Mi"), func(p *machineParts) { p.libvirtMachine.Spec.HostName = "kvm1" })

	next := s.createMachine("green", "db-next", dbMachine)
	s.expectCondition(next, infrav1.MachinePlacedCondition, metav1.ConditionFalse, infrav1.MachineWaitingForSlotReason,
		"slot 0 has its disks on a host that can't take the machine now: kvm1: has 512 MiB of memory free of 2048 MiB, needs 1024 MiB", "cordon the host")
	elsewhere := s.readyMachine("green", "db-elsewhere", dbMachine, func(p *machineParts) { p.machine.Spec.FailureDomain = "kvm2" })
	if slotNumber(elsewhere) != 1 || elsewhere.Spec.HostName != "kvm2" {
		t.Errorf("In another failure domain it has slot %d on %s", slotNumber(elsewhere), elsewhere.Spec.HostName)
	}
	s.delete(big)
	s.expectReady(next)
	if slotNumber(next) != 0 || next.Spec.HostName != "kvm1" {
		t.Errorf("It has slot %d on %s", slotNumber(next), next.Spec.HostName)
	}

	// Whoever cordons a host wants the machines elsewhere, with new disks.
	s.removeMachine(next)
	change(s, kvm1, func(h *infrav1.LibvirtHost) { h.Spec.Scheduling = infrav1.HostSchedulingDisabled })
	s.expectFailureDomains(green, "kvm2")
	if moved := s.readyMachine("green", "db-moved", dbMachine); slotNumber(moved) != 2 || moved.Spec.HostName != "kvm2" {
		t.Errorf("It has slot %d on %s", slotNumber(moved), moved.Spec.HostName)
	}
	// A host of which nothing is known may have the disks of any slot.
	s.createHost("kvm3", "qemu+unix:///system?socket=/nowhere")
	lost := s.createMachine("green", "db-lost", dbMachine)
	s.expectCondition(lost, infrav1.MachinePlacedCondition, metav1.ConditionFalse, infrav1.MachineWaitingForSlotReason,
		"which retained disks are on kvm3 isn't known yet", "spec.hostSelector")
	change(s, kvm1, func(h *infrav1.LibvirtHost) { h.Spec.Scheduling = infrav1.HostSchedulingEnabled })
	s.expectReady(lost)
	if slotNumber(lost) != 0 || lost.Spec.HostName != "kvm1" {
		t.Errorf("It has slot %d on %s", slotNumber(lost), lost.Spec.HostName)
	}
}

// TestSlotThatTwoMachinesHave writes the slot of one machine to another, which nobody but a user can do.
func TestSlotThatTwoMachinesHave(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.readyHost("kvm1", testDriver(t))
	s.readyCluster("green", "10.20.0.0/27")
	first := s.readyMachine("green", "db-first", dbMachine)
	second := s.createMachine("green", "db-second", dbMachine, func(p *machineParts) {
		setAnnotation(p.libvirtMachine, clusterv1.PausedAnnotation, "")
	})
	change(s, second, func(m *infrav1.LibvirtMachine) {
		m.Spec.ProviderID, m.Spec.HostName, m.Spec.Slot = domain.ProviderID(string(m.UID)), "kvm1", first.Spec.Slot
		delete(m.Annotations, clusterv1.PausedAnnotation)
	})
	s.expectCondition(second, infrav1.MachineDomainReadyCondition, metav1.ConditionFalse, infrav1.MachineSlotConflictReason,
		"spec.slot MachineDeployment/db number 0 is also that of LibvirtMachine db-first")
	s.removeMachine(first)
	touch(s, second)
	s.expectReady(second)
}

// TestForeignVolumeInTheWayOfADataDisk has the name of a retained disk taken by something else.
func TestForeignVolumeInTheWayOfADataDisk(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.readyHost("kvm1", testDriver(t))
	s.readyCluster("green", "10.20.0.0/27")
	kvm := s.kvm("kvm1")
	name := domain.Slot{Namespace: s.namespace, Cluster: "green", Set: "MachineDeployment/db"}.VolumeName("brick")
	must(t, kvm.CreateVolume(t.Context(), "default", fmt.Sprintf(`<volume><name>%s</name><capacity unit="MiB">64</capacity><target><format type="raw"/></target></volume>`, name)))
	m := s.createMachine("green", "db-a", dbMachine)
	s.expectCondition(m, infrav1.MachineDomainReadyCondition, metav1.ConditionFalse, infrav1.MachineDomainConflictReason,
		"storage pool default of host kvm1 already has a volume "+name)
	must(t, kvm.DeleteVolume(t.Context(), "default", name))
	touch(s, m)
	s.expectReady(m)
}

func TestSetOfAMachine(t *testing.T) {
	const controlPlane, controlPlaneName = clusterv1.MachineControlPlaneLabel, clusterv1.MachineControlPlaneNameLabel
	const set, deployment = clusterv1.MachineSetNameLabel, clusterv1.MachineDeploymentNameLabel
	type labels = map[string]string
	for _, tt := range []struct {
		labels labels
		want   string
	}{
		{labels{controlPlane: "", controlPlaneName: "green-cp"}, "ControlPlane/green-cp"},
		{labels{controlPlane: ""}, "ControlPlane/green"},
		{labels{deployment: "db", set: "db-x7k2p"}, "MachineDeployment/db"},
		{labels{set: "db"}, "MachineSet/db"},
		{nil, "Machine/db-0"},
	} {
		m := &clusterv1.Machine{ObjectMeta: metav1.ObjectMeta{Name: "db-0", Labels: tt.labels}, Spec: clusterv1.MachineSpec{ClusterName: "green"}}
		if got := setOf(m); got != tt.want {
			t.Errorf("%v: got %s, want %s", tt.labels, got, tt.want)
		}
	}
}

// TestSlotsWhoseHostNamesAreTaken has a control plane, a Machine and a Node stand in the way.
func TestSlotsWhoseHostNamesAreTaken(t *testing.T) {
	meta := func(name string) metav1.ObjectMeta {
		return metav1.ObjectMeta{Namespace: "home", Name: name, Labels: map[string]string{clusterv1.ClusterNameLabel: "green"}}
	}
	own := &clusterv1.Machine{ObjectMeta: meta("db-own")}
	own.UID, own.Labels[clusterv1.MachineDeploymentNameLabel] = "own", "db"
	other := clusterv1.Machine{ObjectMeta: meta("db-1")}
	going := clusterv1.Machine{ObjectMeta: meta("db-going")}
	going.Status.NodeRef.Name = "db-2"
	held := infrav1.LibvirtMachine{ObjectMeta: meta("cp")}
	held.Spec.Slot = infrav1.MachineSlot{Set: "ControlPlane/db", Number: ptr.To[int32](0)}
	s := &machineScope{
		cluster: &clusterv1.Cluster{ObjectMeta: meta("green")}, machine: own, libvirtMachine: &infrav1.LibvirtMachine{ObjectMeta: meta("db-own")},
	}
	m := membership{
		machines:        clusterv1.MachineList{Items: []clusterv1.Machine{*own, other, going}},
		libvirtMachines: infrav1.LibvirtMachineList{Items: []infrav1.LibvirtMachine{held}},
	}
	slots := m.slots(s)
	slices.SortFunc(slots, func(a, b placement.Slot) int { return cmp.Compare(a.Number, b.Number) })
	if len(slots) != 3 || slots[0].Holder != "cp" || slots[1].Holder != "db-1" || !slots[2].Taken {
		t.Errorf("The slots are %+v", slots)
	}
}

// TestMachineGoesAfterItsHostTold has hosts that list the retained disk of a machine, or don't.
func TestMachineGoesAfterItsHostTold(t *testing.T) {
	m := &infrav1.LibvirtMachine{ObjectMeta: metav1.ObjectMeta{Namespace: "home", Name: "db-a", Labels: map[string]string{clusterv1.ClusterNameLabel: "green"}}}
	m.Spec.DataDisks = []infrav1.DataDisk{dataDisk("scratch", "1Gi"), dataDisk("brick", "1Gi", retained, onPool("ssd"))}
	m.Spec.HostName, m.Spec.Slot = "kvm1", infrav1.MachineSlot{Set: "MachineDeployment/db", Number: ptr.To[int32](3)}
	placed := []infrav1.LibvirtMachine{*m}
	silent := &infrav1.LibvirtHost{}
	var wait *waiting
	if err := checkReported(&machineScope{libvirtMachine: m, libvirtHost: silent}); !errors.As(err, &wait) || !strings.Contains(wait.message, brick(m)) {
		t.Errorf("The host lists nothing, and the machine goes: %v", err)
	}
	// The disk counts before it is there, and stays listed without its machine.
	disks := heldDisks(silent, nil, placed)
	want := infrav1.RetainedDisk{Pool: "ssd", Volume: brick(m), Capacity: quantity(1 << 30), Machine: "db-a"}
	if !slices.EqualFunc(disks, []infrav1.RetainedDisk{want}, func(a, b infrav1.RetainedDisk) bool { return equality.Semantic.DeepEqual(a, b) }) {
		t.Errorf("The host lists %+v, want %+v", disks, want)
	}
	if disks = heldDisks(silent, disks, nil); len(disks) != 1 || disks[0].Machine != "" {
		t.Errorf("Without its machine the host lists %+v", disks)
	}
	told := &infrav1.LibvirtHost{Status: infrav1.LibvirtHostStatus{RetainedDisks: disks}}
	going := &infrav1.LibvirtHost{ObjectMeta: metav1.ObjectMeta{DeletionTimestamp: ptr.To(metav1.Now())}}
	for name, h := range map[string]*infrav1.LibvirtHost{"told": told, "going": going} {
		if err := checkReported(&machineScope{libvirtMachine: m, libvirtHost: h}); err != nil {
			t.Errorf("%s: the machine has to wait: %v", name, err)
		}
	}
}
