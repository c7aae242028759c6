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
	"net/netip"
	"slices"
	"strings"

	"sigs.k8s.io/cluster-api/util/conditions"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/network"
)

// reconcileMembers finds the hosts that are linked with each other. A host that can't be isn't used, unless it is already.
func (r *LibvirtClusterReconciler) reconcileMembers(ctx context.Context, s *clusterScope) error {
	if !network.HasSiteLink(s.libvirtCluster.Spec.Network) {
		return nil
	}
	candidates, used, err := r.candidateMembers(ctx, s)
	if err != nil {
		return err
	}
	sites := make([]network.Site, 0, len(candidates))
	for _, h := range candidates {
		sites = append(sites, siteOf(h, s.plans.For(failureDomain(h))))
	}
	_, shared := network.OwnRanges(sites)
	for k, h := range candidates {
		trouble := unlinkable(h, sites[k].Plan.Prefix, shared[h.Name])
		if trouble == nil {
			s.links.members = append(s.links.members, h)
			if !isIn(h, s.hosts) && conditions.IsTrue(h, infrav1.ReadyCondition) {
				s.links.staying = append(s.links.staying, h)
			}
			continue
		}
		s.links.troubles = append(s.links.troubles, trouble)
		if used[h.Name] == 0 {
			s.hosts = slices.DeleteFunc(s.hosts, func(other *infrav1.LibvirtHost) bool { return other.Name == h.Name })
		}
	}
	byName := func(a, b *infrav1.LibvirtHost) int { return strings.Compare(a.Name, b.Name) }
	slices.SortFunc(s.links.members, byName)
	slices.SortFunc(s.links.staying, byName)
	if len(s.hosts) == 0 {
		return s.links.troubles[0]
	}
	return nil
}

// candidateMembers are the hosts that the cluster uses or is about to use, and how much it does: 2 is a host with machines,
// 1 one that has the network. They are in the order of their right of way, of which a range is for the first.
func (r *LibvirtClusterReconciler) candidateMembers(ctx context.Context, s *clusterScope) ([]*infrav1.LibvirtHost, map[string]int, error) {
	machines, err := r.machines(ctx, s.cluster)
	if err != nil {
		return nil, nil, err
	}
	used := map[string]int{}
	for _, name := range s.libvirtCluster.Status.Hosts {
		used[name] = 1
	}
	for i := range machines {
		used[machines[i].Spec.HostName] = 2
	}
	var list infrav1.LibvirtHostList
	if err := r.Client.List(ctx, &list, client.InNamespace(s.libvirtCluster.Namespace)); err != nil {
		return nil, nil, fmt.Errorf("listing LibvirtHosts: %w", err)
	}
	var found []*infrav1.LibvirtHost
	for i := range list.Items {
		h := &list.Items[i]
		if (used[h.Name] > 0 || isIn(h, s.hosts)) && !slices.Contains(s.stuck, h.Name) {
			found = append(found, h)
		}
	}
	slices.SortFunc(found, func(a, b *infrav1.LibvirtHost) int {
		return cmp.Or(cmp.Compare(used[b.Name], used[a.Name]), strings.Compare(a.Name, b.Name))
	})
	return found, used, nil
}

func isIn(h *infrav1.LibvirtHost, hosts []*infrav1.LibvirtHost) bool {
	return slices.ContainsFunc(hosts, func(other *infrav1.LibvirtHost) bool { return other.Name == h.Name })
}

// unlinkable says what keeps a host from being linked with others, nil when nothing does. Shared names the host that has
// its range.
func unlinkable(h *infrav1.LibvirtHost, prefix netip.Prefix, shared string) *waiting {
	switch {
	case shared != "":
		return &waiting{reason: infrav1.ClusterSitesSharedRangeReason, message: fmt.Sprintf(
			"%s and %s both have the range %s, and a link can lead to one of them only: give %s a spec.failureDomain with a range in spec.network.subnets, or take it out of spec.hostSelector",
			shared, h.Name, prefix, h.Name)}
	case h.Spec.WireGuard == nil:
		return &waiting{reason: infrav1.ClusterSitesWireGuardNotSetReason, message: fmt.Sprintf(
			"%s: the LibvirtHost doesn't say how the others reach it: set its spec.wireGuard.address, or spec.wireGuard to {} if they don't", h.Name)}
	}
	return nil
}
