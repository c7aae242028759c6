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
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/cluster-api/util/conditions"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/host"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/network"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/owner"
)

// reconcileHosts finds the hosts of the cluster and gives back those that it doesn't use any more.
func (r *LibvirtClusterReconciler) reconcileHosts(ctx context.Context, s *clusterScope) error {
	selected, err := r.selectedHosts(ctx, s.libvirtCluster)
	if err != nil {
		return err
	}
	s.selected = selected
	if err := r.leaveHosts(ctx, s, selected); err != nil {
		return err
	}
	if len(selected) == 0 {
		return &waiting{reason: infrav1.ClusterNoHostSelectedReason, message: fmt.Sprintf(
			"spec.hostSelector selects no LibvirtHost in namespace %s: create or label one", s.libvirtCluster.Namespace)}
	}
	var troubles []string
	for _, h := range selected {
		if ready := conditions.Get(h, infrav1.ReadyCondition); ready == nil || ready.Status != metav1.ConditionTrue {
			troubles = append(troubles, fmt.Sprintf("%s: %s", h.Name, hostTrouble(ready)))
			continue
		}
		s.hosts = append(s.hosts, h)
	}
	if len(s.hosts) == 0 {
		return &waiting{reason: infrav1.ClusterNoHostReadyReason, message: strings.Join(troubles, "; ")}
	}
	return nil
}

func hostTrouble(ready *metav1.Condition) string {
	if ready == nil {
		return "has no conditions yet"
	}
	return ready.Message
}

// selectedHosts are the hosts that the cluster may use and that aren't being deleted, by name.
func (r *LibvirtClusterReconciler) selectedHosts(ctx context.Context, libvirtCluster *infrav1.LibvirtCluster) ([]*infrav1.LibvirtHost, error) {
	selector, err := metav1.LabelSelectorAsSelector(&libvirtCluster.Spec.HostSelector)
	if err != nil {
		return nil, &waiting{reason: infrav1.ClusterNoHostSelectedReason, message: "spec.hostSelector: " + err.Error()}
	}
	var list infrav1.LibvirtHostList
	if err := r.Client.List(ctx, &list, client.InNamespace(libvirtCluster.Namespace), client.MatchingLabelsSelector{Selector: selector}); err != nil {
		return nil, fmt.Errorf("listing LibvirtHosts: %w", err)
	}
	var hosts []*infrav1.LibvirtHost
	for i := range list.Items {
		if list.Items[i].DeletionTimestamp.IsZero() {
			hosts = append(hosts, &list.Items[i])
		}
	}
	slices.SortFunc(hosts, func(a, b *infrav1.LibvirtHost) int { return strings.Compare(a.Name, b.Name) })
	return hosts, nil
}

// leaveHosts removes the network from hosts that aren't selected any more, once no machine of the cluster is on them. One
// on which that fails is tried again later: it is nothing to the hosts that are selected.
func (r *LibvirtClusterReconciler) leaveHosts(ctx context.Context, s *clusterScope, selected []*infrav1.LibvirtHost) error {
	var leaving []string
	for _, name := range s.libvirtCluster.Status.Hosts {
		if slices.ContainsFunc(selected, func(h *infrav1.LibvirtHost) bool { return h.Name == name }) {
			continue
		}
		machines, err := r.machines(ctx, s.cluster, client.MatchingFields{hostNameField: name})
		if err != nil {
			return err
		}
		if len(machines) > 0 {
			continue
		}
		if used, err := r.usedSince(ctx, s.cluster, name); err != nil {
			return err
		} else if !used {
			leaving = append(leaving, name)
		}
	}
	for i, err := range onEach(ctx, leaving, func(ctx context.Context, name string) error { return r.removeNetwork(ctx, s, name) }) {
		if err != nil {
			s.stuck = append(s.stuck, leaving[i])
			ctrl.LoggerFrom(ctx).Info("Failed to take the network from a host, will try again", "host", leaving[i], "reason", err.Error())
			continue
		}
		s.libvirtCluster.Status.Hosts = slices.DeleteFunc(s.libvirtCluster.Status.Hosts, func(h string) bool { return h == leaving[i] })
	}
	return nil
}

// usedSince looks past the cache whether a machine was placed on a host a moment ago.
func (r *LibvirtClusterReconciler) usedSince(ctx context.Context, cluster *clusterv1.Cluster, hostName string) (bool, error) {
	var list infrav1.LibvirtMachineList
	if err := r.APIReader.List(ctx, &list, client.InNamespace(cluster.Namespace),
		client.MatchingLabels{clusterv1.ClusterNameLabel: cluster.Name}); err != nil {
		return false, fmt.Errorf("listing LibvirtMachines: %w", err)
	}
	return slices.ContainsFunc(list.Items, func(m infrav1.LibvirtMachine) bool { return m.Spec.HostName == hostName }), nil
}

// perHost is how long one host may take when something is done on each. The reconcile of a cluster has a minute, in which
// it leaves hosts and then brings the network up on others.
const perHost = 25 * time.Second

// onEach does something on each of several hosts at the same time, so that one that hangs doesn't use up the time of the
// others, and returns what went wrong on each.
func onEach[H any](ctx context.Context, hosts []H, do func(context.Context, H) error) []error {
	failures := make([]error, len(hosts))
	var all sync.WaitGroup
	for i, h := range hosts {
		all.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, perHost)
			defer cancel()
			failures[i] = do(ctx, h)
		})
	}
	all.Wait()
	return failures
}

// machines are the LibvirtMachines of a cluster.
func (r *LibvirtClusterReconciler) machines(ctx context.Context, cluster *clusterv1.Cluster, options ...client.ListOption) ([]infrav1.LibvirtMachine, error) {
	var list infrav1.LibvirtMachineList
	options = append(options, client.InNamespace(cluster.Namespace), client.MatchingLabels{clusterv1.ClusterNameLabel: cluster.Name})
	if err := r.Client.List(ctx, &list, options...); err != nil {
		return nil, fmt.Errorf("listing LibvirtMachines: %w", err)
	}
	return list.Items, nil
}

// reconcileNetwork brings the network up on every ready host. A host on which that fails doesn't hold up the others.
func (r *LibvirtClusterReconciler) reconcileNetwork(ctx context.Context, s *clusterScope) error {
	var err error
	if s.plans, err = network.NewPlans(s.libvirtCluster.Spec.Network); err != nil {
		return &waiting{reason: infrav1.ClusterInvalidNetworkReason, message: "spec.network." + err.Error()}
	}
	if err := r.reconcileEndpoint(ctx, s); err != nil {
		return err
	}
	if s.forwards, err = network.Forwards(s.libvirtCluster.Spec, s.plans); err != nil {
		return &waiting{reason: infrav1.ClusterInvalidNetworkReason, message: "spec.network." + err.Error()}
	}
	if err := network.CheckSiteLink(s.libvirtCluster.Spec.Network); err != nil {
		return &waiting{reason: infrav1.ClusterInvalidNetworkReason, message: "spec.network." + err.Error()}
	}
	existing := network.Existing(s.libvirtCluster.Spec.Network)
	if existing || network.HasSiteLink(s.libvirtCluster.Spec.Network) {
		if err := r.checkOtherClusters(ctx, s); err != nil {
			return err
		}
	}
	bringUp := r.ensureNetwork
	if existing {
		bringUp = r.checkNetwork
	} else {
		if err := r.reconcileMembers(ctx, s); err != nil {
			return err
		}
		if err := r.writeDownNetwork(ctx, s); err != nil {
			// The UUID and the hosts are written down before anything is made, so that a crash leaves nothing unknown behind.
			return err
		}
		r.gatherLinks(ctx, s)
	}
	hosts := slices.Concat(s.hosts, s.links.staying)
	var failures []error
	for i, err := range onEach(ctx, hosts, func(ctx context.Context, h *infrav1.LibvirtHost) error { return bringUp(ctx, s, h) }) {
		name := hosts[i].Name
		if existing {
			err = r.noteUse(ctx, s, name, err)
		}
		if err != nil {
			failures = append(failures, wrapHost(name, err))
			continue
		}
		s.up = append(s.up, hosts[i])
	}
	if len(s.up) > 0 {
		s.libvirtCluster.Status.Initialization.Provisioned = ptr.To(true)
		s.libvirtCluster.Status.FailureDomains = failureDomains(s.libvirtCluster, s.selected)
	}
	return together(failures)
}

// wrapHost names the host in what a phase returned, whatever that is.
func wrapHost(name string, err error) error {
	var wait *waiting
	if errors.As(err, &wait) {
		named := *wait
		named.message = name + ": " + wait.message
		return &named
	}
	return fmt.Errorf("%s: %w", name, err)
}

// reconcileEndpoint takes the endpoint from the Cluster when the LibvirtCluster has none, and checks it.
func (r *LibvirtClusterReconciler) reconcileEndpoint(_ context.Context, s *clusterScope) error {
	endpoint := &s.libvirtCluster.Spec.ControlPlaneEndpoint
	if endpoint.Host == "" && s.cluster.Spec.ControlPlaneEndpoint.Host != "" {
		endpoint.Host, endpoint.Port = s.cluster.Spec.ControlPlaneEndpoint.Host, s.cluster.Spec.ControlPlaneEndpoint.Port
	}
	if endpoint.Host == "" {
		return &waiting{reason: infrav1.ClusterEndpointNotSetReason, message: fmt.Sprintf(
			"set spec.controlPlaneEndpoint.host to an address of %s", s.plans.Main.Virtual())}
	}
	if endpoint.Port == 0 {
		endpoint.Port = 6443
	}
	if err := s.plans.Main.CheckEndpoint(endpoint.Host); err != nil {
		return &waiting{reason: infrav1.ClusterInvalidNetworkReason, message: "spec.controlPlaneEndpoint.host: " + err.Error()}
	}
	return nil
}

func (r *LibvirtClusterReconciler) writeDownNetwork(ctx context.Context, s *clusterScope) error {
	before := s.libvirtCluster.DeepCopy()
	if spec := &s.libvirtCluster.Spec.Network; spec.UUID == "" {
		spec.Forwarding, spec.UUID = network.Forwarding(*spec), string(s.libvirtCluster.UID)
		written := s.libvirtCluster.DeepCopy()
		if err := r.Client.Patch(ctx, written, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})); err != nil {
			return fmt.Errorf("writing spec.network.uuid: %w", err)
		}
		before = s.libvirtCluster.DeepCopy()
	}
	for _, h := range s.hosts {
		if !slices.Contains(s.libvirtCluster.Status.Hosts, h.Name) {
			s.libvirtCluster.Status.Hosts = append(s.libvirtCluster.Status.Hosts, h.Name)
		}
	}
	slices.Sort(s.libvirtCluster.Status.Hosts)
	if slices.Equal(before.Status.Hosts, s.libvirtCluster.Status.Hosts) {
		return nil
	}
	// Conditions are left out: they are patched at the end of the reconcile.
	written := before.DeepCopy()
	written.Status.Hosts = s.libvirtCluster.Status.Hosts
	if err := r.Client.Status().Patch(ctx, written, client.MergeFrom(before)); err != nil {
		return fmt.Errorf("writing status.hosts: %w", err)
	}
	return nil
}

// definition is that of the network on a host.
func (s *clusterScope) definition(h *infrav1.LibvirtHost) network.Definition {
	definition := network.Definition{
		UUID:  s.libvirtCluster.Spec.Network.UUID,
		Name:  network.Name(s.cluster.Namespace, s.cluster.Name),
		MTU:   network.MTU(s.libvirtCluster.Spec.Network),
		Plan:  s.plans.For(failureDomain(h)),
		Owner: s.owner(),
	}
	if network.Forwarding(s.libvirtCluster.Spec.Network) == infrav1.ForwardingHostAgent {
		definition.Gateway = ptr.To(network.WantedOn(definition.Plan, s.forwards))
		definition.Gateway.Link = s.links.wanted[h.Name]
	}
	return definition
}

func (s *clusterScope) owner() owner.Owner {
	return owner.Owner{
		Kind: "LibvirtCluster", Namespace: s.libvirtCluster.Namespace, Name: s.libvirtCluster.Name, Cluster: s.cluster.Name,
	}
}

// conflictInterval is when to look again whether somebody removed what stands in our way: libvirt doesn't tell of all that
// changes, such as volumes and reservations.
const conflictInterval = time.Minute

// ensureNetwork brings the network up on one host. What was seen up is believed until the host says otherwise.
func (r *LibvirtClusterReconciler) ensureNetwork(ctx context.Context, s *clusterScope, h *infrav1.LibvirtHost) error {
	kvm, err := connected(r.Hosts, h.Namespace, h.Name)
	if err != nil {
		return err
	}
	if err := s.links.unread[h.Name]; err != nil {
		return err
	}
	definition := s.definition(h)
	key := networkOnHost{hostKey(h.Namespace, h.Name), definition.UUID}
	epoch := r.Events.epoch(key.host, key.uuid)
	wanted := seenUp(definition)
	if seen, ok := r.up.get(key, epoch); ok && seen == wanted {
		return nil
	}
	found, err := kvm.Network(ctx, definition.UUID)
	if err == nil && found.Active {
		if by, ok := owner.Of(found.XML); !ok || by != definition.Owner {
			return conflict("network %s has our UUID %s and isn't ours: remove it", found.Name, definition.UUID)
		}
		serves, err := network.Serves(found.XML, definition.Plan)
		if err != nil {
			return err
		}
		if serves {
			told, err := network.HasGateway(found.XML, definition)
			if err != nil {
				return err
			}
			if !told {
				return defineNetwork(ctx, kvm, definition)
			}
			r.up.set(key, epoch, wanted)
			return nil
		}
		if err := r.clearNetwork(ctx, s, h, kvm); err != nil {
			return err
		}
	}
	if err != nil && !errors.Is(err, host.ErrNotFound) {
		return fmt.Errorf("looking up the network: %w", err)
	}
	others, err := kvm.Networks(ctx)
	if err != nil {
		return fmt.Errorf("listing networks: %w", err)
	}
	documents := make([]string, 0, len(others))
	for _, other := range others {
		documents = append(documents, other.XML)
	}
	if err := network.CheckConflicts(definition, documents); err != nil {
		return conflict("%s: remove it, or make the cluster with another spec.network", err)
	}
	return defineNetwork(ctx, kvm, definition)
}

// defineNetwork makes a network, or writes its definition anew while it goes on as it is.
func defineNetwork(ctx context.Context, kvm *host.Host, definition network.Definition) error {
	document, err := network.RenderNetwork(definition)
	if err != nil {
		return err
	}
	if err := kvm.EnsureNetwork(ctx, document); err != nil {
		return fmt.Errorf("making network %s: %w", definition.Name, err)
	}
	return nil
}

// clearNetwork removes a network with another range than the plan has for the host now, as when the host's failure domain
// was changed to one that has a subnet. Not under the feet of machines.
func (r *LibvirtClusterReconciler) clearNetwork(ctx context.Context, s *clusterScope, h *infrav1.LibvirtHost, kvm *host.Host) error {
	machines, err := r.machines(ctx, s.cluster, client.MatchingFields{hostNameField: h.Name})
	if err != nil {
		return err
	}
	if len(machines) > 0 {
		return conflict("the network isn't the %s that spec.network has for failure domain %s, and %d machines are in it, %s among them: "+
			"delete them, or set spec.failureDomain of the LibvirtHost back",
			s.plans.For(failureDomain(h)).Prefix, failureDomain(h), len(machines), machines[0].Name)
	}
	if err := kvm.DeleteNetwork(ctx, s.libvirtCluster.Spec.Network.UUID); err != nil && !errors.Is(err, host.ErrNotFound) {
		return fmt.Errorf("removing the network with the range from before: %w", err)
	}
	return nil
}

// networkOnHost is a network of a cluster on one host.
type networkOnHost struct {
	host, uuid string
}

// upNetwork is what was seen of a network that is up.
type upNetwork struct {
	prefix netip.Prefix
	// generation of what the host's agent is told; empty with NAT.
	generation string
}

// seenUp is what is seen of a network that is as its definition says.
func seenUp(definition network.Definition) upNetwork {
	seen := upNetwork{prefix: definition.Plan.Prefix}
	if definition.Gateway != nil {
		seen.generation = definition.Gateway.Generation()
	}
	return seen
}

func conflict(format string, args ...any) error {
	return &waiting{reason: infrav1.ClusterNetworkConflictReason, message: fmt.Sprintf(format, args...), after: conflictInterval}
}

// failureDomains are those of the selected hosts in use that take new machines. Cluster API puts control-plane machines
// into these only, so it needn't be told of a host that would refuse them. A host that is out of reach for a while still
// counts: its machines are there, and a failure domain that came and went would have Cluster API move them.
func failureDomains(libvirtCluster *infrav1.LibvirtCluster, selected []*infrav1.LibvirtHost) []clusterv1.FailureDomain {
	var domains []clusterv1.FailureDomain
	for _, h := range selected {
		if h.Spec.Scheduling == infrav1.HostSchedulingDisabled {
			continue
		}
		name := failureDomain(h)
		if slices.Contains(libvirtCluster.Status.Hosts, h.Name) && !slices.ContainsFunc(domains, func(d clusterv1.FailureDomain) bool { return d.Name == name }) {
			controlPlane := network.ServesControlPlane(libvirtCluster.Spec.Network, name)
			domains = append(domains, clusterv1.FailureDomain{Name: name, ControlPlane: ptr.To(controlPlane)})
		}
	}
	return domains
}

// reconcileDelete removes the network from all hosts once the machines are gone.
func (r *LibvirtClusterReconciler) reconcileDelete(ctx context.Context, s *clusterScope) error {
	if movedAway(s.libvirtCluster) {
		controllerutil.RemoveFinalizer(s.libvirtCluster, infrav1.ClusterFinalizer)
		return nil
	}
	machines, err := r.machines(ctx, s.cluster)
	if err != nil {
		return err
	}
	if len(machines) > 0 {
		return &waiting{reason: infrav1.ClusterMachinesLeftReason, message: fmt.Sprintf(
			"%d LibvirtMachines of the cluster are still there, %s among them", len(machines), machines[0].Name)}
	}
	selected, err := r.selectedHosts(ctx, s.libvirtCluster)
	if err != nil {
		return err
	}
	// A move loses the status, so the selected hosts are searched too.
	names := slices.Clone(s.libvirtCluster.Status.Hosts)
	for _, h := range selected {
		names = append(names, h.Name)
	}
	slices.Sort(names)
	names = slices.Compact(names)
	var failures []error
	for i, err := range onEach(ctx, names, func(ctx context.Context, name string) error { return r.removeNetwork(ctx, s, name) }) {
		if err != nil {
			failures = append(failures, wrapHost(names[i], err))
		}
	}
	if len(failures) > 0 {
		return together(failures)
	}
	controllerutil.RemoveFinalizer(s.libvirtCluster, infrav1.ClusterFinalizer)
	return nil
}

// removeNetwork removes the network from one host. Only a confirmed "not found" counts as gone. An existing network has no
// UUID and stays.
func (r *LibvirtClusterReconciler) removeNetwork(ctx context.Context, s *clusterScope, hostName string) error {
	uuid := s.libvirtCluster.Spec.Network.UUID
	if uuid == "" {
		return nil
	}
	kvm, err := r.Hosts.Get(hostKey(s.libvirtCluster.Namespace, hostName))
	if errors.Is(err, host.ErrNotFound) {
		return r.checkHostGone(ctx, s.libvirtCluster.Namespace, hostName)
	}
	if err != nil {
		return err
	}
	found, err := kvm.Network(ctx, uuid)
	if errors.Is(err, host.ErrNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("looking up the network: %w", err)
	}
	if by, ok := owner.Of(found.XML); !ok || by != s.owner() {
		// Not ours, so not ours to delete.
		return nil
	}
	if err := kvm.DeleteNetwork(ctx, uuid); err != nil && !errors.Is(err, host.ErrNotFound) {
		return fmt.Errorf("removing network %s: %w", found.Name, err)
	}
	return nil
}

// checkHostGone tells a LibvirtHost that doesn't exist from one that isn't connected yet.
func (r *LibvirtClusterReconciler) checkHostGone(ctx context.Context, namespace, name string) error {
	// What is given up with the host isn't looked for again, so the cache's word isn't enough.
	err := r.APIReader.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, &infrav1.LibvirtHost{})
	if err == nil {
		return &waiting{reason: infrav1.HostUnreachableReason, message: "not connected yet"}
	}
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("looking up LibvirtHost %s: %w", name, err)
	}
	return nil
}
