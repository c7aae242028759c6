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
	"sync"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/domain"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/host"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/network"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/owner"
)

// reconcileInterfaces makes sure, before anything is made for a machine, that its host has what the interfaces of its spec
// are plugged into, and gets their addresses from pools. A machine without spec.interfaces costs nothing.
func (r *LibvirtMachineReconciler) reconcileInterfaces(ctx context.Context, s *machineScope) error {
	if s.domain == nil {
		lacks, err := r.lacks(ctx, s.host, hostKey(s.libvirtHost.Namespace, s.libvirtHost.Name), s.libvirtMachine)
		if err != nil {
			return err
		}
		if len(lacks) > 0 {
			return &waiting{reason: lacks[0].reason, after: conflictInterval, message: fmt.Sprintf("spec.interfaces[%s]: host %s %s: %s",
				lacks[0].iface, s.libvirtHost.Name, lacks[0].what, lacks[0].remedy)}
		}
	}
	return r.reconcilePools(ctx, s)
}

// lack is why an interface can't be plugged in on a host.
type lack struct {
	iface, reason, what, remedy string
}

// lacks tells which of a machine's interfaces can't be plugged in on a host.
func (r *LibvirtMachineReconciler) lacks(ctx context.Context, kvm *host.Host, key string, libvirtMachine *infrav1.LibvirtMachine) ([]lack, error) {
	var found []lack
	for _, i := range libvirtMachine.Spec.Interfaces {
		switch i.Source {
		case infrav1.InterfaceSourceNetwork:
			seen, err := r.lookAtNetwork(ctx, kvm, key, i.Network.Name)
			if err != nil {
				return nil, err
			}
			if wrong := seen.lack(i, libvirtMachine.Namespace); wrong != nil {
				found = append(found, *wrong)
			}
		case infrav1.InterfaceSourceBridge:
			there, err := kvm.HasInterface(ctx, i.Bridge.Name)
			if errors.Is(err, host.ErrUnsupported) {
				continue // it shows when the domain starts
			}
			if err != nil {
				return nil, err
			}
			if !there {
				found = append(found, lack{
					i.Name, infrav1.MachineBridgeNotFoundReason, "has no bridge " + i.Bridge.Name,
					"make it there, or delete the Machine to have it placed elsewhere",
				})
			}
		}
	}
	return found, nil
}

// plug is a libvirt network on a host as a machine looks at it.
type plug struct {
	there, active bool
	// cluster is the cluster that the network was made for.
	cluster owner.Owner
}

type plugKey struct {
	host, network string
}

// lookAtNetwork looks at a libvirt network. A host is asked once, until one of its networks changes.
func (r *LibvirtMachineReconciler) lookAtNetwork(ctx context.Context, kvm *host.Host, key, name string) (plug, error) {
	epoch := r.Events.epoch(key, anyNetwork)
	if known, ok := r.plugs.get(plugKey{key, name}, epoch); ok {
		return known, nil
	}
	var seen plug
	found, err := kvm.NetworkNamed(ctx, name)
	switch {
	case errors.Is(err, host.ErrNotFound):
	case err != nil:
		return plug{}, err
	default:
		by, _ := owner.Of(found.XML)
		seen = plug{there: true, active: found.Active, cluster: by}
	}
	r.plugs.set(plugKey{key, name}, epoch, seen)
	return seen, nil
}

// lack tells why a machine of a namespace can't be plugged into a network; nil when it can.
func (p plug) lack(i infrav1.Interface, namespace string) *lack {
	name := i.Network.Name
	switch {
	case !p.there:
		return &lack{
			i.Name, infrav1.MachineNetworkNotFoundReason, "has no libvirt network " + name,
			"define it there, or delete the Machine to have it placed elsewhere",
		}
	case p.cluster.Namespace != "" && p.cluster.Namespace != namespace:
		return &lack{
			i.Name, infrav1.MachineNetworkNotAllowedReason, fmt.Sprintf("has the libvirt network %s for a cluster of another namespace", name),
			"name another network in a new LibvirtMachineTemplate",
		}
	case !p.active:
		return &lack{
			i.Name, infrav1.MachineNetworkInactiveReason, fmt.Sprintf("has the libvirt network %s stopped", name),
			fmt.Sprintf("start it with virsh net-start %s and virsh net-autostart %s", name, name),
		}
	}
	return nil
}

// unplugged tells, host by host, why a machine's interfaces can't be plugged in there. All hosts are asked at once, so that
// one that doesn't answer holds up no more than its own answer.
func (r *LibvirtMachineReconciler) unplugged(ctx context.Context, s *machineScope) map[string][]string {
	if len(s.libvirtMachine.Spec.Interfaces) == 0 {
		return nil
	}
	var (
		mu      sync.Mutex
		wg      sync.WaitGroup
		reasons = map[string][]string{}
	)
	for _, name := range s.libvirtCluster.Status.Hosts {
		key := hostKey(s.libvirtMachine.Namespace, name)
		kvm, err := r.Hosts.Get(key)
		if err != nil {
			continue // it is refused for that
		}
		wg.Go(func() {
			lacks, err := r.lacks(ctx, kvm, key, s.libvirtMachine)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				reasons[name] = append(reasons[name], "doesn't tell what networks it has: "+err.Error())
			}
			for _, wrong := range lacks {
				reasons[name] = append(reasons[name], wrong.what)
			}
		})
	}
	wg.Wait()
	return reasons
}

// guestInterfaces are what the guest's network configuration is made from. In a managed network a machine with several
// interfaces gives itself the address that is reserved for it, because a static route to the world goes before those that
// DHCP servers in its other networks tell of.
func guestInterfaces(s *machineScope, definition domain.Definition) ([]network.GuestInterface, error) {
	var address netip.Addr
	if network.Existing(s.libvirtCluster.Spec.Network) || len(s.libvirtMachine.Spec.Interfaces) > 1 {
		var err error
		if address, err = netip.ParseAddr(s.libvirtMachine.Spec.Address); err != nil {
			return nil, fmt.Errorf("reading spec.address: %w", err)
		}
	}
	node := network.NodeInterface(definition.MAC, network.MTU(s.libvirtCluster.Spec.Network), address, s.plan)
	return network.GuestInterfaces(s.uuid, s.libvirtMachine.Spec.Interfaces, node, s.pooled), nil
}
