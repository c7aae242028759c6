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
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/gateway"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/network"
)

// reconcileLinks tells what has become of the links between the hosts.
func (r *LibvirtClusterReconciler) reconcileLinks(_ context.Context, s *clusterScope) error {
	l := s.links
	if len(l.sites)+len(l.troubles) == 0 {
		return &waiting{
			reason: infrav1.NotYetReason, message: "Waits for " + infrav1.ClusterNetworkReadyCondition, unknown: true, keep: true,
		}
	}
	var seen []gatewayOnHost
	for _, h := range l.members {
		if agent, ok := l.agents[h.Name]; ok {
			seen = append(seen, gatewayOnHost{name: h.Name, wanted: *s.definition(h).Gateway, agent: agent})
		}
	}
	view := linkView{sites: l.sites, seen: seen, ranges: s.plans.Prefixes(), networkUUID: s.libvirtCluster.Spec.Network.UUID, now: time.Now(), silence: r.AgentSilence}
	troubles := append(slices.Clone(l.troubles), view.troubles()...)
	slices.SortStableFunc(troubles, func(a, b *waiting) int {
		return cmp.Compare(slices.Index(linkReasons, a.reason), slices.Index(linkReasons, b.reason))
	})
	if len(troubles)+len(l.failures) == 0 {
		if stillSilent(s.libvirtCluster, infrav1.ClusterSitesLinkedCondition, seen) {
			return &waiting{reason: infrav1.ClusterGatewayAgentSilentReason, keep: true}
		}
		return rotating(l.sites)
	}
	all := make([]error, 0, len(troubles)+len(l.failures))
	for _, trouble := range troubles {
		trouble.message = shortened(trouble.message)
		all = append(all, trouble)
	}
	return together(append(all, l.failures...))
}

// rotating says which hosts are about to go over to another key, nil when none is.
func rotating(sites []network.Site) error {
	var names []string
	for _, s := range sites {
		if s.Next != (wgtypes.Key{}) {
			names = append(names, s.Name)
		}
	}
	if len(names) == 0 {
		return nil
	}
	return &waiting{reason: infrav1.ClusterSitesLinkedReason, done: true, message: fmt.Sprintf(
		"%s: goes over to another key, one host at a time, once the hosts of all others know it", strings.Join(names, ", "))}
}

// linkReasons are the reasons for which hosts aren't linked. What a person has to see to comes before what passes.
var linkReasons = []string{
	infrav1.ClusterSitesWireGuardNotSetReason, infrav1.ClusterSitesSharedRangeReason, infrav1.ClusterSitesAddressConflictReason,
	infrav1.ClusterGatewayAgentNotSeenReason, infrav1.ClusterGatewayAgentSilentReason, infrav1.ClusterGatewayRefusedReason,
	infrav1.ClusterGatewayFailedReason, infrav1.ClusterGatewayClashReason, infrav1.ClusterSitesKeyConflictReason,
	infrav1.ClusterSitesKeyNotToldReason, infrav1.ClusterGatewayNotAppliedReason, infrav1.ClusterSitesNotConnectedReason,
}

// linkView is what there is to judge the links of a cluster by.
type linkView struct {
	sites []network.Site
	// seen are the hosts whose agents could be asked.
	seen []gatewayOnHost
	// ranges are all that the cluster has.
	ranges      []netip.Prefix
	networkUUID string
	now         time.Time
	silence     time.Duration
}

// troubles says what keeps the hosts from being linked.
func (v linkView) troubles() []*waiting {
	var troubles []*waiting
	add := func(reason, format string, args ...any) {
		troubles = append(troubles, &waiting{reason: reason, message: fmt.Sprintf(format, args...)})
	}
	for _, s := range v.sites {
		if k := slices.IndexFunc(v.ranges, func(r netip.Prefix) bool { return r.Contains(s.Address) }); k >= 0 {
			add(infrav1.ClusterSitesAddressConflictReason, "%s: spec.wireGuard.address %s of the LibvirtHost lies in %s, which is a range of the cluster itself: use one at which the other hosts reach this one",
				s.Name, s.Address, v.ranges[k])
		}
	}
	telling := map[string]bool{}
	for _, g := range v.seen {
		// What the agent lets in otherwise isn't asked here.
		if trouble := g.trouble(v.networkUUID, v.now, v.silence); trouble != nil && slices.Contains(linkReasons, trouble.reason) {
			add(trouble.reason, "%s: %s", g.name, trouble.message)
			continue
		}
		if g.agent.status.Link == nil {
			add(infrav1.ClusterSitesKeyNotToldReason, "%s: the host agent hasn't told its public key: wait, or see journalctl -u cluster-api-host-agent on the host", g.name)
			continue
		}
		telling[g.name] = true
	}
	for i, a := range v.sites {
		if a.Key == (wgtypes.Key{}) && !slices.ContainsFunc(v.seen, func(g gatewayOnHost) bool { return g.name == a.Name }) {
			add(infrav1.ClusterSitesKeyNotToldReason, "%s: the host isn't connected, and its public key isn't known yet", a.Name)
		}
		for _, b := range v.sites[i+1:] {
			if trouble := between(a, b, telling); trouble != nil {
				troubles = append(troubles, trouble)
			}
		}
	}
	return troubles
}

// between says what keeps two hosts from being linked, nil when nothing does. What isn't asked for is known of those that
// are telling.
func between(a, b network.Site, telling map[string]bool) *waiting {
	trouble := func(reason, format string, args ...any) *waiting {
		return &waiting{reason: reason, message: fmt.Sprintf("%s and %s "+format, append([]any{a.Name, b.Name}, args...)...)}
	}
	none := wgtypes.Key{}
	switch {
	case !a.Address.IsValid() && !b.Address.IsValid():
		return trouble(infrav1.ClusterSitesAddressConflictReason, "can't reach each other, because neither LibvirtHost has a spec.wireGuard.address: set that of one of them")
	case a.Address == b.Address && a.Port == b.Port:
		return trouble(infrav1.ClusterSitesAddressConflictReason, "both have the spec.wireGuard.address %s and the port %d: correct one of the LibvirtHosts", a.Address, a.Port)
	case a.Key == none || b.Key == none:
		return nil
	case a.Key == b.Key:
		return trouble(infrav1.ClusterSitesKeyConflictReason, "have the same public key, as clones of one machine do: remove /var/lib/cluster-api-host-agent on one of them and start its host agent again")
	}
	for _, view := range [][2]network.Site{{a, b}, {b, a}} {
		from, to := view[0], view[1]
		if !telling[from.Name] {
			continue
		}
		peer, ok := peerByKey(from.Peers, to.Key)
		if !ok {
			return &waiting{reason: infrav1.ClusterGatewayNotAppliedReason, message: fmt.Sprintf(
				"%s: the host agent has yet to set up the link to %s: wait", from.Name, to.Name)}
		}
		if !peer.Connected {
			return trouble(infrav1.ClusterSitesNotConnectedReason, "aren't connected, %s hasn't heard of %s lately: let UDP through every firewall on the way to %s, and see to spec.wireGuard of the two LibvirtHosts",
				from.Name, to.Name, endpoints(a, b))
		}
	}
	return nil
}

func peerByKey(peers []gateway.PeerStatus, key wgtypes.Key) (gateway.PeerStatus, bool) {
	k := slices.IndexFunc(peers, func(p gateway.PeerStatus) bool { return slices.Contains(p.Keys, key) })
	if k < 0 {
		return gateway.PeerStatus{}, false
	}
	return peers[k], true
}

// endpoints lists where sites can be reached.
func endpoints(sites ...network.Site) string {
	var found []string
	for _, s := range sites {
		if s.Address.IsValid() {
			found = append(found, netip.AddrPortFrom(s.Address, s.Port).String())
		}
	}
	return strings.Join(found, " and ")
}
