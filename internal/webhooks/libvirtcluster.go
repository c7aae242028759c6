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
	"context"
	"errors"
	"fmt"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/network"
)

// +kubebuilder:webhook:verbs=create;update,path=/validate-infrastructure-cluster-x-k8s-io-v1beta1-libvirtcluster,mutating=false,failurePolicy=fail,matchPolicy=Equivalent,groups=infrastructure.cluster.x-k8s.io,resources=libvirtclusters,versions=v1beta1,name=validation.libvirtcluster.infrastructure.cluster.x-k8s.io,sideEffects=None,admissionReviewVersions=v1

// clusterValidator validates LibvirtClusters.
type clusterValidator struct {
	// reader finds the other clusters and the hosts.
	reader client.Reader
}

var _ admission.Validator[*infrav1.LibvirtCluster] = clusterValidator{}

func setupCluster(mgr ctrl.Manager) error {
	return ctrl.NewWebhookManagedBy(mgr, &infrav1.LibvirtCluster{}).WithValidator(clusterValidator{mgr.GetClient()}).Complete()
}

// ValidateCreate refuses a spec that can't be served, and addresses that another cluster gives out or is reached at.
func (v clusterValidator) ValidateCreate(ctx context.Context, cluster *infrav1.LibvirtCluster) (admission.Warnings, error) {
	found := validateCluster(cluster.Spec, field.NewPath("spec"))
	clash, err := v.findClash(ctx, cluster)
	if err != nil {
		return nil, err
	}
	return nil, invalid("LibvirtCluster", cluster.Name, append(found, clash...))
}

// ValidateUpdate refuses a spec that can't be served, addresses that another cluster gives out or is reached at, and changes
// that a network or machines which are already there can't follow.
func (v clusterValidator) ValidateUpdate(ctx context.Context, before, after *infrav1.LibvirtCluster) (admission.Warnings, error) {
	// What was accepted once is accepted again, or stricter rules would keep finalizers from being removed.
	if equality.Semantic.DeepEqual(before.Spec, after.Spec) {
		return nil, nil
	}
	path := field.NewPath("spec")
	found := validateCluster(after.Spec, path)
	found = append(found, validateNetworkChange(before, after.Spec.Network, path.Child("network"))...)
	clash, err := v.findClash(ctx, after)
	if err != nil {
		return nil, err
	}
	return nil, invalid("LibvirtCluster", after.Name, append(found, clash...))
}

// findClash looks for a cluster that gives out the same addresses of an existing network, lets connections in at the same
// external address and port, or has a range to which links lead. One that is deleted may still have machines, and a cluster that is deleted itself must be able
// to go.
func (v clusterValidator) findClash(ctx context.Context, cluster *infrav1.LibvirtCluster) (field.ErrorList, error) {
	if !cluster.DeletionTimestamp.IsZero() {
		return nil, nil
	}
	var clusters infrav1.LibvirtClusterList
	if err := v.reader.List(ctx, &clusters); err != nil {
		return nil, apierrors.NewInternalError(fmt.Errorf("listing LibvirtClusters: %w", err))
	}
	var hosts infrav1.LibvirtHostList
	if err := v.reader.List(ctx, &hosts); err != nil {
		return nil, apierrors.NewInternalError(fmt.Errorf("listing LibvirtHosts: %w", err))
	}
	clash := network.FindClash(cluster, clusters.Items, hosts.Items)
	if clash == nil {
		return nil, nil
	}
	return field.ErrorList{field.Invalid(field.NewPath("spec").Child(clash.Field), clash.Value, clash.Detail)}, nil
}

// ValidateDelete allows every deletion.
func (clusterValidator) ValidateDelete(context.Context, *infrav1.LibvirtCluster) (admission.Warnings, error) {
	return nil, nil
}

// validateCluster checks the spec of a cluster or of a cluster's template.
func validateCluster(spec infrav1.LibvirtClusterSpec, path *field.Path) field.ErrorList {
	found := metav1validation.ValidateLabelSelector(&spec.HostSelector,
		metav1validation.LabelSelectorValidationOptions{}, path.Child("hostSelector"))

	plans, err := network.NewPlans(spec.Network)
	if err != nil {
		return append(found, networkError(err, path.Child("network")))
	}
	if host := spec.ControlPlaneEndpoint.Host; host != "" {
		if err := plans.Main.CheckEndpoint(host); err != nil {
			found = append(found, field.Invalid(path.Child("controlPlaneEndpoint", "host"), host, err.Error()))
		}
	}
	if err := network.CheckSiteLink(spec.Network); err != nil {
		found = append(found, networkError(err, path.Child("network")))
	}
	if _, err := network.Forwards(spec, plans); err != nil {
		found = append(found, networkError(err, path.Child("network")))
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
// network anew, which would cut off every machine of the cluster. The schema refuses changes of cidr. In an existing
// network, machines keep the addresses that they have.
func validateNetworkChange(cluster *infrav1.LibvirtCluster, after infrav1.ClusterNetwork, path *field.Path) field.ErrorList {
	before := cluster.Spec.Network
	var found field.ErrorList
	if network.Existing(before) {
		if err := network.CheckNodeRangeChange(before, after); err != nil {
			found = append(found, networkError(err, path))
		}
		return found
	}
	if before.UUID == "" {
		return nil
	}
	const detail = "can't be changed, because the network would have to be stopped under the machines: create a new cluster instead"
	if before.IngressCIDR != after.IngressCIDR {
		found = append(found, field.Forbidden(path.Child("ingressCIDR"), detail))
	}
	switch from, to := network.MTU(before), network.MTU(after); {
	case from == to:
	case before.MTU == 0 && after.MTU == 0:
		found = append(found, field.Forbidden(path.Child("siteLink"), fmt.Sprintf(
			"would change the MTU of the node network from %d to %d, as long as spec.network.mtu isn't set, and the network would have to be stopped under the machines for that: set spec.network.mtu to %d if siteLink carries that, or create a new cluster",
			from, to, from)))
	default:
		found = append(found, field.Forbidden(path.Child("mtu"), detail))
	}
	for _, used := range cluster.Status.FailureDomains {
		if subnetOf(before, used.Name) != subnetOf(after, used.Name) {
			found = append(found, field.Forbidden(path.Child("subnets").Key(used.Name),
				"can't be changed while hosts of the failure domain have the network: take them out of spec.hostSelector first"))
		}
	}
	return found
}

// subnetOf is the range of a failure domain's own subnet, empty when it has none.
func subnetOf(spec infrav1.ClusterNetwork, failureDomain string) string {
	for _, subnet := range spec.Subnets {
		if subnet.FailureDomain == failureDomain {
			return subnet.CIDR
		}
	}
	return ""
}
