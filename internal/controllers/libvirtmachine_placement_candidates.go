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
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/cluster-api/util"
	"sigs.k8s.io/cluster-api/util/conditions"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/network"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/placement"
)

// candidates are the hosts of the cluster as placement sees them. None of them is asked anything.
func (r *LibvirtMachineReconciler) candidates(ctx context.Context, s *machineScope) ([]placement.Candidate, error) {
	var hosts infrav1.LibvirtHostList
	if err := r.Client.List(ctx, &hosts, client.InNamespace(s.libvirtMachine.Namespace)); err != nil {
		return nil, fmt.Errorf("listing LibvirtHosts: %w", err)
	}
	selector, err := metav1.LabelSelectorAsSelector(&s.libvirtCluster.Spec.HostSelector)
	if err != nil {
		return nil, fmt.Errorf("reading spec.hostSelector of the LibvirtCluster: %w", err)
	}
	var candidates []placement.Candidate
	for i := range hosts.Items {
		h := &hosts.Items[i]
		if !slices.Contains(s.libvirtCluster.Status.Hosts, h.Name) {
			continue
		}
		candidate := placement.Candidate{
			Name: h.Name, FailureDomain: failureDomain(h), Unusable: unusable(h, selector), Withdrawn: len(withdrawn(h, selector)) > 0,
			Needs: diskNeeds(h, &s.libvirtMachine.Spec, nil),
		}
		if util.IsControlPlaneMachine(s.machine) && !network.ServesControlPlane(s.libvirtCluster.Spec.Network, candidate.FailureDomain) {
			candidate.Unusable = append(candidate.Unusable, "is on another site than the control-plane endpoint: control-plane machines need a failure domain without a subnet in spec.network.subnets")
		}
		for _, served := range h.Status.DomainTypes {
			candidate.DomainTypes = append(candidate.DomainTypes, string(served))
		}
		if err := r.measure(ctx, s, h, &candidate); err != nil {
			return nil, err
		}
		candidates = append(candidates, candidate)
	}
	return candidates, nil
}

// withdrawn gives all reasons why nothing can be placed on a host because somebody wants it so, and none when it can.
func withdrawn(h *infrav1.LibvirtHost, selector labels.Selector) []string {
	var reasons []string
	if !h.DeletionTimestamp.IsZero() {
		reasons = append(reasons, "is being deleted")
	}
	if !selector.Matches(labels.Set(h.Labels)) {
		// Its machines are still there, or it would have left the cluster.
		reasons = append(reasons, "isn't selected by spec.hostSelector any more")
	}
	if h.Spec.Scheduling == infrav1.HostSchedulingDisabled {
		reasons = append(reasons, "spec.scheduling is Disabled")
	}
	return reasons
}

// unusable gives all reasons why nothing can be placed on a host now, and none when it can.
func unusable(h *infrav1.LibvirtHost, selector labels.Selector) []string {
	reasons := withdrawn(h, selector)
	if !conditions.IsTrue(h, infrav1.ReadyCondition) {
		reasons = append(reasons, "isn't ready: "+hostTrouble(conditions.Get(h, infrav1.ReadyCondition)))
	}
	return reasons
}

// measure finds what a host has, what of it is promised, and which machines of the same kind are there already.
func (r *LibvirtMachineReconciler) measure(ctx context.Context, s *machineScope, h *infrav1.LibvirtHost, candidate *placement.Candidate) error {
	var list infrav1.LibvirtMachineList
	if err := r.Client.List(ctx, &list, client.InNamespace(h.Namespace), client.MatchingFields{hostNameField: h.Name}); err != nil {
		return fmt.Errorf("listing LibvirtMachines: %w", err)
	}
	key := hostKey(h.Namespace, h.Name)
	machines := slices.Concat(list.Items, r.promises.unseen(key, string(s.libvirtMachine.UID), list.Items))
	candidate.Siblings = countSiblings(machines, spreadGroup(s.machine.Labels))
	kvm, err := r.Hosts.Get(key)
	if err != nil {
		// What is on it can't be known.
		if len(candidate.Unusable) == 0 {
			candidate.Unusable = append(candidate.Unusable, err.Error())
		}
		return nil
	}
	candidate.Room = rooms(h, promisedOn(kvm.Domains(), machines).withRetained(h, machines))
	candidate.Devices = offeredDevices(h, machines)
	return nil
}

// spreadGroup names the machines that a machine belongs together with, by its labels: those of its cluster's control
// plane, or of its MachineSet. In a rollout the old MachineSet of a MachineDeployment doesn't count: its machines are
// about to go. Empty for a machine that belongs to none.
func spreadGroup(labels map[string]string) string {
	cluster := labels[clusterv1.ClusterNameLabel]
	if _, ok := labels[clusterv1.MachineControlPlaneLabel]; ok {
		return cluster + "/control-plane"
	}
	for _, label := range []string{clusterv1.MachineSetNameLabel, clusterv1.MachineDeploymentNameLabel} {
		if name := labels[label]; name != "" {
			return cluster + "/" + label + "=" + name
		}
	}
	return ""
}

// countSiblings counts the machines of a group that are on a host to stay.
func countSiblings(machines []infrav1.LibvirtMachine, group string) int {
	if group == "" {
		return 0
	}
	count := 0
	for i := range machines {
		placed := machines[i].Spec.ProviderID != "" && machines[i].DeletionTimestamp.IsZero()
		if placed && spreadGroup(machines[i].Labels) == group {
			count++
		}
	}
	return count
}
