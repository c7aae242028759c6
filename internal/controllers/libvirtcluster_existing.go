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
	"net/netip"
	"slices"
	"strings"

	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/host"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/network"
)

// noteUse notes whether the cluster uses an existing network on a host, for which it may be unfit. Such a one isn't used,
// unless machines are in it already.
func (r *LibvirtClusterReconciler) noteUse(ctx context.Context, s *clusterScope, hostName string, unfit error) error {
	hosts := &s.libvirtCluster.Status.Hosts
	var wait *waiting
	switch {
	case unfit == nil && !slices.Contains(*hosts, hostName):
		*hosts = append(*hosts, hostName)
		slices.Sort(*hosts)
	case errors.As(unfit, &wait) && !wait.unknown && slices.Contains(*hosts, hostName):
		machines, err := r.machines(ctx, s.cluster, client.MatchingFields{hostNameField: hostName})
		if err != nil {
			return err
		}
		if len(machines) == 0 {
			*hosts = slices.DeleteFunc(*hosts, func(name string) bool { return name == hostName })
		}
	}
	return unfit
}

// networkUse is what a cluster uses an existing network of a host for.
type networkUse struct {
	host, name, endpoint string
	nodes                network.Range
	ingress              netip.Prefix
}

// fitNetwork is an existing network that was seen fit in one epoch of it.
type fitNetwork struct {
	uuid  string
	epoch uint64
}

// checkNetwork makes sure that an existing network is up on a host and leaves the cluster its addresses. It changes
// nothing there. A host can't be asked for its bridges: whether one is there shows when a domain starts.
func (r *LibvirtClusterReconciler) checkNetwork(ctx context.Context, s *clusterScope, h *infrav1.LibvirtHost) error {
	kvm, err := connected(r.Hosts, h.Namespace, h.Name)
	name := s.libvirtCluster.Spec.Network.Name
	if err != nil || name == "" {
		return err
	}
	key := networkUse{hostKey(h.Namespace, h.Name), name, s.libvirtCluster.Spec.ControlPlaneEndpoint.Host, s.plans.Main.Nodes, s.plans.Main.Ingress}
	known, ok := r.fit.get(key, 0)
	if ok && known.epoch == r.Events.epoch(key.host, known.uuid) {
		return nil
	}
	r.fit.forget(key)
	others, err := kvm.Networks(ctx)
	if err != nil {
		return fmt.Errorf("listing networks: %w", err)
	}
	k := slices.IndexFunc(others, func(n host.Network) bool { return n.Name == name })
	if k < 0 {
		return &waiting{reason: infrav1.ClusterNetworkNotFoundReason, message: fmt.Sprintf(
			"spec.network.name: the host has no libvirt network %s: define it there, or select other hosts with spec.hostSelector", name)}
	}
	// What happens from now on begins another epoch.
	epoch := r.Events.epoch(key.host, others[k].UUID)
	found, err := kvm.Network(ctx, others[k].UUID)
	if err != nil {
		return fmt.Errorf("looking up the network: %w", err)
	}
	if !found.Active {
		return &waiting{reason: infrav1.ClusterNetworkInactiveReason, message: fmt.Sprintf(
			"spec.network.name: the libvirt network %s is stopped: start it with virsh net-start %s and virsh net-autostart %s", name, name, name)}
	}
	if err := network.CheckExisting(s.plans.Main, key.endpoint, found.XML); err != nil {
		return conflict("spec.%s", err)
	}
	r.fit.set(key, 0, fitNetwork{found.UUID, epoch})
	return nil
}

// checkOtherClusters makes sure that no other cluster gives out the same addresses of an existing network. Admission
// refuses that too, but can't see what is created at the same moment: the elder of two clusters has the right of way.
func (r *LibvirtClusterReconciler) checkOtherClusters(ctx context.Context, s *clusterScope) error {
	var clusters infrav1.LibvirtClusterList
	if err := r.Client.List(ctx, &clusters); err != nil {
		return fmt.Errorf("listing LibvirtClusters: %w", err)
	}
	var hosts infrav1.LibvirtHostList
	if err := r.Client.List(ctx, &hosts); err != nil {
		return fmt.Errorf("listing LibvirtHosts: %w", err)
	}
	elders := slices.DeleteFunc(clusters.Items, func(c infrav1.LibvirtCluster) bool { return !elder(&c, s.libvirtCluster) })
	if clash := network.FindClash(s.libvirtCluster, elders, hosts.Items); clash != nil {
		return conflict("spec.%s %s: %s", clash.Field, clash.Value, clash.Detail)
	}
	return nil
}

// elder tells whether a was there before b.
func elder(a, b *infrav1.LibvirtCluster) bool {
	if !a.CreationTimestamp.Equal(&b.CreationTimestamp) {
		return a.CreationTimestamp.Before(&b.CreationTimestamp)
	}
	return strings.Compare(client.ObjectKeyFromObject(a).String(), client.ObjectKeyFromObject(b).String()) < 0
}
