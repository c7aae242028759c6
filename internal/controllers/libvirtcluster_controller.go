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
	"time"

	kerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/klog/v2"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/cluster-api/util"
	"sigs.k8s.io/cluster-api/util/annotations"
	"sigs.k8s.io/cluster-api/util/conditions"
	capicontroller "sigs.k8s.io/cluster-api/util/controller"
	"sigs.k8s.io/cluster-api/util/finalizers"
	"sigs.k8s.io/cluster-api/util/patch"
	"sigs.k8s.io/cluster-api/util/paused"
	"sigs.k8s.io/cluster-api/util/predicates"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/gateway"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/host"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/network"
)

// LibvirtClusterReconciler puts the node network of a cluster on the hosts that the cluster uses.
type LibvirtClusterReconciler struct {
	Client client.Client
	// APIReader reads past the cache.
	APIReader        client.Reader
	Hosts            *host.Pool
	Events           *HostEvents
	WatchFilterValue string
	// AgentSilence is how long a host's agent may go without renewing its status.
	AgentSilence time.Duration

	// up are the managed networks that were seen up.
	up memo[networkOnHost, upNetwork]
	// agents are what the agents of hosts told, by the key of the host.
	agents memo[string, agentSighting]
	// told are the links that networks were seen to want.
	told memo[networkOnHost, gateway.Link]
	// fit are the existing networks that were seen fit for the nodes.
	fit memo[networkUse, fitNetwork]
}

// +kubebuilder:rbac:groups=infrastructure.cluster.x-k8s.io,resources=libvirtclusters,verbs=get;list;watch;patch
// +kubebuilder:rbac:groups=infrastructure.cluster.x-k8s.io,resources=libvirtclusters/status,verbs=patch
// +kubebuilder:rbac:groups=cluster.x-k8s.io,resources=clusters,verbs=get;list;watch

// SetupWithManager adds the reconciler to a manager.
func (r *LibvirtClusterReconciler) SetupWithManager(ctx context.Context, mgr ctrl.Manager, options controller.Options) error {
	log := ctrl.LoggerFrom(ctx).WithValues("controller", "libvirtcluster")
	gvk := infrav1.GroupVersion.WithKind("LibvirtCluster")
	return capicontroller.NewControllerManagedBy(mgr, log).
		For(&infrav1.LibvirtCluster{}).
		WithOptions(options).
		WithEventFilter(predicates.ResourceHasFilterLabel(mgr.GetScheme(), log, r.WatchFilterValue)).
		Watches(&clusterv1.Cluster{},
			handler.EnqueueRequestsFromMapFunc(util.ClusterToInfrastructureMapFunc(ctx, gvk, mgr.GetClient(), &infrav1.LibvirtCluster{})),
			// The kubeconfig, of which there is one for outside too, is there by the time the control plane is initialized.
			predicates.Any(mgr.GetScheme(), log, predicates.ClusterPausedTransitions(mgr.GetScheme(), log),
				predicates.ClusterControlPlaneInitialized(mgr.GetScheme(), log))).
		Watches(&infrav1.LibvirtHost{}, handler.EnqueueRequestsFromMapFunc(r.hostToClusters)).
		Watches(&infrav1.LibvirtMachine{}, handler.EnqueueRequestsFromMapFunc(r.machineToCluster), onlyDeletes).
		WatchesRawSource(r.Events.clusters.source()).
		Complete(ctx, r)
}

func (r *LibvirtClusterReconciler) hostToClusters(ctx context.Context, object client.Object) []reconcile.Request {
	var list infrav1.LibvirtClusterList
	if err := r.Client.List(ctx, &list, client.InNamespace(object.GetNamespace())); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "Failed to list LibvirtClusters", "LibvirtHost", klog.KObj(object))
		return nil
	}
	requests := make([]reconcile.Request, 0, len(list.Items))
	for i := range list.Items {
		requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&list.Items[i])})
	}
	return requests
}

// machineToCluster wakes a cluster that goes, or a host that was taken from it, waiting for its last machine.
func (r *LibvirtClusterReconciler) machineToCluster(ctx context.Context, object client.Object) []reconcile.Request {
	var list infrav1.LibvirtClusterList
	if err := r.Client.List(ctx, &list, client.InNamespace(object.GetNamespace()),
		client.MatchingLabels{clusterv1.ClusterNameLabel: object.GetLabels()[clusterv1.ClusterNameLabel]}); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "Failed to list LibvirtClusters", "LibvirtMachine", klog.KObj(object))
		return nil
	}
	requests := make([]reconcile.Request, 0, len(list.Items))
	for i := range list.Items {
		requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&list.Items[i])})
	}
	return requests
}

// clusterScope is what a reconcile of a cluster has gathered so far.
type clusterScope struct {
	cluster        *clusterv1.Cluster
	libvirtCluster *infrav1.LibvirtCluster
	plans          network.Plans
	// forwards are the connections that are let in from outside.
	forwards []gateway.Forward
	// selected are the hosts that the cluster may use, hosts those of them that are ready.
	selected, hosts []*infrav1.LibvirtHost
	// up are the hosts that have the network.
	up []*infrav1.LibvirtHost
	// stuck are the hosts that aren't selected any more and from which the network couldn't be taken.
	stuck []string
	// links are those between the hosts.
	links links
}

// Reconcile brings the node network of a cluster to its hosts, or takes it away.
func (r *LibvirtClusterReconciler) Reconcile(ctx context.Context, req ctrl.Request) (_ ctrl.Result, reterr error) {
	libvirtCluster := &infrav1.LibvirtCluster{}
	if err := r.Client.Get(ctx, req.NamespacedName, libvirtCluster); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if annotations.IsExternallyManaged(libvirtCluster) {
		return ctrl.Result{}, nil
	}
	cluster, err := util.GetOwnerCluster(ctx, r.Client, libvirtCluster.ObjectMeta)
	if cluster == nil && client.IgnoreNotFound(err) == nil && waitsForUs(libvirtCluster, infrav1.ClusterFinalizer) {
		cluster, err = lastCluster(ctx, r.APIReader, libvirtCluster)
	}
	if err != nil {
		// An owner that isn't found is one that the cache doesn't show yet, and nothing else tells when it does.
		return ctrl.Result{}, err
	}
	if cluster == nil {
		ctrl.LoggerFrom(ctx).V(4).Info("Waiting for the Cluster controller to set the owner of the LibvirtCluster")
		return ctrl.Result{}, nil
	}
	log := ctrl.LoggerFrom(ctx).WithValues("Cluster", klog.KObj(cluster))
	ctx = ctrl.LoggerInto(ctx, log)

	if added, err := finalizers.EnsureFinalizer(ctx, r.Client, libvirtCluster, infrav1.ClusterFinalizer); err != nil || added {
		return ctrl.Result{}, err
	}
	if isPaused, requeue, err := paused.EnsurePausedCondition(ctx, r.Client, cluster, libvirtCluster); err != nil || isPaused || requeue {
		return ctrl.Result{}, err
	}
	patchHelper, err := patch.NewHelper(libvirtCluster, r.Client)
	if err != nil {
		return ctrl.Result{}, err
	}
	defer func() {
		if err := patchHelper.Patch(ctx, libvirtCluster, patch.WithOwnedConditions{Conditions: []string{
			infrav1.ReadyCondition, infrav1.ClusterHostsAvailableCondition, infrav1.ClusterNetworkReadyCondition,
			infrav1.ClusterGatewayReadyCondition, infrav1.ClusterSitesLinkedCondition, infrav1.DeletingCondition, clusterv1.PausedCondition,
		}}); err != nil {
			reterr = kerrors.NewAggregate([]error{reterr, unlessGone(err)})
		}
	}()

	scope := &clusterScope{cluster: cluster, libvirtCluster: libvirtCluster}
	if !libvirtCluster.DeletionTimestamp.IsZero() {
		err := r.reconcileDelete(ctx, scope)
		setDeleting(libvirtCluster, err)
		return phaseResult(err)
	}
	result, err := runPhases(ctx, libvirtCluster, scope, []phase[*clusterScope]{
		{infrav1.ClusterHostsAvailableCondition, infrav1.ClusterHostsAvailableReason, r.reconcileHosts},
		{infrav1.ClusterNetworkReadyCondition, infrav1.ClusterNetworkReadyReason, r.reconcileNetwork},
	})
	counts := []string{infrav1.ClusterHostsAvailableCondition, infrav1.ClusterNetworkReadyCondition}
	if network.Forwarding(libvirtCluster.Spec.Network) == infrav1.ForwardingHostAgent {
		// A host without the network is nothing to the gateways of the others.
		beside := []phase[*clusterScope]{
			{infrav1.ClusterGatewayReadyCondition, infrav1.ClusterGatewayAppliedReason, r.reconcileGateway},
		}
		if network.HasSiteLink(libvirtCluster.Spec.Network) {
			beside = append(beside, phase[*clusterScope]{infrav1.ClusterSitesLinkedCondition, infrav1.ClusterSitesLinkedReason, r.reconcileLinks})
		} else {
			conditions.Delete(libvirtCluster, infrav1.ClusterSitesLinkedCondition)
		}
		for _, p := range beside {
			counts = append(counts, p.condition)
		}
		outside, failed := runBeside(ctx, libvirtCluster, scope, beside)
		result, err = sooner(result, outside), errors.Join(err, failed)
	}
	if len(scope.stuck) > 0 && (result.RequeueAfter == 0 || result.RequeueAfter > unreachableInterval) {
		result.RequeueAfter = unreachableInterval
	}
	setReady(libvirtCluster, infrav1.ReadyReason, counts...)
	return result, err
}
