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
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/hosturi"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/network"
)

// +kubebuilder:webhook:verbs=create;update,path=/validate-infrastructure-cluster-x-k8s-io-v1beta1-libvirthost,mutating=false,failurePolicy=fail,matchPolicy=Equivalent,groups=infrastructure.cluster.x-k8s.io,resources=libvirthosts,versions=v1beta1,name=validation.libvirthost.infrastructure.cluster.x-k8s.io,sideEffects=None,admissionReviewVersions=v1

// hostValidator validates LibvirtHosts.
type hostValidator struct{}

var _ admission.Validator[*infrav1.LibvirtHost] = hostValidator{}

func setupHost(mgr ctrl.Manager) error {
	return ctrl.NewWebhookManagedBy(mgr, &infrav1.LibvirtHost{}).WithValidator(hostValidator{}).Complete()
}

// ValidateCreate refuses a spec that can't or mustn't be served.
func (hostValidator) ValidateCreate(_ context.Context, host *infrav1.LibvirtHost) (admission.Warnings, error) {
	return warnHost(host.Spec), invalid("LibvirtHost", host.Name, validateHost(host.Spec))
}

// ValidateUpdate refuses a spec that can't or mustn't be served, and other storage pools while machines are there.
func (hostValidator) ValidateUpdate(_ context.Context, before, after *infrav1.LibvirtHost) (admission.Warnings, error) {
	// What was accepted once is accepted again, or stricter rules would keep finalizers from being removed.
	if equality.Semantic.DeepEqual(before.Spec, after.Spec) {
		return nil, nil
	}
	found := validateHost(after.Spec)
	machines := ptr.Deref(before.Status.Machines, 0)
	if machines > 0 && !stillThere(withDefaults(before.Spec.Storage), withDefaults(after.Spec.Storage)) {
		found = append(found, field.Forbidden(field.NewPath("spec", "storage"), fmt.Sprintf(
			"can't be changed while the disks of machines are in the pools it names: delete the %d LibvirtMachines on the host first, or create another LibvirtHost",
			machines)))
	}
	found = append(found, validateRetained(before.Status.RetainedDisks, withDefaults(after.Spec.Storage))...)
	return warnHost(after.Spec), invalid("LibvirtHost", after.Name, found)
}

// stillThere tells whether all pools are what they were. There may be more.
func stillThere(before, after infrav1.HostStorage) bool {
	missing := slices.ContainsFunc(before.ExtraDiskPools, func(pool string) bool { return !slices.Contains(after.ExtraDiskPools, pool) })
	return !missing && before.ImagePool == after.ImagePool && before.DiskPool == after.DiskPool && before.SeedPool == after.SeedPool
}

// validateRetained refuses to lose sight of retained disks: their slots would be made a second time.
func validateRetained(disks []infrav1.RetainedDisk, storage infrav1.HostStorage) field.ErrorList {
	for _, disk := range disks {
		if disk.Pool != storage.DiskPool && !slices.Contains(storage.ExtraDiskPools, disk.Pool) {
			return field.ErrorList{field.Forbidden(field.NewPath("spec", "storage", "extraDiskPools"), fmt.Sprintf(
				"must have %s as long as retained disks are there, which status.retainedDisks lists: delete them first, or add the pool", disk.Pool))}
		}
	}
	return nil
}

// warnHost tells of what is allowed and dangerous.
func warnHost(spec infrav1.LibvirtHostSpec) admission.Warnings {
	if spec.OrphanPolicy == infrav1.OrphanPolicyDelete {
		return admission.Warnings{"spec.orphanPolicy Delete removes machines of other management clusters that use this host or its storage too: use Report if there are any"}
	}
	return nil
}

// ValidateDelete allows every deletion: the finalizer waits for what is still on the host.
func (hostValidator) ValidateDelete(context.Context, *infrav1.LibvirtHost) (admission.Warnings, error) {
	return nil, nil
}

func validateHost(spec infrav1.LibvirtHostSpec) field.ErrorList {
	path := field.NewPath("spec")
	var found field.ErrorList
	if uri, err := hosturi.Parse(spec.URI); err != nil {
		// The value is left out, because it may contain a password.
		found = append(found, field.Invalid(path.Child("uri"), field.OmitValueType{}, err.Error()))
	} else if uri.Remote() && spec.CredentialsRef.Name == "" {
		found = append(found, field.Required(path.Child("credentialsRef"), credentialsRemedy(uri)))
	}
	if guard := spec.WireGuard; guard != nil && guard.Address != "" {
		if _, err := network.ParseWireGuardAddress(guard.Address); err != nil {
			found = append(found, field.Invalid(path.Child("wireGuard", "address"), guard.Address, err.Error()))
		}
	}
	found = append(found, validateStorage(withDefaults(spec.Storage), path.Child("storage"))...)
	found = append(found, validateReserved(spec.Reserved.Memory, path.Child("reserved", "memory"))...)
	found = append(found, validateReserved(spec.Reserved.Storage, path.Child("reserved", "storage"))...)
	return found
}

// validateReserved checks an amount that is kept free.
func validateReserved(amount *resource.Quantity, path *field.Path) field.ErrorList {
	if amount == nil || amount.Sign() >= 0 {
		return nil
	}
	return field.ErrorList{field.Invalid(path, amount.String(), "must not be negative: use 0 to keep nothing free")}
}

func credentialsRemedy(uri hosturi.URI) string {
	keys := "ssh-privatekey and known_hosts"
	if uri.Transport == hosturi.TLS {
		keys = "tls.crt, tls.key and ca.crt"
	}
	return fmt.Sprintf("%s is reached over the network: name a Secret with %s", uri.Host, keys)
}

// validateStorage checks pools to which the defaults were applied.
func validateStorage(storage infrav1.HostStorage, path *field.Path) field.ErrorList {
	var found field.ErrorList
	if storage.SeedPool == storage.ImagePool || storage.SeedPool == storage.DiskPool || slices.Contains(storage.ExtraDiskPools, storage.SeedPool) {
		found = append(found, field.Invalid(path.Child("seedPool"), storage.SeedPool,
			"must not be the imagePool or a pool for disks, because libvirt refreshes a whole pool after each upload into it: name a pool of its own, it is created when it doesn't exist"))
	}
	return found
}

// withDefaults fills in what unset pools mean.
func withDefaults(storage infrav1.HostStorage) infrav1.HostStorage {
	storage.ImagePool = cmp.Or(storage.ImagePool, infrav1.DefaultPool)
	storage.DiskPool = cmp.Or(storage.DiskPool, infrav1.DefaultPool)
	storage.SeedPool = cmp.Or(storage.SeedPool, infrav1.DefaultSeedPool)
	return storage
}
