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

package webhooks

import (
	"cmp"
	"context"
	"errors"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/network"
)

// +kubebuilder:webhook:verbs=create;update,path=/validate-infrastructure-cluster-x-k8s-io-v1beta1-libvirtcluster,mutating=false,failurePolicy=fail,matchPolicy=Equivalent,groups=infrastructure.cluster.x-k8s.io,resources=libvirtclusters,versions=v1beta1,name=validation.libvirtcluster.infrastructure.cluster.x-k8s.io,sideEffects=None,admissionReviewVersions=v1

// clusterValidator validates LibvirtClusters.
type clusterValidator struct{}

var _ admission.Validator[*infrav1.LibvirtCluster] = clusterValidator{}

func setupCluster(mgr ctrl.Manager) error {
	return ctrl.NewWebhookManagedBy(mgr, &infrav1.LibvirtCluster{}).WithValidator(clusterValidator{}).Complete()
}

// ValidateCreate refuses a spec that can't be served.
func (clusterValidator) ValidateCreate(_ context.Context, cluster *infrav1.LibvirtCluster) (admission.Warnings, error) {
	return nil, invalid("LibvirtCluster", cluster.Name, validateCluster(cluster.Spec, field.NewPath("spec")))
}

// ValidateUpdate refuses a spec that can't be served, and changes that a network which is already there can't follow.
func (clusterValidator) ValidateUpdate(_ context.Context, before, after *infrav1.LibvirtCluster) (admission.Warnings, error) {
	// What was accepted once is accepted again, or stricter rules would keep finalizers from being removed.
	if equality.Semantic.DeepEqual(before.Spec, after.Spec) {
		return nil, nil
	}
	path := field.NewPath("spec")
	found := validateCluster(after.Spec, path)
	found = append(found, validateNetworkChange(before.Spec.Network, after.Spec.Network, path.Child("network"))...)
	return nil, invalid("LibvirtCluster", after.Name, found)
}

// ValidateDelete allows every deletion.
func (clusterValidator) ValidateDelete(context.Context, *infrav1.LibvirtCluster) (admission.Warnings, error) {
	return nil, nil
}

// validateCluster checks the spec of a cluster or of a cluster's template.
func validateCluster(spec infrav1.LibvirtClusterSpec, path *field.Path) field.ErrorList {
	found := metav1validation.ValidateLabelSelector(&spec.HostSelector,
		metav1validation.LabelSelectorValidationOptions{}, path.Child("hostSelector"))

	plan, err := network.NewPlan(spec.Network.CIDR, spec.Network.IngressCIDR)
	if err != nil {
		return append(found, networkError(err, path.Child("network")))
	}
	if host := spec.ControlPlaneEndpoint.Host; host != "" {
		if err := plan.CheckEndpoint(host); err != nil {
			found = append(found, field.Invalid(path.Child("controlPlaneEndpoint", "host"), host, err.Error()))
		}
	}
	return found
}

func networkError(err error, path *field.Path) *field.Error {
	var wrong *network.FieldError
	if errors.As(err, &wrong) {
		return field.Invalid(path.Child(wrong.Field), wrong.Value, wrong.Detail)
	}
	return field.InternalError(path, err)
}

// validateNetworkChange refuses changes of a network that is already there: libvirt applies them only when it starts a
// network anew, which would cut off every machine of the cluster. The schema refuses changes of cidr.
func validateNetworkChange(before, after infrav1.ClusterNetwork, path *field.Path) field.ErrorList {
	if before.UUID == "" {
		return nil
	}
	const detail = "can't be changed, because the network would have to be stopped under the machines: create a new cluster instead"
	var found field.ErrorList
	if before.IngressCIDR != after.IngressCIDR {
		found = append(found, field.Forbidden(path.Child("ingressCIDR"), detail))
	}
	if cmp.Or(before.MTU, network.DefaultMTU) != cmp.Or(after.MTU, network.DefaultMTU) {
		found = append(found, field.Forbidden(path.Child("mtu"), detail))
	}
	return found
}
