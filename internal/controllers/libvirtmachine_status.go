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
	"k8s.io/utils/ptr"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/cluster-api/util/conditions"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
)

// machineConditions are the conditions that the reconciler owns.
var machineConditions = []string{
	infrav1.ReadyCondition, infrav1.MachinePlacedCondition, infrav1.MachineImageReadyCondition,
	infrav1.MachineBootstrapDataReadyCondition, infrav1.MachineDomainReadyCondition,
	infrav1.MachineBootstrapSucceededCondition, infrav1.MachineBootstrapDataRemovedCondition, infrav1.DeletingCondition,
	clusterv1.PausedCondition,
}

// provisionedAnnotation marks a machine whose domain was started once. The status, which says the same, is lost in a
// move to another management cluster; without the mark a domain that went missing would be made again from bootstrap
// data of the past.
const provisionedAnnotation = "infrastructure.cluster.x-k8s.io/libvirt-provisioned"

func provisioned(libvirtMachine *infrav1.LibvirtMachine) bool {
	_, marked := libvirtMachine.Annotations[provisionedAnnotation]
	return marked || ptr.Deref(libvirtMachine.Status.Initialization.Provisioned, false)
}

// setProvisioned notes that the domain was started.
func setProvisioned(libvirtMachine *infrav1.LibvirtMachine) {
	libvirtMachine.Status.Initialization.Provisioned = ptr.To(true)
	if libvirtMachine.Annotations == nil {
		libvirtMachine.Annotations = map[string]string{}
	}
	libvirtMachine.Annotations[provisionedAnnotation] = "true"
}

// reportMachine writes what was observed to the status and sums up the conditions.
func reportMachine(s *machineScope) {
	status := &s.libvirtMachine.Status
	if s.libvirtHost != nil && s.uuid != "" {
		status.FailureDomain = failureDomain(s.libvirtHost)
	}
	switch {
	case s.domain != nil:
		status.Domain = infrav1.DomainStatus{Name: s.domain.Name, State: string(s.domain.State)}
	case s.host == nil, conditions.IsUnknown(s.libvirtMachine, infrav1.MachineDomainReadyCondition):
		// The host can't be asked: what it said last stands.
	default:
		status.Domain = infrav1.DomainStatus{}
	}
	counting := []string{
		infrav1.MachinePlacedCondition, infrav1.MachineImageReadyCondition, infrav1.MachineBootstrapDataReadyCondition,
		infrav1.MachineDomainReadyCondition,
	}
	// A bootstrap of which nothing is known is no reason to doubt the machine.
	if conditions.IsFalse(s.libvirtMachine, infrav1.MachineBootstrapSucceededCondition) {
		counting = append(counting, infrav1.MachineBootstrapSucceededCondition)
	}
	setReady(s.libvirtMachine, infrav1.ReadyReason, counting...)
}

// setAddress reports the address that is reserved for a machine and the names it goes by.
func setAddress(s *machineScope, ip string) {
	s.libvirtMachine.Status.Addresses = []clusterv1.MachineAddress{
		{Type: clusterv1.MachineInternalIP, Address: ip},
		{Type: clusterv1.MachineHostName, Address: hostname(s)},
		{Type: clusterv1.MachineInternalDNS, Address: hostname(s)},
	}
}

// internalIP is the reported address of a machine, empty when there is none.
func internalIP(libvirtMachine *infrav1.LibvirtMachine) string {
	for _, address := range libvirtMachine.Status.Addresses {
		if address.Type == clusterv1.MachineInternalIP {
			return address.Address
		}
	}
	return ""
}
