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
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// clusterctlAPI is the manifest of clusterctl's inventory within the module of Cluster API.
const clusterctlAPI = "cmd/clusterctl/config/manifest/clusterctl-api.yaml"

// inventoryDefinition marks clusterctl's inventory definition the way clusterctl does.
func inventoryDefinition(objects []*unstructured.Unstructured) []*unstructured.Unstructured {
	for _, object := range objects {
		addLabels(object, map[string]string{clusterctlCoreLabel: "inventory"})
	}
	return objects
}

// inventoryEntry is the record that "clusterctl init" leaves of a provider that it installed.
func inventoryEntry(manifestLabel, namespace, version string) *unstructured.Unstructured {
	name, providerType := clusterctlIdentity(manifestLabel)
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "clusterctl.cluster.x-k8s.io/v1alpha3",
		"kind":       "Provider",
		"metadata": map[string]any{
			"name":      manifestLabel,
			"namespace": namespace,
			"labels": map[string]any{
				clusterctlLabel:     "",
				clusterctlCoreLabel: "inventory",
				providerLabel:       manifestLabel,
			},
		},
		"providerName": name,
		"type":         providerType,
		"version":      version,
	}}
}

// clusterctlIdentity splits the value of a provider's label into clusterctl's name and type.
func clusterctlIdentity(manifestLabel string) (name, providerType string) {
	for _, kind := range []struct{ prefix, providerType string }{
		{"bootstrap-", "BootstrapProvider"},
		{"control-plane-", "ControlPlaneProvider"},
		{"infrastructure-", "InfrastructureProvider"},
		{"ipam-", "IPAMProvider"},
		{"runtime-extension-", "RuntimeExtensionProvider"},
		{"addon-", "AddonProvider"},
	} {
		if name, found := strings.CutPrefix(manifestLabel, kind.prefix); found {
			return name, kind.providerType
		}
	}
	return manifestLabel, "CoreProvider"
}

// deployment is what a provider's Deployment says about the process that it runs.
type deployment struct {
	namespace      string
	serviceAccount string
	// manifestLabel is the value of the label cluster.x-k8s.io/provider.
	manifestLabel string
	args          []string
	env           []string
}

// user is the name under which the API server knows the process.
func (d deployment) user() string {
	return fmt.Sprintf("system:serviceaccount:%s:%s", d.namespace, d.serviceAccount)
}

// groups are those that a token of the same service account would carry.
func (d deployment) groups() []string {
	return []string{"system:serviceaccounts", "system:serviceaccounts:" + d.namespace}
}

// findDeployment reads the one Deployment among a provider's components, and in it the container
// named manager.
func findDeployment(components []*unstructured.Unstructured) (deployment, error) {
	var found []*unstructured.Unstructured
	for _, object := range components {
		if object.GetKind() == "Deployment" {
			found = append(found, object)
		}
	}
	if len(found) != 1 {
		return deployment{}, fmt.Errorf("the components hold %d Deployments, but one is needed to tell how the manager is run", len(found))
	}
	object := found[0]
	d := deployment{namespace: object.GetNamespace(), manifestLabel: object.GetLabels()[providerLabel]}
	if d.manifestLabel == "" {
		return d, fmt.Errorf("deployment %s has no label %s: clusterctl couldn't tell whose it is", object.GetName(), providerLabel)
	}
	var err error
	if d.serviceAccount, _, err = unstructured.NestedString(object.Object, "spec", "template", "spec", "serviceAccountName"); err != nil || d.serviceAccount == "" {
		return d, fmt.Errorf("deployment %s names no serviceAccountName: its manager would have no identity", object.GetName())
	}
	containers, _, err := unstructured.NestedSlice(object.Object, "spec", "template", "spec", "containers")
	if err != nil {
		return d, fmt.Errorf("reading the containers of deployment %s: %w", object.GetName(), err)
	}
	for _, container := range containers {
		container, ok := container.(map[string]any)
		if !ok || container["name"] != "manager" {
			continue
		}
		if d.args, _, err = unstructured.NestedStringSlice(container, "args"); err != nil {
			return d, fmt.Errorf("reading the arguments of deployment %s: %w", object.GetName(), err)
		}
		d.env = environment(container, d.namespace, object.GetName())
		return d, nil
	}
	return d, fmt.Errorf("deployment %s has no container named manager", object.GetName())
}

// environment keeps the variables that mean something outside a Pod: literals, and the Pod's
// namespace and name.
func environment(container map[string]any, namespace, name string) []string {
	declared, _, _ := unstructured.NestedSlice(container, "env")
	var env []string
	for _, variable := range declared {
		variable, ok := variable.(map[string]any)
		if !ok {
			continue
		}
		key, _ := variable["name"].(string)
		if value, ok := variable["value"].(string); ok {
			env = append(env, key+"="+value)
			continue
		}
		switch field, _, _ := unstructured.NestedString(variable, "valueFrom", "fieldRef", "fieldPath"); field {
		case "metadata.namespace":
			env = append(env, key+"="+namespace)
		case "metadata.name":
			env = append(env, key+"="+name)
		}
	}
	return env
}

// withoutFlags drops the named flags from arguments of the form --flag or --flag=value.
func withoutFlags(args []string, names ...string) []string {
	var kept []string
	for _, arg := range args {
		flag, _, _ := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		if !slices.Contains(names, flag) {
			kept = append(kept, arg)
		}
	}
	return kept
}
