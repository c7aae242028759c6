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
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
	"sigs.k8s.io/cluster-api/util/conditions"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/gateway"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/host"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/network"
)

// links is what a reconcile of a cluster has gathered of the links between its hosts. It is empty without spec.network.siteLink.
type links struct {
	// members are the hosts that are linked, those that are out of reach among them, by name. staying are those of them that
	// are ready and not selected any more: machines are on them.
	members, staying []*infrav1.LibvirtHost
	// sites are the members as the link has to do with them, and agents what the agents told of those that could be asked.
	sites  []network.Site
	agents map[string]agentSighting
	// wanted is what a host is told, by its name, and unread why it isn't known what it was told before.
	wanted map[string]*gateway.Link
	unread map[string]error
	// troubles keep hosts from being linked, and failures kept agents from being asked.
	troubles []*waiting
	failures []error
}

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

// siteOf is a host as its LibvirtHost has it.
func siteOf(h *infrav1.LibvirtHost, plan network.Plan) network.Site {
	site := network.Site{Name: h.Name, Plan: plan}
	if guard := h.Spec.WireGuard; guard != nil {
		site.Port = uint16(cmp.Or(guard.Port, infrav1.DefaultWireGuardPort))
		if addr, err := network.ParseWireGuardAddress(guard.Address); err == nil {
			site.Address = addr
		}
	}
	site.Key, site.Next = recordedKey(h.Status.WireGuard.PublicKey), recordedKey(h.Status.WireGuard.NextPublicKey)
	return site
}

// recordedKey reads a key that was written down, zero when none was.
func recordedKey(text string) wgtypes.Key {
	key, err := wgtypes.ParseKey(text)
	if err != nil {
		return wgtypes.Key{}
	}
	return key
}

// linkPatience is how long the hosts of a cluster wait for what one of them tells of its key: it had one before, as a rule.
const linkPatience = 5 * time.Second

// gatherLinks asks the agents of the hosts for their keys, writes those down, and decides what each host is told of the
// others. A host that doesn't answer is known by what was written down.
func (r *LibvirtClusterReconciler) gatherLinks(ctx context.Context, s *clusterScope) {
	l := &s.links
	if len(l.members) == 0 {
		return
	}
	l.agents, l.wanted, l.unread = map[string]agentSighting{}, map[string]*gateway.Link{}, map[string]error{}
	ready := slices.DeleteFunc(slices.Concat(s.hosts, l.staying), func(h *infrav1.LibvirtHost) bool { return !isIn(h, l.members) })
	var mu sync.Mutex
	patience, cancel := context.WithTimeout(ctx, linkPatience)
	defer cancel()
	for i, err := range onEach(patience, ready, func(ctx context.Context, h *infrav1.LibvirtHost) error {
		agent, err := r.agent(ctx, h)
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		l.agents[h.Name] = agent
		return nil
	}) {
		if err != nil {
			l.failures = append(l.failures, wrapHost(ready[i].Name, err))
		}
	}
	for _, h := range l.members {
		site := siteOf(h, s.plans.For(failureDomain(h)))
		if agent, ok := l.agents[h.Name]; ok && agent.status.Link != nil {
			site.Key, site.Next, site.Peers = agent.status.Link.Key, agent.status.Link.Next, agent.status.Link.Peers
			site.Applied = appliedLink(agent.status, s.libvirtCluster.Spec.Network.UUID)
			if err := r.recordKeys(ctx, h, *agent.status.Link); err != nil {
				l.failures = append(l.failures, err)
			}
		}
		l.sites = append(l.sites, site)
	}
	for i, err := range onEach(patience, ready, func(ctx context.Context, h *infrav1.LibvirtHost) error {
		var told gateway.Link
		if network.NeedsTold(h.Name, l.sites) {
			var err error
			if told, err = r.toldLink(ctx, s, h); err != nil {
				return err
			}
		}
		wanted := network.LinkOn(s.libvirtCluster.Spec.Network, h.Name, l.sites, told)
		mu.Lock()
		defer mu.Unlock()
		l.wanted[h.Name] = wanted
		return nil
	}) {
		if err != nil {
			l.unread[ready[i].Name] = err
		}
	}
}

// appliedLink is the link that a host's agent has applied for a network, without peers when it hasn't.
func appliedLink(status gateway.Status, networkUUID string) gateway.Link {
	for _, n := range status.Networks {
		if n.UUID == networkUUID && n.Applied != nil && n.Applied.Link != nil {
			return *n.Applied.Link
		}
	}
	return gateway.Link{}
}

// toldLink is the link that the metadata of a cluster's network on a host wants, without peers when it wants none that can
// be read.
func (r *LibvirtClusterReconciler) toldLink(ctx context.Context, s *clusterScope, h *infrav1.LibvirtHost) (gateway.Link, error) {
	kvm, err := connected(r.Hosts, h.Namespace, h.Name)
	if err != nil {
		return gateway.Link{}, err
	}
	key := networkOnHost{hostKey(h.Namespace, h.Name), s.libvirtCluster.Spec.Network.UUID}
	epoch := r.Events.epoch(key.host, key.uuid)
	if known, ok := r.told.get(key, epoch); ok {
		return known, nil
	}
	document, err := kvm.NetworkXML(ctx, key.uuid)
	if err != nil && !errors.Is(err, host.ErrNotFound) {
		return gateway.Link{}, fmt.Errorf("looking up what the network wants: %w", err)
	}
	var told gateway.Link
	if err == nil {
		if wanted, err := gateway.Read(document); err == nil && wanted.Link != nil {
			told = *wanted.Link
		}
	}
	r.told.set(key, epoch, told)
	return told, nil
}

// recordKeys writes down by which keys a host is known, for when it is out of reach.
func (r *LibvirtClusterReconciler) recordKeys(ctx context.Context, h *infrav1.LibvirtHost, told gateway.LinkStatus) error {
	keys := infrav1.HostWireGuardStatus{PublicKey: told.Key.String()}
	if told.Next != (wgtypes.Key{}) {
		keys.NextPublicKey = told.Next.String()
	}
	if h.Status.WireGuard == keys {
		return nil
	}
	written := h.DeepCopy()
	written.Status.WireGuard = keys
	if err := r.Client.Status().Patch(ctx, written, client.MergeFrom(h)); err != nil {
		return unasked{fmt.Errorf("writing status.wireGuard of LibvirtHost %s: %w", h.Name, err)}
	}
	return nil
}
