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
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

const samples = `
apiVersion: v1
kind: Namespace
metadata: {name: demo-system}
---
apiVersion: v1
kind: Service
metadata: {name: demo-webhook-service, namespace: demo-system}
---
apiVersion: cert-manager.io/v1
kind: Certificate
metadata: {name: demo-serving-cert, namespace: demo-system}
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: demo-controller-manager
  namespace: demo-system
  labels: {cluster.x-k8s.io/provider: infrastructure-demo}
spec:
  template:
    spec:
      serviceAccountName: demo-manager
      containers:
      - name: proxy
        args: [--not-this]
      - name: manager
        args: [--leader-elect, "--v=${DEMO_VERBOSITY:=4}", "--feature-gates=A=${DEMO_A:=false}"]
        env:
        - {name: POD_NAMESPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
        - {name: POD_UID, valueFrom: {fieldRef: {fieldPath: metadata.uid}}}
        - {name: LITERAL, value: "1"}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: demos.example.org
  annotations: {cert-manager.io/inject-ca-from: demo-system/demo-serving-cert, kept: "yes"}
spec:
  conversion:
    strategy: Webhook
    webhook:
      conversionReviewVersions: [v1]
      clientConfig:
        service: {name: demo-webhook-service, namespace: demo-system, path: /convert}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: plain.example.org}
spec: {scope: Namespaced}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata:
  name: demo-validating
  annotations: {cert-manager.io/inject-ca-from: demo-system/demo-serving-cert}
webhooks:
- name: a.example.org
  clientConfig: {service: {name: demo-webhook-service, namespace: demo-system, path: /a}}
- name: b.example.org
  failurePolicy: Fail
  clientConfig: {service: {name: demo-webhook-service, namespace: demo-system, path: /b}}
`

func sampleObjects(t *testing.T, variables map[string]string) []*unstructured.Unstructured {
	t.Helper()
	expanded, err := expand([]byte(samples), variables)
	if err != nil {
		t.Fatal(err)
	}
	objects, err := decode(expanded)
	if err != nil {
		t.Fatal(err)
	}
	return objects
}

func TestLocalize(t *testing.T) {
	components := sampleObjects(t, nil)
	before := components[4].DeepCopy()
	local, err := localize(components, endpoint{port: 4711, caBundle: []byte("the CA")})
	if err != nil {
		t.Fatal(err)
	}

	var kinds []string
	byName := map[string]*unstructured.Unstructured{}
	for _, object := range local {
		kinds = append(kinds, object.GetKind())
		byName[object.GetName()] = object
		if _, found := object.GetLabels()[clusterctlLabel]; !found {
			t.Errorf("%s %s lacks clusterctl's label", object.GetKind(), object.GetName())
		}
	}
	want := []string{"Namespace", "CustomResourceDefinition", "CustomResourceDefinition", "ValidatingWebhookConfiguration"}
	if diff := cmp.Diff(want, kinds); diff != "" {
		t.Errorf("kinds kept (-want +got):\n%s", diff)
	}

	ca := base64.StdEncoding.EncodeToString([]byte("the CA"))
	crd := byName["demos.example.org"]
	conversion, _, _ := unstructured.NestedMap(crd.Object, "spec", "conversion", "webhook")
	wantConversion := map[string]any{
		"conversionReviewVersions": []any{"v1"},
		"clientConfig":             map[string]any{"url": "https://127.0.0.1:4711/convert", "caBundle": ca},
	}
	if diff := cmp.Diff(wantConversion, conversion); diff != "" {
		t.Errorf("conversion webhook (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[string]string{"kept": "yes"}, crd.GetAnnotations()); diff != "" {
		t.Errorf("annotations (-want +got):\n%s", diff)
	}
	if _, found := byName["plain.example.org"].Object["spec"].(map[string]any)["conversion"]; found {
		t.Error("a definition without a conversion webhook got one")
	}

	hooks, _, _ := unstructured.NestedSlice(byName["demo-validating"].Object, "webhooks")
	wantHooks := []any{
		map[string]any{"name": "a.example.org", "clientConfig": map[string]any{"url": "https://127.0.0.1:4711/a", "caBundle": ca}},
		map[string]any{"name": "b.example.org", "failurePolicy": "Fail", "clientConfig": map[string]any{"url": "https://127.0.0.1:4711/b", "caBundle": ca}},
	}
	if diff := cmp.Diff(wantHooks, hooks); diff != "" {
		t.Errorf("webhooks (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(before.Object, components[4].Object); diff != "" {
		t.Errorf("the input was changed (-before +after):\n%s", diff)
	}
}

func TestLocalizeRefusesAWebhookWithoutAPath(t *testing.T) {
	broken, err := decode([]byte("{apiVersion: admissionregistration.k8s.io/v1, kind: MutatingWebhookConfiguration, metadata: {name: broken}, webhooks: [{name: w, clientConfig: {service: {name: s}}}]}"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := localize(broken, endpoint{}); err == nil || !strings.Contains(err.Error(), "clientConfig.service.path") {
		t.Errorf("error = %v, want one that names clientConfig.service.path", err)
	}
}

func TestHasWebhooks(t *testing.T) {
	components := sampleObjects(t, nil)
	for name, tc := range map[string]struct {
		components []*unstructured.Unstructured
		want       bool
	}{
		"all":                  {components, true},
		"conversion only":      {components[4:5], true},
		"admission only":       {components[6:], true},
		"definition without":   {components[5:6], false},
		"no definition at all": {components[:4], false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := hasWebhooks(tc.components); got != tc.want {
				t.Errorf("hasWebhooks = %v, want %v", got, tc.want)
			}
		})
	}
}

func TestInOrder(t *testing.T) {
	var got []string
	objects := sampleObjects(t, nil)
	// Webhooks first, to make sure that they move.
	for _, object := range inOrder(append(objects[6:], objects[:6]...)) {
		got = append(got, object.GetKind())
	}
	want := []string{
		"Namespace", "CustomResourceDefinition", "CustomResourceDefinition",
		"Service", "Certificate", "Deployment",
		"ValidatingWebhookConfiguration",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
}
