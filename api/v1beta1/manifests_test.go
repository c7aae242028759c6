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

package v1beta1_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	clusterctlv1 "sigs.k8s.io/cluster-api/cmd/clusterctl/api/v1alpha3"
	"sigs.k8s.io/yaml"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
)

// definitions reads the generated CustomResourceDefinitions.
func definitions(t *testing.T) []apiextensionsv1.CustomResourceDefinition {
	t.Helper()
	files, err := filepath.Glob("../../config/crd/bases/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != 5 {
		t.Fatalf("there are %d definitions in config/crd/bases, want 5: run make manifests", len(files))
	}
	var crds []apiextensionsv1.CustomResourceDefinition
	for _, file := range files {
		var crd apiextensionsv1.CustomResourceDefinition
		read(t, file, &crd)
		crds = append(crds, crd)
	}
	return crds
}

func read(t *testing.T, file string, into any) {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.UnmarshalStrict(content, into); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
}

// Cluster API finds the version of a kind by the contract's label, and the definition by a name that it calculates.
func TestDefinitionsMeetTheContract(t *testing.T) {
	for _, crd := range definitions(t) {
		t.Run(crd.Spec.Names.Kind, func(t *testing.T) {
			if got := crd.Labels[clusterv1.GroupVersion.Group+"/v1beta2"]; got != infrav1.GroupVersion.Version {
				t.Errorf("label of contract v1beta2 is %q, want %q", got, infrav1.GroupVersion.Version)
			}
			if want := strings.ToLower(crd.Spec.Names.Kind) + "s." + infrav1.GroupVersion.Group; crd.Name != want {
				t.Errorf("name is %s, want %s", crd.Name, want)
			}
			if crd.Spec.Scope != apiextensionsv1.NamespaceScoped {
				t.Errorf("scope is %s", crd.Spec.Scope)
			}
			if want := crd.Spec.Names.Kind + "List"; crd.Spec.Names.ListKind != want {
				t.Errorf("the kind of lists is %s, want %s", crd.Spec.Names.ListKind, want)
			}
			// LibvirtHosts belong to no Cluster; clusterctl move takes them along because of the label.
			_, moved := crd.Labels[clusterctlv1.ClusterctlMoveHierarchyLabel]
			if want := crd.Spec.Names.Kind == "LibvirtHost"; moved != want {
				t.Errorf("label %s is there: %t, want %t", clusterctlv1.ClusterctlMoveHierarchyLabel, moved, want)
			}
		})
	}
}

// The contract in metadata.yaml decides which versions of Cluster API may be combined with this provider.
func TestMetadataNamesTheContractOfTheDefinitions(t *testing.T) {
	var metadata clusterctlv1.Metadata
	read(t, "../../metadata.yaml", &metadata)
	if len(metadata.ReleaseSeries) == 0 {
		t.Fatal("metadata.yaml has no release series")
	}
	for _, series := range metadata.ReleaseSeries {
		label := clusterv1.GroupVersion.Group + "/" + series.Contract
		for _, crd := range definitions(t) {
			if _, ok := crd.Labels[label]; !ok {
				t.Errorf("series %d.%d has contract %s, and %s lacks the label %s", series.Major, series.Minor, series.Contract, crd.Name, label)
			}
		}
	}
}

// Every list of kinds by name has to follow when a kind is added.
func TestDefinitionsAreInstalledAndLeftToClusterAPI(t *testing.T) {
	var kustomization struct {
		Resources []string `json:"resources"`
	}
	readLoosely(t, "../../config/crd/kustomization.yaml", &kustomization)
	var role struct {
		Rules []struct {
			Resources []string `json:"resources"`
		} `json:"rules"`
	}
	readLoosely(t, "../../config/rbac/aggregated_role.yaml", &role)
	installed := strings.Join(kustomization.Resources, " ")
	for _, crd := range definitions(t) {
		if file := crd.Spec.Group + "_" + crd.Spec.Names.Plural + ".yaml"; !strings.Contains(installed, "bases/"+file) {
			t.Errorf("config/crd/kustomization.yaml lacks bases/%s", file)
		}
		if crd.Spec.Names.Kind == "LibvirtHost" {
			continue // Cluster API's manager has nothing to do with it.
		}
		found := false
		for _, rule := range role.Rules {
			for _, resource := range rule.Resources {
				found = found || resource == crd.Spec.Names.Plural
			}
		}
		if !found {
			t.Errorf("config/rbac/aggregated_role.yaml lacks %s", crd.Spec.Names.Plural)
		}
	}
}

func readLoosely(t *testing.T, file string, into any) {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(content, into); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
}
