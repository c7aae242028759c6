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

// Package webhooks refuses, at admission, what the schemas of the CRDs can't express: plans of addresses that can't
// work, connection URIs that mustn't be opened, and changes that can't be made to what is already there. Every refusal
// names the field and the remedy.
package webhooks

import (
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/validation/field"
	ctrl "sigs.k8s.io/controller-runtime"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/image"
)

// Setup registers all webhooks with the manager. Images that the policy forbids are refused.
func Setup(mgr ctrl.Manager, images image.Policy) error {
	for kind, setup := range map[string]func(ctrl.Manager) error{
		"LibvirtHost":            setupHost,
		"LibvirtCluster":         setupCluster,
		"LibvirtClusterTemplate": setupClusterTemplate,
		"LibvirtMachineTemplate": func(mgr ctrl.Manager) error { return setupMachineTemplate(mgr, images) },
	} {
		if err := setup(mgr); err != nil {
			return fmt.Errorf("setting up the webhook for %s: %w", kind, err)
		}
	}
	return nil
}

// invalid is the refusal of an object for the errors that were found in it, nil when there are none.
func invalid(kind, name string, found field.ErrorList) error {
	if len(found) == 0 {
		return nil
	}
	return apierrors.NewInvalid(infrav1.GroupVersion.WithKind(kind).GroupKind(), name, found)
}
