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
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/cluster-api/util/conditions"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/event"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/hosttest"
)

// TestManyMachinesAtOnceGetNoMoreThanThereIs makes 60 machines at once, of which three hosts have room for 40: one is
// short of memory, one of processors, one of disk. Then machines go, and as many of those that wait are placed.
func TestManyMachinesAtOnceGetNoMoreThanThereIs(t *testing.T) {
	t.Parallel()
	const count = 60
	room := map[string]int{"memory": 13, "vcpus": 13, "disk": 14}
	s := newScene(t)
	hosts := []*infrav1.LibvirtHost{
		s.createHost("memory", testDriver(t, hosttest.Memory(14), hosttest.CPUs(64))),
		s.createHost("vcpus", testDriver(t, hosttest.Memory(64), hosttest.CPUs(14)), func(h *infrav1.LibvirtHost) {
			h.Spec.Reserved.CPUs, h.Spec.CPUOvercommitPercent = ptr.To(int32(1)), 200
		}),
		s.createHost("disk", testDriver(t, hosttest.Memory(64), hosttest.CPUs(64)), func(h *infrav1.LibvirtHost) {
			h.Spec.Reserved.Storage = ptr.To(resource.MustParse("71Gi"))
		}),
	}
	for _, h := range hosts {
		s.expectReady(h)
	}
	// They wait for the cluster, and all begin when it is ready.
	s.createCluster("green", "10.20.0.0/26")
	var machines []*infrav1.LibvirtMachine
	for k := range count {
		machines = append(machines, s.createMachine("green", fmt.Sprintf("green-%02d", k), of("green-md")))
	}
	s.expectReady(&infrav1.LibvirtCluster{ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: "green"}})
	begun := time.Now()
	s.setInfrastructureProvisioned("green")

	refused := func() []*infrav1.LibvirtMachine {
		return slices.DeleteFunc(slices.Clone(machines), func(m *infrav1.LibvirtMachine) bool { return m.Spec.ProviderID != "" })
	}
	expectPlaced := func(want map[string]int) {
		t.Helper()
		eventually(t, fmt.Sprintf("%v machines are placed", want), func() error {
			perHost, ready := s.placedMachines(machines)
			if total := sum(want); !maps.Equal(perHost, want) || ready != total {
				return fmt.Errorf("the hosts have %v, %d are ready", perHost, ready)
			}
			return nil
		})
	}
	expectPlaced(room)
	t.Logf("%d of %d machines were placed and ready within %s", sum(room), count, time.Since(begun).Round(time.Millisecond))
	for _, m := range refused() {
		s.expectCondition(m, infrav1.MachinePlacedCondition, metav1.ConditionFalse, infrav1.MachineNoHostFitsReason,
			"memory: has 0 MiB of memory free of 13312 MiB, needs 1024 MiB", "vcpus: has 0 vCPUs free of 26, needs 2",
			"disk: has 1024 MiB of the disk pool left to promise of 29696 MiB, needs 2048 MiB")
	}
	for hostName, want := range room {
		used := promisedOn(s.kvm(hostName).Domains(), nil)
		if used.memory != int64(want)<<30 || used.vcpus != int64(want)*2 {
			t.Errorf("The domains on %s have %+v", hostName, used)
		}
	}

	for _, hostNames := range [][]string{{"disk"}, {"memory", "vcpus"}} {
		for _, hostName := range hostNames {
			gone := slices.IndexFunc(machines, func(m *infrav1.LibvirtMachine) bool { return m.Spec.HostName == hostName })
			s.delete(machines[gone])
			machines = slices.Delete(machines, gone, gone+1)
		}
		expectPlaced(room)
	}
	waiting := len(refused())
	if waiting != count-sum(room)-len(room) {
		t.Errorf("%d machines wait", waiting)
	}
	staysSo(t, "the others wait", func() error {
		if s.placedMachines(machines); len(refused()) != waiting {
			return fmt.Errorf("%d wait", len(refused()))
		}
		return nil
	})
}

// placedMachines brings machines up to date, and counts those on each host and those that are ready.
func (s *scene) placedMachines(machines []*infrav1.LibvirtMachine) (perHost map[string]int, ready int) {
	s.t.Helper()
	var list infrav1.LibvirtMachineList
	must(s.t, api.List(s.t.Context(), &list, client.InNamespace(s.namespace)))
	perHost = map[string]int{}
	for _, m := range machines {
		k := slices.IndexFunc(list.Items, func(found infrav1.LibvirtMachine) bool { return found.Name == m.Name })
		if k < 0 {
			s.t.Fatalf("LibvirtMachine %s is gone", m.Name)
		}
		list.Items[k].DeepCopyInto(m)
		if m.Spec.HostName != "" {
			perHost[m.Spec.HostName]++
		}
		if conditions.IsTrue(m, infrav1.ReadyCondition) {
			ready++
		}
	}
	return perHost, ready
}

func sum(counts map[string]int) int {
	total := 0
	for _, count := range counts {
		total += count
	}
	return total
}

// of makes a machine one of a MachineDeployment, which labels both the Machine and the LibvirtMachine.
func of(deployment string) func(*machineParts) {
	return labelled(clusterv1.MachineDeploymentNameLabel, deployment)
}

func labelled(key, value string) func(*machineParts) {
	return func(p *machineParts) {
		p.machine.Labels[key] = value
		p.libvirtMachine.Labels[key] = value
	}
}

// TestMachinesAreSpread makes the machines of two MachineDeployments at once on hosts of different sizes.
func TestMachinesAreSpread(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	for name, size := range map[string]uint64{"small": 8, "medium": 16, "large": 64} {
		s.readyHost(name, testDriver(t, hosttest.Memory(size)))
	}
	s.createCluster("green", "10.20.0.0/26")
	members := map[string][]*infrav1.LibvirtMachine{}
	for k := range 6 {
		for _, deployment := range []string{"web", "db"} {
			members[deployment] = append(members[deployment], s.createMachine("green", fmt.Sprintf("%s-%d", deployment, k), of(deployment)))
		}
	}
	s.expectReady(&infrav1.LibvirtCluster{ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: "green"}})
	s.setInfrastructureProvisioned("green")
	for deployment, machines := range members {
		for _, m := range machines {
			s.expectReady(m)
		}
		if perHost, _ := s.placedMachines(machines); !maps.Equal(perHost, map[string]int{"small": 2, "medium": 2, "large": 2}) {
			t.Errorf("The machines of %s are on %v", deployment, perHost)
		}
	}
	if m := s.readyMachine("green", "single"); m.Spec.HostName != "large" {
		t.Errorf("A machine of no group is on %s", m.Spec.HostName)
	}
}

// TestControlPlaneIsSpreadOverFailureDomains has Cluster API name no failure domain.
func TestControlPlaneIsSpreadOverFailureDomains(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	for name, failureDomain := range map[string]string{"cellar1": "cellar", "cellar2": "cellar", "attic": "attic"} {
		size := uint64(64)
		if name == "attic" {
			size = 8
		}
		s.readyHost(name, testDriver(t, hosttest.Memory(size)), func(h *infrav1.LibvirtHost) { h.Spec.FailureDomain = failureDomain })
	}
	s.readyCluster("green", "10.20.0.0/27")
	perDomain, perHost := map[string]int{}, map[string]int{}
	for k := range 4 {
		m := s.readyMachine("green", fmt.Sprintf("cp-%d", k), labelled(clusterv1.MachineControlPlaneLabel, ""))
		perDomain[m.Status.FailureDomain]++
		perHost[m.Spec.HostName]++
	}
	if !maps.Equal(perDomain, map[string]int{"cellar": 2, "attic": 2}) || !maps.Equal(perHost, map[string]int{"cellar1": 1, "cellar2": 1, "attic": 2}) {
		t.Errorf("The control plane is on %v in %v", perHost, perDomain)
	}
}

// TestHostIsCordonedAndRemoved takes a host out of a cluster as docs/how-to/remove-a-host.md says.
func TestHostIsCordonedAndRemoved(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	selected := map[string]string{"site": "home"}
	inSite := func(h *infrav1.LibvirtHost) { h.Labels["site"] = "home" }
	kvm1 := s.readyHost("kvm1", testDriver(t, hosttest.Memory(64)), inSite)
	s.readyHost("kvm2", testDriver(t, hosttest.Memory(8)), inSite)
	green := s.readyCluster("green", "10.20.0.0/27", func(c *infrav1.LibvirtCluster) { c.Spec.HostSelector.MatchLabels = selected })
	s.expectFailureDomains(green, "kvm1", "kvm2")
	old := s.readyMachine("green", "old")
	if old.Spec.HostName != "kvm1" {
		t.Fatalf("It is on %s", old.Spec.HostName)
	}

	change(s, kvm1, func(h *infrav1.LibvirtHost) { h.Spec.Scheduling = infrav1.HostSchedulingDisabled })
	s.expectFailureDomains(green, "kvm2")
	if m := s.readyMachine("green", "beside"); m.Spec.HostName != "kvm2" {
		t.Errorf("It is on %s, which is cordoned", m.Spec.HostName)
	}
	waiting := s.createMachine("green", "waiting", func(p *machineParts) { p.libvirtMachine.Spec.HostName = "kvm1" })
	s.expectCondition(waiting, infrav1.MachinePlacedCondition, metav1.ConditionFalse, infrav1.MachineNoHostFitsReason,
		"kvm1: spec.scheduling is Disabled; kvm2: spec.hostName asks for kvm1")

	// Nobody else touches the machine that is there, and the cluster stays on the host for its sake.
	change(s, kvm1, func(h *infrav1.LibvirtHost) {
		delete(h.Labels, "site")
		h.Spec.Scheduling = infrav1.HostSchedulingEnabled
	})
	s.expectCondition(waiting, infrav1.MachinePlacedCondition, metav1.ConditionFalse, infrav1.MachineNoHostFitsReason,
		"kvm1: isn't selected by spec.hostSelector any more; kvm2: ")
	s.expectFailureDomains(green, "kvm2")
	s.expectReady(old)
	s.delete(kvm1)
	s.expectCondition(kvm1, infrav1.DeletingCondition, metav1.ConditionTrue, infrav1.HostInUseReason, "2 LibvirtMachines")

	s.delete(waiting)
	s.expectGone(waiting)
	s.delete(old)
	s.expectGone(old)
	s.expectGone(kvm1)
	if s.refresh(green); !slices.Equal(green.Status.Hosts, []string{"kvm2"}) {
		t.Errorf("The cluster is on %v", green.Status.Hosts)
	}
}

// expectFailureDomains waits until a cluster offers these failure domains and no others.
func (s *scene) expectFailureDomains(libvirtCluster *infrav1.LibvirtCluster, want ...string) {
	s.t.Helper()
	eventually(s.t, fmt.Sprintf("the failure domains are %v", want), func() error {
		s.refresh(libvirtCluster)
		var names []string
		for _, domain := range libvirtCluster.Status.FailureDomains {
			names = append(names, domain.Name)
		}
		if !slices.Equal(names, want) {
			return fmt.Errorf("they are %v", names)
		}
		return nil
	})
}

// TestUncordonedHostIsUsedAgain has a machine wait for the only host.
func TestUncordonedHostIsUsedAgain(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	kvm1 := s.readyHost("kvm1", testDriver(t), func(h *infrav1.LibvirtHost) { h.Spec.Scheduling = infrav1.HostSchedulingDisabled })
	green := s.readyCluster("green", "10.20.0.0/27")
	s.expectFailureDomains(green)
	m := s.createMachine("green", "green-a")
	s.expectCondition(m, infrav1.MachinePlacedCondition, metav1.ConditionFalse, infrav1.MachineNoHostFitsReason, "kvm1: spec.scheduling is Disabled")
	change(s, kvm1, func(h *infrav1.LibvirtHost) { h.Spec.Scheduling = infrav1.HostSchedulingEnabled })
	s.expectReady(m)
	s.expectFailureDomains(green, "kvm1")
}

// TestPromiseWhoseAnswerIsLost has the answer lost to what wrote a machine's host down, and the cache not show it yet: the
// room is promised all the same.
func TestPromiseWhoseAnswerIsLost(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.readyHost("kvm1", testDriver(t, hosttest.Memory(4)))
	green := s.readyCluster("green", "10.20.0.0/27")
	// The manager of the other tests looks away.
	s.watchFilter = "nobody"
	direct, err := client.NewWithWatch(apiConfig, client.Options{Scheme: scheme})
	must(t, err)
	errLost := errors.New("the answer is lost")
	r := &LibvirtMachineReconciler{Hosts: s.hosts, APIReader: api, Client: interceptor.NewClient(direct, interceptor.Funcs{
		List: func(ctx context.Context, c client.WithWatch, list client.ObjectList, options ...client.ListOption) error {
			if _, ok := list.(*infrav1.LibvirtMachineList); ok {
				return nil
			}
			return c.List(ctx, list, options...)
		},
		Patch: func(ctx context.Context, c client.WithWatch, object client.Object, patch client.Patch, options ...client.PatchOption) error {
			if err := c.Patch(ctx, object, patch, options...); err != nil {
				return err
			}
			return errLost
		},
	})}
	s.refresh(green)
	scopeOf := func(name string) *machineScope {
		m := s.createMachine("green", name, memory("2Gi"))
		scope := &machineScope{cluster: s.cluster("green"), machine: s.machine(name), libvirtCluster: green, libvirtMachine: m}
		s.refresh(scope.cluster)
		s.refresh(scope.machine)
		return scope
	}
	first := scopeOf("first")
	if err := r.place(t.Context(), first); !errors.Is(err, errLost) {
		t.Fatalf("got %v", err)
	}
	var wait *waiting
	if err := r.place(t.Context(), scopeOf("second")); !errors.As(err, &wait) || wait.reason != infrav1.MachineNoHostFitsReason {
		t.Errorf("The second is given the room of the first: %v", err)
	}
	// The first, which the cache still shows without a host, isn't in its own way, and its promise outlives the conflict.
	if err := r.place(t.Context(), first); !apierrors.IsConflict(err) {
		t.Errorf("Placed again: %v", err)
	}
	if err := r.place(t.Context(), scopeOf("third")); !errors.As(err, &wait) {
		t.Errorf("The third is given the room of the first: %v", err)
	}
}

// TestHostReportsWhatItPromised has a domain of somebody else count, and what waits for room begin when it goes.
func TestHostReportsWhatItPromised(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	kvm1 := s.readyHost("kvm1", testDriver(t, hosttest.CPUs(2)), func(h *infrav1.LibvirtHost) { h.Spec.CPUOvercommitPercent = 100 })
	must(t, s.kvm("kvm1").DefineDomain(t.Context(), foreignDomain("foreign", foreignUUID)))
	s.readyCluster("green", "10.20.0.0/27")
	m := s.createMachine("green", "green-a")
	s.expectCondition(m, infrav1.MachinePlacedCondition, metav1.ConditionFalse, infrav1.MachineNoHostFitsReason, "kvm1: has 1 vCPUs free of 2, needs 2")
	s.settles(m)
	must(t, s.kvm("kvm1").UndefineDomain(t.Context(), foreignUUID))
	s.expectReady(m)
	eventually(t, "the host reports it", func() error {
		s.refresh(kvm1)
		status := kvm1.Status
		if ptr.Deref(status.Allocated.CPUs, 0) != 2 || status.Allocated.Memory.String() != "1Gi" || len(status.Storage) != 2 {
			return fmt.Errorf("it reports %+v", status)
		}
		disks, seeds := poolStatus(kvm1, infrav1.DefaultPool), poolStatus(kvm1, infrav1.DefaultSeedPool)
		if disks == nil || seeds == nil {
			return errors.New("it reports other pools")
		}
		if disks.Capacity.String() != "100Gi" || disks.Available.String() != "101888Mi" || disks.Allocated.String() != "2Gi" {
			return fmt.Errorf("the disk pool has %s, %s available, %s allocated", disks.Capacity, disks.Available, disks.Allocated)
		}
		if seeds.Allocated != nil || seeds.Capacity == nil {
			return fmt.Errorf("the seed pool is %+v", seeds)
		}
		return nil
	})
}

func TestMachinesThatBelongTogether(t *testing.T) {
	const cluster, controlPlane = clusterv1.ClusterNameLabel, clusterv1.MachineControlPlaneLabel
	const set, deployment = clusterv1.MachineSetNameLabel, clusterv1.MachineDeploymentNameLabel
	type labels = map[string]string
	going := func(m *infrav1.LibvirtMachine) { m.DeletionTimestamp = ptr.To(metav1.Now()) }
	unplaced := func(m *infrav1.LibvirtMachine) { m.Spec.ProviderID = "" }
	for _, tt := range []struct {
		name       string
		one, other labels
		edit       func(*infrav1.LibvirtMachine)
		want       int
	}{
		{name: "of one control plane", one: labels{cluster: "a", controlPlane: ""}, other: labels{cluster: "a", controlPlane: ""}, want: 1},
		{name: "of two control planes", one: labels{cluster: "a", controlPlane: ""}, other: labels{cluster: "b", controlPlane: ""}},
		{name: "control plane and worker", one: labels{cluster: "a", controlPlane: ""}, other: labels{cluster: "a", deployment: "md"}},
		{name: "of one MachineDeployment", one: labels{cluster: "a", deployment: "md"}, other: labels{cluster: "a", deployment: "md"}, want: 1},
		{name: "of two MachineDeployments", one: labels{cluster: "a", deployment: "md"}, other: labels{cluster: "a", deployment: "other"}},
		{name: "of one MachineSet", one: labels{cluster: "a", set: "s"}, other: labels{cluster: "a", set: "s"}, want: 1},
		{name: "new and old in a rollout", one: labels{cluster: "a", deployment: "md", set: "new"}, other: labels{cluster: "a", deployment: "md", set: "old"}},
		{name: "of nothing", one: labels{cluster: "a"}, other: labels{cluster: "a"}},
		{name: "one that goes", one: labels{cluster: "a", set: "s"}, other: labels{cluster: "a", set: "s"}, edit: going},
		{name: "one that is pinned and not placed yet", one: labels{cluster: "a", set: "s"}, other: labels{cluster: "a", set: "s"}, edit: unplaced},
	} {
		t.Run(tt.name, func(t *testing.T) {
			other := infrav1.LibvirtMachine{ObjectMeta: metav1.ObjectMeta{Labels: tt.other}}
			other.Spec.ProviderID = "libvirt:///" + foreignUUID
			if tt.edit != nil {
				tt.edit(&other)
			}
			if got := countSiblings([]infrav1.LibvirtMachine{other}, spreadGroup(tt.one)); got != tt.want {
				t.Errorf("got %d siblings, want %d", got, tt.want)
			}
		})
	}
}

// TestMoreRoomWakesTheWaiting goes through all that a host may report to have more of.
func TestMoreRoomWakesTheWaiting(t *testing.T) {
	reported := func(edits ...func(*infrav1.LibvirtHostStatus)) *infrav1.LibvirtHost {
		h := &infrav1.LibvirtHost{Status: infrav1.LibvirtHostStatus{
			Capacity:  infrav1.HostResources{CPUs: ptr.To(int32(8)), Memory: quantity(16 << 30)},
			Allocated: infrav1.HostResources{CPUs: ptr.To(int32(4)), Memory: quantity(4 << 30)},
			Storage: []infrav1.HostPoolStatus{
				{Name: infrav1.DefaultPool, Capacity: quantity(100 << 30), Available: quantity(50 << 30), Allocated: quantity(20 << 30)},
			},
		}}
		for _, edit := range edits {
			edit(&h.Status)
		}
		return h
	}
	for _, tt := range []struct {
		name   string
		change func(*infrav1.LibvirtHostStatus)
		want   bool
	}{
		{"nothing", func(*infrav1.LibvirtHostStatus) {}, false},
		{"memory given back", func(s *infrav1.LibvirtHostStatus) { s.Allocated.Memory = quantity(3 << 30) }, true},
		{"memory taken", func(s *infrav1.LibvirtHostStatus) { s.Allocated.Memory = quantity(5 << 30) }, false},
		{"vCPUs given back", func(s *infrav1.LibvirtHostStatus) { s.Allocated.CPUs = ptr.To(int32(3)) }, true},
		{"a disk given back", func(s *infrav1.LibvirtHostStatus) { s.Storage[0].Allocated = quantity(0) }, true},
		{"space in the pool", func(s *infrav1.LibvirtHostStatus) { s.Storage[0].Available = quantity(60 << 30) }, true},
		{"one taken, another given back", func(s *infrav1.LibvirtHostStatus) {
			s.Allocated.Memory, s.Allocated.CPUs = quantity(5<<30), ptr.To(int32(3))
		}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := moreRoom(reported(), reported(tt.change)); got != tt.want {
				t.Errorf("got %t", got)
			}
		})
	}
	if !moreRoom(&infrav1.LibvirtHost{}, reported()) {
		t.Error("The first report wakes nobody")
	}
	kvm := reported(func(s *infrav1.LibvirtHostStatus) { s.DomainTypes = []infrav1.DomainType{infrav1.DomainTypeKVM} })
	if !roomChanged.Update(event.UpdateEvent{ObjectOld: reported(), ObjectNew: kvm}) {
		t.Error("A domain type that the host serves now wakes nobody")
	}
	if roomChanged.Update(event.UpdateEvent{ObjectOld: kvm, ObjectNew: kvm}) {
		t.Error("A report of the same wakes them")
	}
}
