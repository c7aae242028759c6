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

package plugin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/spf13/cobra"
	"libvirt.org/go/libvirtxml"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/cluster-api/util/conditions"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/domain"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/host"
)

func newTreeCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "tree CLUSTER",
		Short: "Show a cluster down to the volumes on its hosts",
		Long: `Show a Cluster with its machines, the hosts that they are on, their domains and the volumes of
these. Domains and volumes are asked for on the hosts; a host that can't be reached is shown as such.`,
		Args: cobra.ExactArgs(1),
		RunE: func(command *cobra.Command, args []string) error {
			return o.run(command.Context(), func(ctx context.Context, s *session) error {
				root, err := s.clusterTree(ctx, args[0])
				if err != nil {
					return err
				}
				return writeTree(s.Out, root)
			})
		},
	}
}

// reached is a host, or why it can't be reached.
type reached struct {
	host *host.Host
	err  error
}

// clusterTree is the tree of a cluster.
func (s *session) clusterTree(ctx context.Context, name string) (node, error) {
	cluster := &clusterv1.Cluster{}
	if err := s.client.Get(ctx, client.ObjectKey{Namespace: s.namespace, Name: name}, cluster); err != nil {
		return node{}, fmt.Errorf("reading Cluster %s in namespace %s: %w", name, s.namespace, err)
	}
	inCluster := []client.ListOption{client.InNamespace(s.namespace), client.MatchingLabels{clusterv1.ClusterNameLabel: name}}
	var machines clusterv1.MachineList
	var libvirtMachines infrav1.LibvirtMachineList
	var libvirtClusters infrav1.LibvirtClusterList
	if err := errors.Join(
		s.client.List(ctx, &machines, inCluster...), s.client.List(ctx, &libvirtMachines, inCluster...), s.client.List(ctx, &libvirtClusters, inCluster...),
	); err != nil {
		return node{}, fmt.Errorf("listing what belongs to Cluster %s: %w", name, err)
	}
	root := node{name: "Cluster/" + name, state: cluster.Status.Phase, details: endpoint(cluster)}
	for i := range libvirtClusters.Items {
		root.children = append(root.children, libvirtClusterNode(&libvirtClusters.Items[i]))
	}
	infrastructure := map[string]*infrav1.LibvirtMachine{}
	for i := range libvirtMachines.Items {
		infrastructure[libvirtMachines.Items[i].Name] = &libvirtMachines.Items[i]
	}
	hosts := s.connectAll(ctx, libvirtMachines.Items)
	groups := map[string]*node{}
	for i := range machines.Items {
		machine := &machines.Items[i]
		set := setOf(machine)
		if groups[set] == nil {
			groups[set] = &node{name: set}
		}
		groups[set].children = append(groups[set].children,
			s.machineNode(ctx, machine, infrastructure[machine.Spec.InfrastructureRef.Name], hosts))
	}
	for _, set := range sortedSets(groups) {
		root.children = append(root.children, *groups[set])
	}
	return root, nil
}

func endpoint(cluster *clusterv1.Cluster) string {
	if !cluster.Spec.ControlPlaneEndpoint.IsValid() {
		return ""
	}
	return "https://" + cluster.Spec.ControlPlaneEndpoint.String()
}

func libvirtClusterNode(c *infrav1.LibvirtCluster) node {
	return node{name: "LibvirtCluster/" + c.Name, state: readiness(c), details: "network " + c.Spec.Network.CIDR + " on " + strings.Join(c.Status.Hosts, ", ")}
}

// readiness is the reason of the Ready condition: Ready, or what is in the way.
func readiness(object conditions.Getter) string {
	return cmp.Or(conditions.GetReason(object, infrav1.ReadyCondition), "Unknown")
}

// controlPlane is the name of the set of control-plane machines.
const controlPlane = "ControlPlane"

// setOf is what a machine is one of.
func setOf(machine *clusterv1.Machine) string {
	if _, ok := machine.Labels[clusterv1.MachineControlPlaneLabel]; ok {
		return controlPlane
	}
	if name := machine.Labels[clusterv1.MachineDeploymentNameLabel]; name != "" {
		return "MachineDeployment/" + name
	}
	return "Machines"
}

// sortedSets has the control plane first, and sorts the machines of each set.
func sortedSets(groups map[string]*node) []string {
	sets := make([]string, 0, len(groups))
	for set, group := range groups {
		sets = append(sets, set)
		slices.SortFunc(group.children, func(a, b node) int { return cmp.Compare(a.name, b.name) })
	}
	slices.SortFunc(sets, func(a, b string) int {
		if (a == controlPlane) != (b == controlPlane) {
			if a == controlPlane {
				return -1
			}
			return 1
		}
		return cmp.Compare(a, b)
	})
	return sets
}

// connectAll connects the hosts of machines, all at the same time.
func (s *session) connectAll(ctx context.Context, machines []infrav1.LibvirtMachine) map[string]reached {
	found := map[string]reached{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	asked := map[string]bool{}
	for i := range machines {
		name := machines[i].Spec.HostName
		if name == "" || asked[name] {
			continue
		}
		asked[name] = true
		wg.Go(func() {
			kvm, err := s.connect(ctx, name)
			mu.Lock()
			defer mu.Unlock()
			found[name] = reached{kvm, err}
		})
	}
	wg.Wait()
	return found
}

func (s *session) machineNode(ctx context.Context, machine *clusterv1.Machine, libvirtMachine *infrav1.LibvirtMachine, hosts map[string]reached) node {
	n := node{name: "Machine/" + machine.Name, state: machine.Status.Phase, details: machine.Spec.Version}
	switch {
	case libvirtMachine == nil:
		return n
	case libvirtMachine.Spec.HostName == "":
		n.children = []node{{name: "LibvirtMachine/" + libvirtMachine.Name, state: readiness(libvirtMachine), details: conditions.GetMessage(libvirtMachine, infrav1.ReadyCondition)}}
		return n
	}
	on := hosts[libvirtMachine.Spec.HostName]
	hostNode := node{name: "LibvirtHost/" + libvirtMachine.Spec.HostName, state: "Connected"}
	if on.err != nil {
		hostNode.state, hostNode.details = "Unreachable", on.err.Error()
	} else {
		hostNode.children = []node{domainNode(ctx, on.host, libvirtMachine)}
	}
	n.children = []node{hostNode}
	return n
}

// domainNode is the domain of a machine, with its volumes.
func domainNode(ctx context.Context, kvm *host.Host, libvirtMachine *infrav1.LibvirtMachine) node {
	uuid := domain.UUID(libvirtMachine.Spec.ProviderID)
	found, err := kvm.Domain(uuid)
	if errors.Is(err, host.ErrNotFound) {
		return node{name: "Domain/" + uuid, state: "Missing", details: readiness(libvirtMachine)}
	}
	if err != nil {
		return node{name: "Domain/" + uuid, state: "Unknown", details: err.Error()}
	}
	n := node{
		name: "Domain/" + found.Name, state: string(found.State),
		size: fmt.Sprintf("%d vCPU, %s", found.VCPUs, bytesText(found.MaxMemoryBytes)), details: address(libvirtMachine),
	}
	if found.Reason != "" {
		n.state += " (" + found.Reason + ")"
	}
	document, err := kvm.DomainXML(ctx, uuid)
	if err != nil {
		n.children = []node{{name: "Volumes", state: "Unknown", details: err.Error()}}
		return n
	}
	files, err := diskFiles(document)
	if err != nil {
		n.children = []node{{name: "Volumes", state: "Unknown", details: err.Error()}}
		return n
	}
	for _, file := range files {
		n.children = append(n.children, volumeNode(ctx, kvm, file))
	}
	return n
}

func address(libvirtMachine *infrav1.LibvirtMachine) string {
	for _, a := range libvirtMachine.Status.Addresses {
		if a.Type == clusterv1.MachineInternalIP {
			return a.Address
		}
	}
	return libvirtMachine.Spec.Address
}

// diskFiles are the files that the disks of a domain are on.
func diskFiles(document string) ([]string, error) {
	var dom libvirtxml.Domain
	if err := dom.Unmarshal(document); err != nil {
		return nil, fmt.Errorf("parsing the domain: %w", err)
	}
	var files []string
	if dom.Devices == nil {
		return nil, nil
	}
	for i := range dom.Devices.Disks {
		if source := dom.Devices.Disks[i].Source; source != nil && source.File != nil && source.File.File != "" {
			files = append(files, source.File.File)
		}
	}
	return files, nil
}

// volumeNode is the volume that is a file of a host.
func volumeNode(ctx context.Context, kvm *host.Host, file string) node {
	n := node{name: "Volume/" + path.Base(file)}
	pool, volume, err := kvm.VolumeAt(ctx, file)
	switch {
	case errors.Is(err, host.ErrNotFound):
		n.state, n.details = "Missing", file+" is in no active storage pool"
	case err != nil:
		n.state, n.details = "Unknown", err.Error()
	default:
		n.state = "Present"
		n.size = bytesText(volume.AllocationBytes) + " of " + bytesText(volume.CapacityBytes)
		n.details = "pool " + pool
		if volume.BackingPath != "" {
			n.details += ", over " + path.Base(volume.BackingPath)
		}
	}
	return n
}
