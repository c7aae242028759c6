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
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/utils/ptr"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/domain"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/placement"
)

// retains tells whether a machine has disks that outlive it, and thus a slot.
func retains(spec *infrav1.LibvirtMachineSpec) bool {
	return slices.ContainsFunc(spec.DataDisks, domain.Retained)
}

// setOf names the set that a machine belongs to, by its labels. It is the MachineDeployment and not its MachineSet, so
// that a rollout stays in the set.
func setOf(machine *clusterv1.Machine) string {
	labels := machine.Labels
	if _, ok := labels[clusterv1.MachineControlPlaneLabel]; ok {
		return "ControlPlane/" + cmp.Or(labels[clusterv1.MachineControlPlaneNameLabel], machine.Spec.ClusterName)
	}
	if name := labels[clusterv1.MachineDeploymentNameLabel]; name != "" {
		return "MachineDeployment/" + name
	}
	if name := labels[clusterv1.MachineSetNameLabel]; name != "" {
		return "MachineSet/" + name
	}
	return "Machine/" + machine.Name
}

// slotOf is the slot that a machine holds. It has no set when the machine holds none.
func slotOf(m *infrav1.LibvirtMachine) domain.Slot {
	return domain.Slot{
		Namespace: m.Namespace, Cluster: m.Labels[clusterv1.ClusterNameLabel], Set: m.Spec.Slot.Set, Number: int(ptr.Deref(m.Spec.Slot.Number, 0)),
	}
}

// slotDisks are the retained disks of a machine that holds a slot.
func slotDisks(m *infrav1.LibvirtMachine) []infrav1.DataDisk {
	if m.Spec.Slot.Set == "" {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(m.Spec.DataDisks), func(d infrav1.DataDisk) bool { return !domain.Retained(d) })
}

// hostname is the name that the guest gives itself, and thus its Node: that of the slot, or the Machine's own.
func hostname(s *machineScope) string {
	if s.libvirtMachine.Spec.Slot.Set != "" {
		return slotOf(s.libvirtMachine).Hostname()
	}
	return s.machine.Name
}

// chooseSlot chooses the slot of a machine, and its host. What others hold is read past the cache, under the lock under
// which machines are placed, so that no slot is given out twice. The caller holds that lock.
func (r *LibvirtMachineReconciler) chooseSlot(ctx context.Context, s *machineScope, candidates []placement.Candidate) (string, infrav1.MachineSlot, error) {
	here := []client.ListOption{client.InNamespace(s.cluster.Namespace), client.MatchingLabels{clusterv1.ClusterNameLabel: s.cluster.Name}}
	var members membership
	if err := r.APIReader.List(ctx, &members.libvirtMachines, here...); err != nil {
		return "", infrav1.MachineSlot{}, fmt.Errorf("listing LibvirtMachines: %w", err)
	}
	if err := r.APIReader.List(ctx, &members.machines, here...); err != nil {
		return "", infrav1.MachineSlot{}, fmt.Errorf("listing Machines: %w", err)
	}
	if err := r.Client.List(ctx, &members.hosts, client.InNamespace(s.cluster.Namespace)); err != nil {
		return "", infrav1.MachineSlot{}, fmt.Errorf("listing LibvirtHosts: %w", err)
	}
	request := placement.SlotRequest{Request: requestOf(s), Slots: members.slots(s), Ahead: members.ahead(s)}
	var err error
	if request.Unknown, err = members.unknown(s); err != nil {
		return "", infrav1.MachineSlot{}, err
	}
	chosen, number, err := placement.PickSlot(candidates, request)
	if err != nil {
		return "", infrav1.MachineSlot{}, err
	}
	return chosen, infrav1.MachineSlot{Set: setOf(s.machine), Number: ptr.To(int32(number))}, nil
}

// membership is all that decides which slots of a cluster there are and who has them.
type membership struct {
	libvirtMachines infrav1.LibvirtMachineList
	machines        clusterv1.MachineList
	hosts           infrav1.LibvirtHostList
}

// owner is the Machine of a LibvirtMachine, nil when it is gone.
func (m *membership) owner(libvirtMachine *infrav1.LibvirtMachine) *clusterv1.Machine {
	for i := range m.machines.Items {
		if ref := m.machines.Items[i].Spec.InfrastructureRef; ref.Kind == "LibvirtMachine" && ref.Name == libvirtMachine.Name {
			return &m.machines.Items[i]
		}
	}
	return nil
}

// leaving tells whether a machine is on its way out. Its Machine is for as long as the Node is drained.
func (m *membership) leaving(libvirtMachine *infrav1.LibvirtMachine) bool {
	owner := m.owner(libvirtMachine)
	return !libvirtMachine.DeletionTimestamp.IsZero() || owner == nil || !owner.DeletionTimestamp.IsZero()
}

// slots are those of a machine's set: those that machines hold, those that have disks on a host, and those whose host
// name is taken by something else.
func (m *membership) slots(s *machineScope) []placement.Slot {
	slot := domain.Slot{Namespace: s.cluster.Namespace, Cluster: s.cluster.Name, Set: setOf(s.machine)}
	found := map[int]*placement.Slot{}
	at := func(number int) *placement.Slot {
		if found[number] == nil {
			found[number] = &placement.Slot{Number: number}
		}
		return found[number]
	}
	for i := range m.hosts.Items {
		h := &m.hosts.Items[i]
		for _, disk := range h.Status.RetainedDisks {
			key, number, ok := domain.SlotVolume(disk.Volume)
			if !ok || key != slot.Key() {
				continue
			}
			here := at(number)
			if !slices.Contains(here.Hosts, h.Name) {
				here.Hosts = append(here.Hosts, h.Name)
			}
			slot.Number = number
			here.Needs = diskNeeds(h, &s.libvirtMachine.Spec, &slot)
		}
	}
	names := map[string]string{}
	for i := range m.libvirtMachines.Items {
		holder := &m.libvirtMachines.Items[i]
		switch held := slotOf(holder); {
		case held.Set == slot.Set:
			*at(held.Number) = placement.Slot{
				Number: held.Number, Hosts: []string{holder.Spec.HostName}, Holder: holder.Name, Leaving: m.leaving(holder),
			}
		case held.Set != "":
			names[held.Hostname()] = holder.Name
		}
	}
	nodes := map[string]bool{}
	for i := range m.machines.Items {
		other := &m.machines.Items[i]
		if other.UID == s.machine.UID {
			continue
		}
		names[other.Name] = other.Name
		if other.Status.NodeRef.IsDefined() {
			nodes[other.Status.NodeRef.Name] = true
		}
	}
	numbers := slices.Collect(maps.Keys(found))
	// A new slot gets none beyond these.
	for number := range len(found) + len(names) + len(nodes) + 1 {
		numbers = append(numbers, number)
	}
	for _, number := range numbers {
		slot.Number = number
		known := found[number]
		switch name := slot.Hostname(); {
		case known != nil && known.Holder != "":
		case names[name] != "":
			at(number).Holder = names[name]
		case nodes[name]:
			// Whoever is about to delete the Machine deletes the Node of that name.
			at(number).Taken = true
		}
	}
	slots := make([]placement.Slot, 0, len(found))
	for _, known := range found {
		slots = append(slots, *known)
	}
	return slots
}

// ahead counts the machines of the same set that wait for a slot and are older.
func (m *membership) ahead(s *machineScope) int {
	age := func(m *infrav1.LibvirtMachine) string {
		return m.CreationTimestamp.UTC().Format("20060102150405") + m.Name
	}
	count := 0
	for i := range m.libvirtMachines.Items {
		other := &m.libvirtMachines.Items[i]
		if other.Spec.ProviderID != "" || !retains(&other.Spec) || m.leaving(other) || setOf(m.owner(other)) != setOf(s.machine) {
			continue
		}
		if age(other) < age(s.libvirtMachine) {
			count++
		}
	}
	return count
}

// unknown are the hosts of the cluster that haven't told yet which retained disks they have, or have more than they tell.
func (m *membership) unknown(s *machineScope) ([]string, error) {
	selector, err := metav1.LabelSelectorAsSelector(&s.libvirtCluster.Spec.HostSelector)
	if err != nil {
		return nil, fmt.Errorf("reading spec.hostSelector of the LibvirtCluster: %w", err)
	}
	var names []string
	for i := range m.hosts.Items {
		h := &m.hosts.Items[i]
		untold := len(h.Status.Storage) == 0 || len(h.Status.RetainedDisks) == maxRetainedKnown
		if untold && h.DeletionTimestamp.IsZero() && selector.Matches(labels.Set(h.Labels)) {
			names = append(names, h.Name)
		}
	}
	return names, nil
}

// checkSlot makes sure that no other machine has the slot of a machine that is about to get its disks, whoever wrote that.
// A slot's host name stands in the address reservation too, so this comes before.
func (r *LibvirtMachineReconciler) checkSlot(ctx context.Context, s *machineScope) error {
	if s.libvirtMachine.Spec.Slot.Set == "" {
		return nil
	}
	var list infrav1.LibvirtMachineList
	if err := r.APIReader.List(ctx, &list, client.InNamespace(s.cluster.Namespace),
		client.MatchingLabels{clusterv1.ClusterNameLabel: s.cluster.Name}); err != nil {
		return fmt.Errorf("listing LibvirtMachines: %w", err)
	}
	own := slotOf(s.libvirtMachine)
	for i := range list.Items {
		if other := &list.Items[i]; other.UID != s.libvirtMachine.UID && slotOf(other) == own {
			return &waiting{reason: infrav1.MachineSlotConflictReason, after: conflictInterval, message: fmt.Sprintf(
				"spec.slot %s number %d is also that of LibvirtMachine %s: delete one of the two Machines", own.Set, own.Number, other.Name)}
		}
	}
	return nil
}

// reportInterval is when a machine that is about to go looks again whether its host told of its disks.
const reportInterval = 5 * time.Second

// checkReported makes sure that the host lists the retained disks of a machine that is about to go: from then on nothing
// else tells that its slot has disks there. A host that goes as well lists none.
func checkReported(s *machineScope) error {
	known := s.libvirtHost.Status.RetainedDisks
	if !s.libvirtHost.DeletionTimestamp.IsZero() || len(known) == maxRetainedKnown {
		return nil
	}
	for _, disk := range slotDisks(s.libvirtMachine) {
		pool, volume := poolFor(s.libvirtHost, disk.Pool), slotOf(s.libvirtMachine).VolumeName(disk.Name)
		if retainedDisk(known, pool, volume) == nil {
			return &waiting{reason: infrav1.DeletingReason, after: reportInterval, message: fmt.Sprintf(
				"LibvirtHost %s doesn't list the retained disk %s in status.retainedDisks yet", s.libvirtHost.Name, volume)}
		}
	}
	return nil
}
