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

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/validation/field"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/image"
)

// +kubebuilder:webhook:verbs=create;update,path=/validate-infrastructure-cluster-x-k8s-io-v1beta1-libvirtmachinetemplate,mutating=false,failurePolicy=fail,matchPolicy=Equivalent,groups=infrastructure.cluster.x-k8s.io,resources=libvirtmachinetemplates,versions=v1beta1,name=validation.libvirtmachinetemplate.infrastructure.cluster.x-k8s.io,sideEffects=None,admissionReviewVersions=v1

// machineTemplateValidator validates LibvirtMachineTemplates.
type machineTemplateValidator struct {
	images image.Policy
}

var _ admission.Validator[*infrav1.LibvirtMachineTemplate] = machineTemplateValidator{}

func setupMachineTemplate(mgr ctrl.Manager, images image.Policy) error {
	return ctrl.NewWebhookManagedBy(mgr, &infrav1.LibvirtMachineTemplate{}).
		WithValidator(machineTemplateValidator{images: images}).Complete()
}

// ValidateCreate refuses a template from which no machine could be made.
func (v machineTemplateValidator) ValidateCreate(_ context.Context, template *infrav1.LibvirtMachineTemplate) (admission.Warnings, error) {
	return nil, invalid("LibvirtMachineTemplate", template.Name, v.validate(template))
}

// ValidateUpdate refuses changes of spec.template.spec.
func (v machineTemplateValidator) ValidateUpdate(ctx context.Context, before, after *infrav1.LibvirtMachineTemplate) (admission.Warnings, error) {
	// What was accepted once is accepted again, or stricter rules would keep metadata from being changed.
	if equality.Semantic.DeepEqual(before.Spec, after.Spec) {
		return nil, nil
	}
	immutable, err := templateImmutable(ctx, after, before.Spec.Template.Spec, after.Spec.Template.Spec,
		"create a new LibvirtMachineTemplate and name it in the MachineDeployment or the control plane, which rolls out new machines")
	if err != nil {
		return nil, err
	}
	return nil, invalid("LibvirtMachineTemplate", after.Name, append(v.validate(after), immutable...))
}

// ValidateDelete allows every deletion.
func (machineTemplateValidator) ValidateDelete(context.Context, *infrav1.LibvirtMachineTemplate) (admission.Warnings, error) {
	return nil, nil
}

func (v machineTemplateValidator) validate(template *infrav1.LibvirtMachineTemplate) field.ErrorList {
	return append(validateMachineTemplate(template), v.validateImage(template.Spec.Template.Spec.Image)...)
}

// validateImage refuses a URL from which no image may come. What its name resolves to is seen when it is downloaded.
func (v machineTemplateValidator) validateImage(from infrav1.Image) field.ErrorList {
	if from.URL == "" {
		return nil
	}
	if err := v.images.CheckURL(from.URL); err != nil {
		// The value is left out, because it may contain a password.
		return field.ErrorList{field.Invalid(field.NewPath("spec", "template", "spec", "image", "url"), field.OmitValueType{}, err.Error())}
	}
	return nil
}

func validateMachineTemplate(template *infrav1.LibvirtMachineTemplate) field.ErrorList {
	path := field.NewPath("spec", "template")
	found := template.Spec.Template.ObjectMeta.Validate(path.Child("metadata"))
	if template.Spec.Template.Spec.ProviderID != "" {
		found = append(found, field.Forbidden(path.Child("spec", "providerID"),
			"identifies the domain of one machine: remove it from the template"))
	}
	if template.Spec.Template.Spec.MigratedFrom != "" {
		found = append(found, field.Forbidden(path.Child("spec", "migratedFrom"),
			"tells where the domain of one machine was: remove it from the template"))
	}
	if template.Spec.Template.Spec.Address != "" {
		found = append(found, field.Forbidden(path.Child("spec", "address"),
			"is the address of one machine: remove it from the template"))
	}
	if template.Spec.Template.Spec.Slot.Set != "" {
		found = append(found, field.Forbidden(path.Child("spec", "slot"),
			"is the place of one machine in its set: remove it from the template"))
	}
	return found
}
