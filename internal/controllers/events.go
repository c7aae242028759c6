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
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/domain"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/gateway"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/host"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/network"
)

// HostEvents wakes the reconcilers when something changes on a host. It is the one consumer of the pool's events.
type HostEvents struct {
	// Client reads LibvirtMachines and LibvirtClusters from the cache.
	Client client.Reader
	// Pool of the hosts.
	Pool *host.Pool
	// WatchFilterValue is that of the label of the objects to wake; all are when it is empty.
	WatchFilterValue string

	hosts, clusters, machines queues

	mu     sync.Mutex
	counts map[string]uint64
}

// anyNetwork, in the place of a network's UUID, is the epoch of all networks of a host.
const anyNetwork = "any network"

// epoch counts what happened to a host, or to one of its networks: what was seen in another epoch may not be true any
// more. A new connection begins a new epoch for all of a host.
func (e *HostEvents) epoch(host, networkUUID string) uint64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	count := e.counts[host]
	if networkUUID != "" {
		count += e.counts[host+" "+networkUUID]
	}
	return count
}

func (e *HostEvents) count(event host.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.counts == nil {
		e.counts = map[string]uint64{}
	}
	switch event.Kind {
	case host.NetworkChanged:
		e.counts[event.Host+" "+event.UUID]++
		if event.UUID != gateway.StatusNetworkUUID {
			e.counts[event.Host+" "+anyNetwork]++
		}
	case host.HostConnected, host.StoragePoolChanged:
		e.counts[event.Host]++
	}
}

type queue = workqueue.TypedRateLimitingInterface[reconcile.Request]

// queues are the work queues of the controllers that watch a source.
type queues struct {
	mu    sync.Mutex
	items []queue
}

func (q *queues) source() source.Source {
	return source.Func(func(_ context.Context, queue queue) error {
		q.mu.Lock()
		defer q.mu.Unlock()
		q.items = append(q.items, queue)
		return nil
	})
}

func (q *queues) add(key types.NamespacedName) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, queue := range q.items {
		queue.Add(reconcile.Request{NamespacedName: key})
	}
}

// Start hands on events until ctx ends.
func (e *HostEvents) Start(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case event := <-e.Pool.Events():
			e.count(event)
			if err := e.dispatch(ctx, event); err != nil {
				// The cache can't be read only while the manager stops.
				ctrl.LoggerFrom(ctx).Error(err, "Failed to hand on an event", "host", event.Host, "kind", event.Kind)
			}
		}
	}
}

func (e *HostEvents) dispatch(ctx context.Context, event host.Event) error {
	switch event.Kind {
	case host.DomainChanged:
		return e.domainChanged(ctx, hostOf(event.Host), event.UUID)
	case host.NetworkChanged:
		if event.UUID == gateway.StatusNetworkUUID {
			// The agent renews its status every minute, which is nothing to machines.
			return e.wakeClusters(ctx, behindAgents, client.InNamespace(hostOf(event.Host).Namespace))
		}
		// A network that isn't ours may be what was in the way of one of ours.
		key := hostOf(event.Host)
		if err := e.wakeClusters(ctx, allClusters, client.InNamespace(key.Namespace)); err != nil {
			return err
		}
		if err := e.wakeMachines(ctx, client.InNamespace(key.Namespace), client.MatchingFields{hostNameField: key.Name}); err != nil {
			return err
		}
		return e.wakeMachines(ctx, client.InNamespace(key.Namespace), client.MatchingFields{hostNameField: noHost})
	case host.StoragePoolChanged:
		key := hostOf(event.Host)
		e.hosts.add(key)
		return e.wakeMachines(ctx, client.InNamespace(key.Namespace), client.MatchingFields{hostNameField: key.Name})
	case host.HostConnected, host.HostDisconnected:
		key := hostOf(event.Host)
		e.hosts.add(key)
		if err := e.wakeClusters(ctx, allClusters, client.InNamespace(key.Namespace)); err != nil {
			return err
		}
		if err := e.wakeMachines(ctx, client.InNamespace(key.Namespace), client.MatchingFields{hostNameField: key.Name}); err != nil {
			return err
		}
		return e.wakeMachines(ctx, client.InNamespace(key.Namespace), client.MatchingFields{hostNameField: noHost})
	}
	return nil
}

// domainChanged wakes the machines that a domain may be, in all namespaces: an operator may have migrated it. A domain that
// is no machine of the host's takes or gives back room all the same, which the LibvirtHost reports: that wakes those who
// wait for room.
func (e *HostEvents) domainChanged(ctx context.Context, key types.NamespacedName, uuid string) error {
	var list infrav1.LibvirtMachineList
	if err := e.Client.List(ctx, &list, e.filtered([]client.ListOption{client.MatchingFields{providerIDField: domain.ProviderID(uuid)}})...); err != nil {
		return err
	}
	known := false
	for i := range list.Items {
		m := &list.Items[i]
		known = known || m.Namespace == key.Namespace && m.Spec.HostName == key.Name
		e.machines.add(client.ObjectKeyFromObject(m))
	}
	if !known {
		e.hosts.add(key)
	}
	return nil
}

func (e *HostEvents) wakeMachines(ctx context.Context, options ...client.ListOption) error {
	var list infrav1.LibvirtMachineList
	if err := e.Client.List(ctx, &list, e.filtered(options)...); err != nil {
		return err
	}
	for i := range list.Items {
		e.machines.add(client.ObjectKeyFromObject(&list.Items[i]))
	}
	return nil
}

func (e *HostEvents) wakeClusters(ctx context.Context, which func(*infrav1.LibvirtCluster) bool, options ...client.ListOption) error {
	var list infrav1.LibvirtClusterList
	if err := e.Client.List(ctx, &list, e.filtered(options)...); err != nil {
		return err
	}
	for i := range list.Items {
		if which(&list.Items[i]) {
			e.clusters.add(client.ObjectKeyFromObject(&list.Items[i]))
		}
	}
	return nil
}

func allClusters(*infrav1.LibvirtCluster) bool { return true }

// behindAgents tells of a cluster that the agents of its hosts have to do with.
func behindAgents(c *infrav1.LibvirtCluster) bool {
	return network.Forwarding(c.Spec.Network) == infrav1.ForwardingHostAgent
}

func (e *HostEvents) filtered(options []client.ListOption) []client.ListOption {
	if e.WatchFilterValue == "" {
		return options
	}
	return append(options, client.MatchingLabels{clusterv1.WatchLabel: e.WatchFilterValue})
}

// hostKey is the key of a LibvirtHost in the pool.
func hostKey(namespace, name string) string {
	return namespace + "/" + name
}

func hostOf(key string) types.NamespacedName {
	namespace, name, _ := strings.Cut(key, "/")
	return types.NamespacedName{Namespace: namespace, Name: name}
}
