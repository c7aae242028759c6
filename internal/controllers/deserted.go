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

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/klog/v2"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	clusterctlv1 "sigs.k8s.io/cluster-api/cmd/clusterctl/api/v1alpha3"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
)

// Somebody who takes the finalizer of a Machine or of a Cluster away by force leaves our objects behind, to be deleted
// with nobody over them. What was made for them on hosts is removed all the same: it is found by our own names.

// waitsForUs tells whether an object is being deleted and stays until its finalizer of ours is taken away.
func waitsForUs(object client.Object, finalizer string) bool {
	return !object.GetDeletionTimestamp().IsZero() && controllerutil.ContainsFinalizer(object, finalizer)
}

// lastCluster stands in for the Cluster of an object whose Cluster is gone: all that is known of it is its name. Should the
// cache have been behind, it is the Cluster itself.
func lastCluster(ctx context.Context, reader client.Reader, object client.Object) (*clusterv1.Cluster, error) {
	name := object.GetLabels()[clusterv1.ClusterNameLabel]
	if name == "" {
		return nil, fmt.Errorf("finding out whose %s was: set its label %s to the name of its Cluster, which is gone", klog.KObj(object), clusterv1.ClusterNameLabel)
	}
	cluster := &clusterv1.Cluster{}
	err := reader.Get(ctx, client.ObjectKey{Namespace: object.GetNamespace(), Name: name}, cluster)
	if apierrors.IsNotFound(err) {
		return &clusterv1.Cluster{ObjectMeta: metav1.ObjectMeta{Namespace: object.GetNamespace(), Name: name}}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("looking up Cluster %s: %w", name, err)
	}
	return cluster, nil
}

// movedAway tells that an object is deleted because clusterctl has moved it to another management cluster. What was made
// for it on hosts went along, and mustn't be removed.
func movedAway(object client.Object) bool {
	_, moved := object.GetAnnotations()[clusterctlv1.DeleteForMoveAnnotation]
	return moved
}
