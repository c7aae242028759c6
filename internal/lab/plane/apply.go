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

package plane

import (
	"context"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const (
	fieldOwner = client.FieldOwner("management-plane")
	// settleTimeout bounds the wait for what the control plane's own controllers do with an
	// object: it takes them a second.
	settleTimeout = time.Minute
)

// applyAll applies the objects server-side, those that others depend on first.
func applyAll(ctx context.Context, c client.Client, objects []*unstructured.Unstructured) error {
	for _, object := range inOrder(objects) {
		configuration := client.ApplyConfigurationFromUnstructured(object.DeepCopy())
		if err := c.Apply(ctx, configuration, fieldOwner, client.ForceOwnership); err != nil {
			return fmt.Errorf("applying %s %s: %w", object.GetKind(), client.ObjectKeyFromObject(object), err)
		}
	}
	return nil
}

// inOrder puts namespaces and definitions before everything else, and webhooks, which would guard
// objects that are yet to be applied, behind it.
func inOrder(objects []*unstructured.Unstructured) []*unstructured.Unstructured {
	var first, middle, last []*unstructured.Unstructured
	for _, object := range objects {
		switch object.GetKind() {
		case "Namespace", "CustomResourceDefinition":
			first = append(first, object)
		case "MutatingWebhookConfiguration", "ValidatingWebhookConfiguration":
			last = append(last, object)
		default:
			middle = append(middle, object)
		}
	}
	return append(append(first, middle...), last...)
}

// awaitEffect waits until the definitions among the objects are served and the aggregated
// ClusterRoles have their rules.
func awaitEffect(ctx context.Context, c client.Client, objects []*unstructured.Unstructured) error {
	for _, object := range objects {
		if err := awaitOne(ctx, c, object); err != nil {
			return fmt.Errorf("waiting for %s %s to take effect: %w", object.GetKind(), object.GetName(), err)
		}
	}
	return nil
}

func awaitOne(ctx context.Context, c client.Client, object *unstructured.Unstructured) error {
	if !takesTime(object) {
		return nil
	}
	return wait.PollUntilContextTimeout(ctx, probeInterval, settleTimeout, true, func(ctx context.Context) (bool, error) {
		current := &unstructured.Unstructured{}
		current.SetGroupVersionKind(object.GroupVersionKind())
		if err := c.Get(ctx, client.ObjectKeyFromObject(object), current); err != nil {
			return false, err
		}
		return inEffect(current), nil
	})
}

// takesTime tells whether a controller has to act before the object means anything.
func takesTime(object *unstructured.Unstructured) bool {
	_, aggregated := object.Object["aggregationRule"]
	return object.GetKind() == "CustomResourceDefinition" || aggregated
}

// inEffect tells whether it has.
func inEffect(object *unstructured.Unstructured) bool {
	if object.GetKind() != "CustomResourceDefinition" {
		rules, _, _ := unstructured.NestedSlice(object.Object, "rules")
		return len(rules) > 0
	}
	conditions, _, _ := unstructured.NestedSlice(object.Object, "status", "conditions")
	for _, condition := range conditions {
		if condition, ok := condition.(map[string]any); ok && condition["type"] == "Established" {
			return condition["status"] == "True"
		}
	}
	return false
}

// awaitWebhooks creates the objects without keeping them: the answer comes from the managers'
// webhooks, through the same certificates and permissions as a user's request.
func awaitWebhooks(ctx context.Context, c client.Client, objects []*unstructured.Unstructured) error {
	for _, object := range objects {
		var last error
		err := wait.PollUntilContextTimeout(ctx, probeInterval, settleTimeout, true, func(ctx context.Context) (bool, error) {
			last = c.Create(ctx, object.DeepCopy(), client.DryRunAll)
			return last == nil, nil
		})
		if err != nil {
			return fmt.Errorf("creating a %s on trial: %w: %w", object.GetKind(), err, last)
		}
	}
	return nil
}
