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
	"encoding/base64"
	"fmt"
	"maps"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

const (
	clusterctlLabel     = "clusterctl.cluster.x-k8s.io"
	clusterctlCoreLabel = "clusterctl.cluster.x-k8s.io/core"
	providerLabel       = "cluster.x-k8s.io/provider"
	injectCAAnnotation  = "cert-manager.io/inject-ca-from"
)

// endpoint is where a manager's webhooks answer.
type endpoint struct {
	port     int
	caBundle []byte
}

func (e endpoint) url(path string) string {
	return "https://" + address(loopback, e.port) + path
}

// localize returns what of a provider's components an API server without nodes can use: the
// workload and what exists only for its sake are left out, webhooks are called by URL instead of
// through a Service, and everything carries the label by which clusterctl knows what it installed.
func localize(components []*unstructured.Unstructured, webhooks endpoint) ([]*unstructured.Unstructured, error) {
	var local []*unstructured.Unstructured
	for _, component := range components {
		if replacedByProcess(component) {
			continue
		}
		object := component.DeepCopy()
		if err := callByURL(object, webhooks); err != nil {
			return nil, fmt.Errorf("turning the webhooks of %s %s into URLs: %w", object.GetKind(), object.GetName(), err)
		}
		addLabels(object, map[string]string{clusterctlLabel: ""})
		local = append(local, object)
	}
	return local, nil
}

// replacedByProcess tells whether the object's part is played by a child process and its own
// certificates.
func replacedByProcess(object *unstructured.Unstructured) bool {
	switch gvk := object.GroupVersionKind(); gvk.Group {
	case "":
		return gvk.Kind == "Service"
	case "apps":
		return gvk.Kind == "Deployment"
	case "cert-manager.io", "policy", "monitoring.coreos.com":
		return true
	default:
		return false
	}
}

// callByURL rewrites every webhook client configuration in the object.
func callByURL(object *unstructured.Unstructured, webhooks endpoint) error {
	switch object.GetKind() {
	case "CustomResourceDefinition":
		path := []string{"spec", "conversion", "webhook", "clientConfig"}
		clientConfig, found, err := unstructured.NestedMap(object.Object, path...)
		if err != nil {
			return err
		}
		if found {
			if clientConfig, err = urlClientConfig(clientConfig, webhooks); err != nil {
				return err
			}
			if err := unstructured.SetNestedMap(object.Object, clientConfig, path...); err != nil {
				return err
			}
		}
	case "MutatingWebhookConfiguration", "ValidatingWebhookConfiguration":
		hooks, _, err := unstructured.NestedSlice(object.Object, "webhooks")
		if err != nil {
			return err
		}
		for _, hook := range hooks {
			hook, ok := hook.(map[string]any)
			if !ok {
				return fmt.Errorf("a webhook is a %T, not an object", hook)
			}
			clientConfig, _, err := unstructured.NestedMap(hook, "clientConfig")
			if err != nil {
				return err
			}
			if hook["clientConfig"], err = urlClientConfig(clientConfig, webhooks); err != nil {
				return fmt.Errorf("webhook %v: %w", hook["name"], err)
			}
		}
		if err := unstructured.SetNestedSlice(object.Object, hooks, "webhooks"); err != nil {
			return err
		}
	default:
		return nil
	}
	annotations := object.GetAnnotations()
	delete(annotations, injectCAAnnotation)
	object.SetAnnotations(annotations)
	return nil
}

func urlClientConfig(clientConfig map[string]any, webhooks endpoint) (map[string]any, error) {
	path, found, err := unstructured.NestedString(clientConfig, "service", "path")
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, fmt.Errorf("clientConfig.service.path is missing")
	}
	return map[string]any{
		"url":      webhooks.url(path),
		"caBundle": base64.StdEncoding.EncodeToString(webhooks.caBundle),
	}, nil
}

// hasWebhooks tells whether the components need a webhook server at all.
func hasWebhooks(components []*unstructured.Unstructured) bool {
	for _, object := range components {
		switch object.GetKind() {
		case "MutatingWebhookConfiguration", "ValidatingWebhookConfiguration":
			return true
		case "CustomResourceDefinition":
			if strategy, _, _ := unstructured.NestedString(object.Object, "spec", "conversion", "strategy"); strategy == "Webhook" {
				return true
			}
		}
	}
	return false
}

func addLabels(object *unstructured.Unstructured, labels map[string]string) {
	merged := maps.Clone(object.GetLabels())
	if merged == nil {
		merged = map[string]string{}
	}
	maps.Copy(merged, labels)
	object.SetLabels(merged)
}
