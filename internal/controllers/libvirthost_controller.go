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
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	kerrors "k8s.io/apimachinery/pkg/util/errors"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/cluster-api/util/conditions"
	capicontroller "sigs.k8s.io/cluster-api/util/controller"
	"sigs.k8s.io/cluster-api/util/finalizers"
	"sigs.k8s.io/cluster-api/util/patch"
	"sigs.k8s.io/cluster-api/util/paused"
	"sigs.k8s.io/cluster-api/util/predicates"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/domain"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/host"
)

// LibvirtHostReconciler keeps the connection to a host and reports what the host has.
type LibvirtHostReconciler struct {
	Client client.Client
	// APIReader reads past the cache.
	APIReader        client.Reader
	Hosts            *host.Pool
	Events           *HostEvents
	WatchFilterValue string
	// OrphanInterval is the time between two looks for orphans. What was one at both is removed where the policy says so.
	OrphanInterval time.Duration
	// ImageInterval is the time between two looks at the images.
	ImageInterval time.Duration
	// Images is shared with the reconciler of the machines, which use them.
	Images  *images
	Metrics *Metrics

	surveys    surveys
	orphanages orphanages
	// imageLooks are when the images of a host were last looked at, by its key.
	imageLooks memo[string, time.Time]
}

// +kubebuilder:rbac:groups=infrastructure.cluster.x-k8s.io,resources=libvirthosts,verbs=get;list;watch;patch
// +kubebuilder:rbac:groups=infrastructure.cluster.x-k8s.io,resources=libvirthosts/status,verbs=patch
// +kubebuilder:rbac:groups=infrastructure.cluster.x-k8s.io,resources=libvirtmachinetemplates,verbs=list
// +kubebuilder:rbac:groups="",resources=secrets,verbs=get

// SetupWithManager adds the reconciler to a manager.
func (r *LibvirtHostReconciler) SetupWithManager(ctx context.Context, mgr ctrl.Manager, options controller.Options) error {
	log := ctrl.LoggerFrom(ctx).WithValues("controller", "libvirthost")
	return capicontroller.NewControllerManagedBy(mgr, log).
		For(&infrav1.LibvirtHost{}).
		WithOptions(options).
		WithEventFilter(predicates.ResourceHasFilterLabel(mgr.GetScheme(), log, r.WatchFilterValue)).
		Watches(&infrav1.LibvirtMachine{}, handler.EnqueueRequestsFromMapFunc(machineToHost)).
		Watches(&infrav1.LibvirtCluster{}, handler.EnqueueRequestsFromMapFunc(clusterToHosts)).
		WatchesRawSource(r.Events.hosts.source()).
		Complete(ctx, r)
}

func machineToHost(_ context.Context, object client.Object) []reconcile.Request {
	machine, ok := object.(*infrav1.LibvirtMachine)
	if !ok || machine.Spec.HostName == "" {
		return nil
	}
	return []reconcile.Request{{NamespacedName: types.NamespacedName{Namespace: machine.Namespace, Name: machine.Spec.HostName}}}
}

func clusterToHosts(_ context.Context, object client.Object) []reconcile.Request {
	cluster, ok := object.(*infrav1.LibvirtCluster)
	if !ok {
		return nil
	}
	var requests []reconcile.Request
	for _, name := range cluster.Status.Hosts {
		requests = append(requests, reconcile.Request{NamespacedName: types.NamespacedName{Namespace: cluster.Namespace, Name: name}})
	}
	return requests
}

// Reconcile connects to a host and reports on it.
func (r *LibvirtHostReconciler) Reconcile(ctx context.Context, req ctrl.Request) (_ ctrl.Result, reterr error) {
	libvirtHost := &infrav1.LibvirtHost{}
	if err := r.Client.Get(ctx, req.NamespacedName, libvirtHost); err != nil {
		if apierrors.IsNotFound(err) {
			r.forget(req.NamespacedName)
		}
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if added, err := finalizers.EnsureFinalizer(ctx, r.Client, libvirtHost, infrav1.HostFinalizer); err != nil || added {
		return ctrl.Result{}, err
	}
	isPaused, requeue, err := paused.EnsurePausedCondition(ctx, r.Client, nil, libvirtHost)
	if err != nil || requeue {
		return ctrl.Result{}, err
	}
	patchHelper, err := patch.NewHelper(libvirtHost, r.Client)
	if err != nil {
		return ctrl.Result{}, err
	}
	defer func() {
		if err := patchHelper.Patch(ctx, libvirtHost, patch.WithOwnedConditions{Conditions: []string{
			infrav1.ReadyCondition, infrav1.HostConnectedCondition, infrav1.HostStorageReadyCondition,
			infrav1.HostOrphansAbsentCondition, infrav1.DeletingCondition, clusterv1.PausedCondition,
		}}); err != nil {
			reterr = kerrors.NewAggregate([]error{reterr, unlessGone(err)})
		}
	}()

	scope := &hostScope{libvirtHost: libvirtHost}
	connection := phase[*hostScope]{infrav1.HostConnectedCondition, infrav1.HostConnectedReason, r.reconcileConnection}
	if isPaused {
		// Machines aren't paused with their host, and need its connection.
		result, err := runPhases(ctx, libvirtHost, scope, []phase[*hostScope]{connection})
		if libvirtHost.DeletionTimestamp.IsZero() {
			setReady(libvirtHost, infrav1.ReadyReason, infrav1.HostConnectedCondition, infrav1.HostStorageReadyCondition)
		}
		return result, err
	}
	if !libvirtHost.DeletionTimestamp.IsZero() {
		err := r.reconcileDelete(ctx, libvirtHost)
		setDeleting(libvirtHost, err)
		return phaseResult(err)
	}
	result, err := runPhases(ctx, libvirtHost, scope, []phase[*hostScope]{
		connection,
		{infrav1.HostStorageReadyCondition, infrav1.HostStorageReadyReason, r.reconcileStorage},
	})
	if conditions.IsTrue(libvirtHost, infrav1.HostStorageReadyCondition) && scope.host != nil && err == nil {
		after := min(r.reconcileOrphans(ctx, scope), r.reconcileImages(ctx, scope))
		if result.RequeueAfter == 0 || after < result.RequeueAfter {
			result.RequeueAfter = after
		}
	}
	if scope.host != nil && err == nil {
		err = r.surveyHardware(ctx, scope)
	}
	if scope.host != nil {
		err = kerrors.NewAggregate([]error{err, r.reportAllocated(ctx, scope)})
	}
	setReady(libvirtHost, infrav1.ReadyReason, infrav1.HostConnectedCondition, infrav1.HostStorageReadyCondition)
	return result, err
}

// hostScope is what a reconcile of a host has gathered so far.
type hostScope struct {
	libvirtHost *infrav1.LibvirtHost
	host        *host.Host
	survey      survey
}

func (r *LibvirtHostReconciler) forget(key types.NamespacedName) {
	r.Hosts.Remove(hostKey(key.Namespace, key.Name))
	r.surveys.forget(hostKey(key.Namespace, key.Name))
	r.orphanages.forget(hostKey(key.Namespace, key.Name))
	r.imageLooks.forget(hostKey(key.Namespace, key.Name))
	r.Metrics.forget(hostKey(key.Namespace, key.Name))
}

// reconcileDelete lets a host go once nothing of ours is on it any more.
func (r *LibvirtHostReconciler) reconcileDelete(ctx context.Context, libvirtHost *infrav1.LibvirtHost) error {
	var machines infrav1.LibvirtMachineList
	if err := r.Client.List(ctx, &machines, client.InNamespace(libvirtHost.Namespace),
		client.MatchingFields{hostNameField: libvirtHost.Name}); err != nil {
		return fmt.Errorf("listing LibvirtMachines: %w", err)
	}
	if len(machines.Items) > 0 {
		return &waiting{reason: infrav1.HostInUseReason, message: fmt.Sprintf(
			"%d LibvirtMachines are still on the host, %s among them: delete their Machines", len(machines.Items), machines.Items[0].Name)}
	}
	var clusters infrav1.LibvirtClusterList
	if err := r.Client.List(ctx, &clusters, client.InNamespace(libvirtHost.Namespace)); err != nil {
		return fmt.Errorf("listing LibvirtClusters: %w", err)
	}
	for i := range clusters.Items {
		for _, name := range clusters.Items[i].Status.Hosts {
			if name == libvirtHost.Name {
				return &waiting{reason: infrav1.HostInUseReason, message: fmt.Sprintf(
					"the network of LibvirtCluster %s is still on the host; it is removed by itself", clusters.Items[i].Name)}
			}
		}
	}
	r.forget(client.ObjectKeyFromObject(libvirtHost))
	controllerutil.RemoveFinalizer(libvirtHost, infrav1.HostFinalizer)
	return nil
}

// reconcileConnection makes sure that the host is connected with the current URI and credentials, and reports what it
// says of itself.
func (r *LibvirtHostReconciler) reconcileConnection(ctx context.Context, s *hostScope) error {
	credentials, err := r.credentials(ctx, s.libvirtHost)
	if err != nil {
		return err
	}
	key := hostKey(s.libvirtHost.Namespace, s.libvirtHost.Name)
	identity, err := r.identity(ctx, s.libvirtHost)
	if err != nil {
		return err
	}
	r.Hosts.Set(key, host.Config{URI: s.libvirtHost.Spec.URI, Credentials: credentials, Identity: identity})
	s.host, err = r.Hosts.Get(key)
	switch {
	case errors.Is(err, host.ErrAuth):
		return &waiting{reason: infrav1.HostAuthenticationFailedReason, after: secretInterval, message: fmt.Sprintf(
			"connecting to spec.uri with the Secret of spec.credentialsRef: %s", err)}
	case errors.Is(err, host.ErrCredentials):
		return &waiting{reason: infrav1.HostCredentialsNotFoundReason, after: secretInterval, message: fmt.Sprintf(
			"reading the Secret of spec.credentialsRef: %s", err)}
	case errors.Is(err, host.ErrOtherHost):
		return &waiting{reason: infrav1.HostOtherHostReason, message: fmt.Sprintf(
			"connecting to spec.uri: %s: correct spec.uri, or remove status.hostUUID if the host was replaced", err)}
	case errors.Is(err, host.ErrInvalid):
		return &waiting{reason: infrav1.HostInvalidURIReason, message: fmt.Sprintf("connecting to spec.uri: %s", err)}
	case errors.Is(err, host.ErrConnecting):
		return &waiting{reason: infrav1.HostConnectingReason, message: "Connecting to spec.uri", unknown: true, keep: true}
	case err != nil:
		return &waiting{reason: infrav1.HostUnreachableReason, message: err.Error()}
	}
	epoch := r.Events.epoch(key, "")
	known, ok := r.surveys.get(key, epoch)
	if !ok {
		facts, err := s.host.Facts(ctx)
		if err != nil {
			return fmt.Errorf("asking the host for its facts: %w", err)
		}
		known = survey{facts: facts, epoch: epoch, at: time.Now()}
		r.surveys.set(key, known)
	}
	s.survey = known
	reportFacts(s.libvirtHost, known.facts)
	return nil
}

// identity is by what the host is known while machines are on it. A host whose machines have no domain yet is known by
// nothing: there is none to miss.
func (r *LibvirtHostReconciler) identity(ctx context.Context, libvirtHost *infrav1.LibvirtHost) (host.Identity, error) {
	var machines infrav1.LibvirtMachineList
	if err := r.Client.List(ctx, &machines, client.InNamespace(libvirtHost.Namespace),
		client.MatchingFields{hostNameField: libvirtHost.Name}); err != nil {
		return host.Identity{}, fmt.Errorf("listing LibvirtMachines: %w", err)
	}
	known := host.Identity{UUID: libvirtHost.Status.HostUUID}
	for i := range machines.Items {
		if provisioned(&machines.Items[i]) {
			known.Domains = append(known.Domains, domain.UUID(machines.Items[i].Spec.ProviderID))
		}
	}
	return known, nil
}

// secretInterval is how often a Secret is read again that is missing or doesn't do. Secrets aren't watched, so that the
// manager needs no right to list them.
const secretInterval = 10 * time.Second

// credentials reads the Secret of spec.credentialsRef.
func (r *LibvirtHostReconciler) credentials(ctx context.Context, libvirtHost *infrav1.LibvirtHost) (host.Credentials, error) {
	name := libvirtHost.Spec.CredentialsRef.Name
	if name == "" {
		return host.Credentials{}, nil
	}
	secret := &corev1.Secret{}
	err := r.Client.Get(ctx, types.NamespacedName{Namespace: libvirtHost.Namespace, Name: name}, secret)
	if apierrors.IsNotFound(err) {
		return host.Credentials{}, &waiting{reason: infrav1.HostCredentialsNotFoundReason, after: secretInterval, message: fmt.Sprintf(
			"Secret %s of spec.credentialsRef doesn't exist in namespace %s: create it", name, libvirtHost.Namespace)}
	}
	if err != nil {
		return host.Credentials{}, unasked{fmt.Errorf("reading Secret %s: %w", name, err)}
	}
	return host.ReadCredentials(secret.Data), nil
}

// reconcileStorage makes sure that the storage pools are there and active. Only the seed pool is ours to make.
func (r *LibvirtHostReconciler) reconcileStorage(ctx context.Context, s *hostScope) error {
	h := s.libvirtHost
	if seedPool(h) == imagePool(h) || slices.Contains(diskPools(h), seedPool(h)) {
		return &waiting{reason: infrav1.HostStoragePoolConflictReason, message: fmt.Sprintf(
			"spec.storage.seedPool %s is also an image or disk pool: name another one, it is created by itself", seedPool(h))}
	}
	if s.survey.covers(append(diskPools(h), imagePool(h), seedPool(h))) {
		return nil
	}
	var pools []host.StoragePool
	wanted := []struct{ field, name string }{{"imagePool", imagePool(h)}, {"diskPool", diskPool(h)}}
	for _, name := range extraDiskPools(h) {
		wanted = append(wanted, struct{ field, name string }{"extraDiskPools", name})
	}
	for _, pool := range wanted {
		if slices.ContainsFunc(pools, func(p host.StoragePool) bool { return p.Name == pool.name }) {
			continue
		}
		found, err := s.host.StoragePool(ctx, pool.name)
		if errors.Is(err, host.ErrNotFound) {
			return &waiting{reason: infrav1.HostStoragePoolNotFoundReason, after: time.Minute, message: fmt.Sprintf(
				"storage pool %s of spec.storage.%s doesn't exist on the host: define it, for example with "+
					"virsh pool-define-as %s dir --target /var/lib/libvirt/images, or name another", pool.name, pool.field, pool.name)}
		}
		if err == nil && !found.Active {
			// Made by the host's owner, but useless to us unless it runs; starting it loses nothing.
			if err := s.host.EnsureDirPool(ctx, pool.name, found.Path); err != nil {
				return fmt.Errorf("starting storage pool %s of spec.storage.%s: %w", pool.name, pool.field, err)
			}
			// A pool that is stopped doesn't know its size.
			found, err = s.host.StoragePool(ctx, pool.name)
		}
		if err != nil {
			return fmt.Errorf("looking up storage pool %s of spec.storage.%s: %w", pool.name, pool.field, err)
		}
		pools = append(pools, found)
	}
	if err := s.host.EnsureDirPool(ctx, seedPool(h), seedPoolParent+seedPool(h)); err != nil {
		return fmt.Errorf("making storage pool %s of spec.storage.seedPool: %w", seedPool(h), err)
	}
	seeds, err := s.host.StoragePool(ctx, seedPool(h))
	if err != nil {
		return fmt.Errorf("looking up storage pool %s of spec.storage.seedPool: %w", seedPool(h), err)
	}
	pools = append(pools, seeds)
	if s.survey.retained, err = r.lookForRetained(ctx, s); err != nil {
		return fmt.Errorf("looking for retained disks: %w", err)
	}
	s.survey.pools = pools
	r.surveys.set(hostKey(h.Namespace, h.Name), s.survey)
	return nil
}
