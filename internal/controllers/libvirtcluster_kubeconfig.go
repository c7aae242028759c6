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
	"bytes"
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/cluster-api/util/kubeconfig"
	"sigs.k8s.io/cluster-api/util/secret"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/network"
)

// kubeconfigExternal follows the name of a cluster in that of the Secret with its kubeconfig for outside.
const kubeconfigExternal = secret.Purpose("kubeconfig-external")

// The rights to change Secrets are for kubeconfigs for outside alone, see config/policy.
// +kubebuilder:rbac:groups="",resources=secrets,verbs=get;create;patch;delete

// reconcileKubeconfig offers those outside, in a Secret of its own, the kubeconfig of the cluster with the address that they
// use, as long as they may reach the API server. Secrets aren't watched, so that a kubeconfig that was renewed is copied at
// the next resync; the one from before is good for months.
func (r *LibvirtClusterReconciler) reconcileKubeconfig(ctx context.Context, s *clusterScope) error {
	key := client.ObjectKey{Namespace: s.cluster.Namespace, Name: secret.Name(s.cluster.Name, kubeconfigExternal)}
	found := &corev1.Secret{}
	err := r.Client.Get(ctx, key, found)
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("reading Secret %s: %w", key.Name, err)
	}
	exists := err == nil
	ours := exists && metav1.IsControlledBy(found, s.libvirtCluster)
	server := network.ExternalAPIServer(s.libvirtCluster.Spec.Network)
	if server == "" {
		if !ours {
			return nil
		}
		if err := r.Client.Delete(ctx, found, client.Preconditions{UID: &found.UID}); client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("deleting Secret %s: %w", key.Name, err)
		}
		return nil
	}
	if exists && !ours {
		return &waiting{reason: infrav1.ClusterKubeconfigConflictReason, after: conflictInterval, message: fmt.Sprintf(
			"Secret %s is in the place of the kubeconfig for outside and doesn't belong to the LibvirtCluster: delete it, or rename it", key.Name)}
	}
	source, err := kubeconfig.FromSecret(ctx, r.Client, client.ObjectKeyFromObject(s.cluster))
	if apierrors.IsNotFound(err) {
		return nil // the control plane is yet to be made, and wakes us when it is
	}
	if err != nil {
		return fmt.Errorf("reading the kubeconfig of the cluster: %w", err)
	}
	data, err := withServer(source, server)
	if err != nil {
		return fmt.Errorf("reading the kubeconfig of the cluster: %w", err)
	}
	if !exists {
		return r.createKubeconfig(ctx, s, key, data)
	}
	if bytes.Equal(found.Data[secret.KubeconfigDataName], data) {
		return nil
	}
	before := found.DeepCopy()
	found.Data = map[string][]byte{secret.KubeconfigDataName: data}
	if err := r.Client.Patch(ctx, found, client.MergeFrom(before)); err != nil {
		return fmt.Errorf("changing Secret %s: %w", key.Name, err)
	}
	return nil
}

func (r *LibvirtClusterReconciler) createKubeconfig(ctx context.Context, s *clusterScope, key client.ObjectKey, data []byte) error {
	created := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: key.Namespace, Name: key.Name, Labels: map[string]string{clusterv1.ClusterNameLabel: s.cluster.Name},
		},
		Data: map[string][]byte{secret.KubeconfigDataName: data},
		Type: clusterv1.ClusterSecretType,
	}
	if err := controllerutil.SetControllerReference(s.libvirtCluster, created, r.Client.Scheme(), controllerutil.WithBlockOwnerDeletion(false)); err != nil {
		return fmt.Errorf("owning Secret %s: %w", key.Name, err)
	}
	if err := r.Client.Create(ctx, created); err != nil {
		return fmt.Errorf("creating Secret %s: %w", key.Name, err)
	}
	return nil
}

// withServer is a kubeconfig with another URL of the API server.
func withServer(data []byte, server string) ([]byte, error) {
	config, err := clientcmd.Load(data)
	if err != nil {
		return nil, err
	}
	for _, cluster := range config.Clusters {
		cluster.Server = server
	}
	return clientcmd.Write(*config)
}
