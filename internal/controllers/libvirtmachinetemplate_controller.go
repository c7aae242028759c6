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
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/klog/v2"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/cluster-api/util"
	"sigs.k8s.io/cluster-api/util/annotations"
	capicontroller "sigs.k8s.io/cluster-api/util/controller"
	"sigs.k8s.io/cluster-api/util/predicates"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
)

// LibvirtMachineTemplateReconciler tells of a template what its machines will have, so that a set of them can be scaled
// from zero.
type LibvirtMachineTemplateReconciler struct {
	Client           client.Client
	WatchFilterValue string
}

// +kubebuilder:rbac:groups=infrastructure.cluster.x-k8s.io,resources=libvirtmachinetemplates,verbs=get;list;watch
// +kubebuilder:rbac:groups=infrastructure.cluster.x-k8s.io,resources=libvirtmachinetemplates/status,verbs=patch
// +kubebuilder:rbac:groups=cluster.x-k8s.io,resources=clusters,verbs=get;list;watch

// SetupWithManager adds the reconciler to a manager.
func (r *LibvirtMachineTemplateReconciler) SetupWithManager(ctx context.Context, mgr ctrl.Manager, options controller.Options) error {
	log := ctrl.LoggerFrom(ctx).WithValues("controller", "libvirtmachinetemplate")
	return capicontroller.NewControllerManagedBy(mgr, log).
		For(&infrav1.LibvirtMachineTemplate{}).
		WithOptions(options).
		WithEventFilter(predicates.ResourceHasFilterLabel(mgr.GetScheme(), log, r.WatchFilterValue)).
		Watches(&clusterv1.Cluster{}, handler.EnqueueRequestsFromMapFunc(r.clusterToTemplates),
			predicates.ClusterPausedTransitions(mgr.GetScheme(), log)).
		Complete(ctx, r)
}

// clusterToTemplates wakes the templates that a Cluster owns.
func (r *LibvirtMachineTemplateReconciler) clusterToTemplates(ctx context.Context, object client.Object) []reconcile.Request {
	var list infrav1.LibvirtMachineTemplateList
	if err := r.Client.List(ctx, &list, client.InNamespace(object.GetNamespace())); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "Failed to list LibvirtMachineTemplates", "Cluster", klog.KObj(object))
		return nil
	}
	var requests []reconcile.Request
	for i := range list.Items {
		if util.IsOwnedByObject(&list.Items[i], object, clusterv1.GroupVersion.WithKind("Cluster").GroupKind()) {
			requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&list.Items[i])})
		}
	}
	return requests
}

// Reconcile writes the status of a template. Nothing but the template has to be there for that: neither a machine nor a
// Cluster.
func (r *LibvirtMachineTemplateReconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	template := &infrav1.LibvirtMachineTemplate{}
	if err := r.Client.Get(ctx, req.NamespacedName, template); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	status := templateStatus(template.Spec.Template.Spec)
	if !template.DeletionTimestamp.IsZero() || equality.Semantic.DeepEqual(template.Status, status) {
		return ctrl.Result{}, nil
	}
	cluster, err := util.GetOwnerCluster(ctx, r.Client, template.ObjectMeta)
	if client.IgnoreNotFound(err) != nil {
		return ctrl.Result{}, fmt.Errorf("looking up the Cluster of LibvirtMachineTemplate %s: %w", klog.KObj(template), err)
	}
	if annotations.HasPaused(template) || cluster != nil && annotations.IsPaused(cluster, template) {
		return ctrl.Result{}, nil
	}
	before := template.DeepCopy()
	template.Status = status
	if err := r.Client.Status().Patch(ctx, template, client.MergeFrom(before)); client.IgnoreNotFound(err) != nil {
		return ctrl.Result{}, fmt.Errorf("writing the status of LibvirtMachineTemplate %s: %w", klog.KObj(template), err)
	}
	return ctrl.Result{}, nil
}

// templateStatus is what a machine with that spec will have. The kubelet reports a little less, because firmware, kernel
// and file system take their share.
func templateStatus(spec infrav1.LibvirtMachineSpec) infrav1.LibvirtMachineTemplateStatus {
	return infrav1.LibvirtMachineTemplateStatus{
		Capacity: corev1.ResourceList{
			corev1.ResourceCPU:              *resource.NewQuantity(int64(spec.VCPUs), resource.DecimalSI),
			corev1.ResourceMemory:           spec.Memory,
			corev1.ResourceEphemeralStorage: spec.RootDisk.Size,
		},
		NodeInfo: infrav1.NodeInfo{Architecture: infrav1.ArchitectureAMD64, OperatingSystem: "linux"},
	}
}
