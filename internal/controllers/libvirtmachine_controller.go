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

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/klog/v2"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/cluster-api/util"
	capicontroller "sigs.k8s.io/cluster-api/util/controller"
	"sigs.k8s.io/cluster-api/util/finalizers"
	clog "sigs.k8s.io/cluster-api/util/log"
	"sigs.k8s.io/cluster-api/util/patch"
	"sigs.k8s.io/cluster-api/util/paused"
	"sigs.k8s.io/cluster-api/util/predicates"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/bootstrap"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/host"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/image"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/network"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/task"
)

// LibvirtMachineReconciler makes a machine a domain on a host, watches over it and removes it.
type LibvirtMachineReconciler struct {
	Client client.Client
	// APIReader reads past the cache.
	APIReader        client.Reader
	Hosts            *host.Pool
	Events           *HostEvents
	Imports          *task.Runner
	Metrics          *Metrics
	WatchFilterValue string
	// Images is shared with the reconciler of the hosts, which removes those that nothing uses.
	Images *images
	// ImagePolicy says from where images may come and how large they may be.
	ImagePolicy image.Policy

	promises promises
	claims   claims
	restarts restarts
	// outages are the images whose import failed because the host was out of reach.
	outages memo[imageKey, struct{}]
	pools   memo[poolKey, string]
	// full are the hosts that had no room for a machine, by their key.
	full memo[string, fullDisk]
	// owned are the domains whose mark was written or read by this process: it doesn't change.
	owned memo[ownedDomain, struct{}]
	// reserved are the domains whose address was seen reserved.
	reserved memo[ownedDomain, struct{}]
	// looks are the last looks at bootstraps.
	looks memo[ownedDomain, look]
}

// +kubebuilder:rbac:groups=infrastructure.cluster.x-k8s.io,resources=libvirtmachines,verbs=get;list;watch;patch
// +kubebuilder:rbac:groups=infrastructure.cluster.x-k8s.io,resources=libvirtmachines/status,verbs=patch
// +kubebuilder:rbac:groups=cluster.x-k8s.io,resources=clusters;machines;machinesets,verbs=get;list;watch
// +kubebuilder:rbac:groups="",resources=secrets,verbs=get

// SetupWithManager adds the reconciler to a manager.
func (r *LibvirtMachineReconciler) SetupWithManager(ctx context.Context, mgr ctrl.Manager, options controller.Options) error {
	log := ctrl.LoggerFrom(ctx).WithValues("controller", "libvirtmachine")
	clusterToMachines, err := util.ClusterToTypedObjectsMapper(mgr.GetClient(), &infrav1.LibvirtMachineList{}, mgr.GetScheme())
	if err != nil {
		return fmt.Errorf("mapping Clusters to LibvirtMachines: %w", err)
	}
	machineToLibvirtMachine := util.MachineToInfrastructureMapFunc(infrav1.GroupVersion.WithKind("LibvirtMachine"))
	return capicontroller.NewControllerManagedBy(mgr, log).
		For(&infrav1.LibvirtMachine{}).
		WithOptions(options).
		WithEventFilter(predicates.ResourceHasFilterLabel(mgr.GetScheme(), log, r.WatchFilterValue)).
		Watches(&clusterv1.Machine{}, handler.EnqueueRequestsFromMapFunc(machineToLibvirtMachine)).
		Watches(&clusterv1.Cluster{}, handler.EnqueueRequestsFromMapFunc(clusterToMachines),
			predicates.ClusterPausedTransitionsOrInfrastructureProvisioned(mgr.GetScheme(), log)).
		Watches(&infrav1.LibvirtCluster{}, handler.EnqueueRequestsFromMapFunc(r.clusterToWaiting), hostsChanged).
		Watches(&infrav1.LibvirtMachine{}, handler.EnqueueRequestsFromMapFunc(r.clusterToWaiting), onlyDeletes).
		Watches(&clusterv1.Machine{}, handler.EnqueueRequestsFromMapFunc(r.clusterToWaiting), onlyDeletes).
		Watches(&infrav1.LibvirtHost{}, handler.EnqueueRequestsFromMapFunc(r.hostToUnplaced), roomChanged).
		Watches(&infrav1.LibvirtHost{}, handler.EnqueueRequestsFromMapFunc(r.hostToPlaced), disconnected).
		WatchesRawSource(r.Events.machines.source()).
		WatchesRawSource(r.Imports.Source()).
		Complete(ctx, r)
}

// clusterToWaiting wakes the machines of a cluster that have no host or no address yet, when the cluster changes or one of
// its machines goes.
func (r *LibvirtMachineReconciler) clusterToWaiting(ctx context.Context, object client.Object) []reconcile.Request {
	waits := func(m *infrav1.LibvirtMachine) bool { return m.Spec.ProviderID == "" || m.Spec.Address == "" }
	return r.those(ctx, object, waits, client.MatchingLabels{clusterv1.ClusterNameLabel: object.GetLabels()[clusterv1.ClusterNameLabel]})
}

// hostToUnplaced wakes the machines of a namespace that have no host yet.
func (r *LibvirtMachineReconciler) hostToUnplaced(ctx context.Context, object client.Object) []reconcile.Request {
	return r.those(ctx, object, func(m *infrav1.LibvirtMachine) bool { return m.Spec.ProviderID == "" })
}

// hostToPlaced wakes the machines on a host.
func (r *LibvirtMachineReconciler) hostToPlaced(ctx context.Context, object client.Object) []reconcile.Request {
	all := func(*infrav1.LibvirtMachine) bool { return true }
	return r.those(ctx, object, all, client.MatchingFields{hostNameField: object.GetName()})
}

// those are the machines beside an object that wait for something.
func (r *LibvirtMachineReconciler) those(ctx context.Context, object client.Object, wait func(*infrav1.LibvirtMachine) bool, options ...client.ListOption) []reconcile.Request {
	var list infrav1.LibvirtMachineList
	if err := r.Client.List(ctx, &list, append(options, client.InNamespace(object.GetNamespace()))...); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "Failed to list LibvirtMachines", "object", klog.KObj(object))
		return nil
	}
	var requests []reconcile.Request
	for i := range list.Items {
		if wait(&list.Items[i]) {
			requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&list.Items[i])})
		}
	}
	return requests
}

// machineScope is what a reconcile of a machine has gathered so far.
type machineScope struct {
	cluster        *clusterv1.Cluster
	machine        *clusterv1.Machine
	libvirtCluster *infrav1.LibvirtCluster
	libvirtMachine *infrav1.LibvirtMachine

	// libvirtHost is the host that the machine is on, host its connection.
	libvirtHost *infrav1.LibvirtHost
	host        *host.Host
	// uuid of the domain.
	uuid string
	// domain as it was last seen, nil when there is none.
	domain *host.Domain
	// runs tells that all is well with the domain, by what was seen in this reconcile and not by an older condition.
	runs bool
	// plan of the node network on the host.
	plan network.Plan
	// image under the root disk, and the bootstrap data: gathered only while there is no domain.
	image    image.Info
	userData []byte
	format   bootstrap.Format
	// releaseImage ends the hold on the image, if there is one.
	releaseImage func()
}

// Reconcile makes a machine, watches over it or removes it.
func (r *LibvirtMachineReconciler) Reconcile(ctx context.Context, req ctrl.Request) (_ ctrl.Result, reterr error) {
	libvirtMachine := &infrav1.LibvirtMachine{}
	if err := r.Client.Get(ctx, req.NamespacedName, libvirtMachine); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	ctx, log, err := clog.AddOwners(ctx, r.Client, libvirtMachine)
	if err != nil {
		return ctrl.Result{}, err
	}
	machine, err := util.GetOwnerMachine(ctx, r.Client, libvirtMachine.ObjectMeta)
	if err != nil && !apierrors.IsNotFound(err) {
		return ctrl.Result{}, err
	}
	deserted := waitsForUs(libvirtMachine, infrav1.MachineFinalizer)
	if machine == nil && !deserted {
		log.V(4).Info("Waiting for the Machine controller to set the owner of the LibvirtMachine")
		return ctrl.Result{}, nil
	}
	if machine == nil {
		machine = &clusterv1.Machine{ObjectMeta: metav1.ObjectMeta{
			Namespace: libvirtMachine.Namespace, Name: libvirtMachine.Name, Labels: libvirtMachine.Labels,
		}}
	}
	cluster, err := util.GetClusterFromMetadata(ctx, r.Client, machine.ObjectMeta)
	if deserted && (apierrors.IsNotFound(err) || errors.Is(err, util.ErrNoCluster)) {
		cluster, err = lastCluster(ctx, r.APIReader, libvirtMachine)
	}
	if err != nil {
		return ctrl.Result{}, fmt.Errorf("looking up the Cluster of Machine %s: %w", klog.KObj(machine), err)
	}
	ctx = ctrl.LoggerInto(ctx, log.WithValues("Machine", klog.KObj(machine), "Cluster", klog.KObj(cluster)))

	if added, err := finalizers.EnsureFinalizer(ctx, r.Client, libvirtMachine, infrav1.MachineFinalizer); err != nil || added {
		return ctrl.Result{}, err
	}
	if isPaused, requeue, err := paused.EnsurePausedCondition(ctx, r.Client, cluster, libvirtMachine); err != nil || isPaused || requeue {
		return ctrl.Result{}, err
	}
	patchHelper, err := patch.NewHelper(libvirtMachine, r.Client)
	if err != nil {
		return ctrl.Result{}, err
	}
	defer func() {
		if err := patchHelper.Patch(ctx, libvirtMachine, patch.WithOwnedConditions{Conditions: machineConditions}); err != nil {
			reterr = kerrors.NewAggregate([]error{reterr, unlessGone(err)})
		}
	}()

	scope := &machineScope{cluster: cluster, machine: machine, libvirtMachine: libvirtMachine, releaseImage: func() {}}
	defer func() { scope.releaseImage() }()
	scope.libvirtCluster, err = r.libvirtCluster(ctx, cluster)
	if err != nil {
		return ctrl.Result{}, err
	}
	if !libvirtMachine.DeletionTimestamp.IsZero() {
		err := r.reconcileDelete(ctx, scope)
		setDeleting(libvirtMachine, err)
		return phaseResult(err)
	}
	result, err := runPhases(ctx, libvirtMachine, scope, []phase[*machineScope]{
		{infrav1.MachinePlacedCondition, infrav1.MachinePlacedReason, r.reconcilePlacement},
		{infrav1.MachineImageReadyCondition, infrav1.MachineImageReadyReason, r.reconcileImage},
		{infrav1.MachineBootstrapDataReadyCondition, infrav1.MachineBootstrapDataReadyReason, r.reconcileBootstrapData},
		{infrav1.MachineDomainReadyCondition, infrav1.MachineDomainRunningReason, r.reconcileDomain},
	})
	if scope.runs {
		result, err = runBeside(ctx, libvirtMachine, scope, []phase[*machineScope]{
			{infrav1.MachineBootstrapSucceededCondition, infrav1.MachineBootstrapSucceededReason, r.reconcileBootstrap},
			{infrav1.MachineBootstrapDataRemovedCondition, infrav1.MachineBootstrapDataRemovedReason, r.reconcileSeed},
		})
	}
	reportMachine(scope)
	return result, err
}

// libvirtCluster returns the infrastructure of a Cluster, nil when there is none yet or any more. That of a Cluster which is
// gone is found by its label.
func (r *LibvirtMachineReconciler) libvirtCluster(ctx context.Context, cluster *clusterv1.Cluster) (*infrav1.LibvirtCluster, error) {
	if cluster.UID == "" {
		var list infrav1.LibvirtClusterList
		if err := r.Client.List(ctx, &list, client.InNamespace(cluster.Namespace), client.MatchingLabels{clusterv1.ClusterNameLabel: cluster.Name}); err != nil {
			return nil, fmt.Errorf("listing LibvirtClusters: %w", err)
		}
		if len(list.Items) == 0 {
			return nil, nil //nolint:nilnil // As below.
		}
		return &list.Items[0], nil
	}
	libvirtCluster := &infrav1.LibvirtCluster{}
	key := client.ObjectKey{Namespace: cluster.Namespace, Name: cluster.Spec.InfrastructureRef.Name}
	if err := r.Client.Get(ctx, key, libvirtCluster); err != nil {
		if apierrors.IsNotFound(err) {
			return nil, nil //nolint:nilnil // Absence is an ordinary state here.
		}
		return nil, fmt.Errorf("looking up LibvirtCluster %s: %w", key.Name, err)
	}
	return libvirtCluster, nil
}
