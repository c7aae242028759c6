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
	"slices"
	"sync"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
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

// linkPatience is how long a host may take to tell its key before the others go by what was written down.
const linkPatience = 10 * time.Second

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
	for i, err := range onEach(ctx, ready, func(ctx context.Context, h *infrav1.LibvirtHost) error {
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
