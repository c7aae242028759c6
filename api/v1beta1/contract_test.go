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

package v1beta1

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/cluster-api/util/contract"
	"sigs.k8s.io/yaml"
)

// Cluster API finds out by a label on a CRD which of its versions implements which contract, and clusterctl by
// metadata.yaml which contract a release implements.
func TestContract(t *testing.T) {
	const wantContract = "v1beta2"
	root := filepath.Join("..", "..")

	var metadata struct {
		ReleaseSeries []struct {
			Contract string `json:"contract"`
		} `json:"releaseSeries"`
	}
	read(t, filepath.Join(root, "metadata.yaml"), &metadata)
	if len(metadata.ReleaseSeries) == 0 {
		t.Fatal("metadata.yaml has no release series")
	}
	for _, series := range metadata.ReleaseSeries {
		if series.Contract != wantContract {
			t.Errorf("a release series of metadata.yaml implements %s, want %s", series.Contract, wantContract)
		}
	}

	scheme := runtime.NewScheme()
	if err := AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	kinds := scheme.KnownTypes(GroupVersion)
	for _, kind := range []string{
		"LibvirtHost", "LibvirtCluster", "LibvirtClusterTemplate", "LibvirtMachine", "LibvirtMachineTemplate",
	} {
		if kinds[kind] == nil || kinds[kind+"List"] == nil {
			t.Errorf("the scheme lacks %s or its list", kind)
		}
		var crd struct {
			Metadata metav1.ObjectMeta `json:"metadata"`
			Spec     struct {
				Names struct {
					Kind string `json:"kind"`
				} `json:"names"`
				Scope    string `json:"scope"`
				Versions []struct {
					Name string `json:"name"`
				} `json:"versions"`
			} `json:"spec"`
		}
		name := contract.CalculateCRDName(GroupVersion.Group, kind)
		plural, _, _ := strings.Cut(name, ".")
		read(t, filepath.Join(root, "config", "crd", "bases", GroupVersion.Group+"_"+plural+".yaml"), &crd)
		if crd.Metadata.Name != name || crd.Spec.Names.Kind != kind {
			t.Errorf("got %s as %s, want %s as %s", crd.Spec.Names.Kind, crd.Metadata.Name, kind, name)
		}
		if got := crd.Metadata.Labels["cluster.x-k8s.io/"+wantContract]; got != GroupVersion.Version {
			t.Errorf("%s: %s is implemented by %q, want %q", name, wantContract, got, GroupVersion.Version)
		}
		if crd.Spec.Scope != "Namespaced" {
			t.Errorf("%s is %s", name, crd.Spec.Scope)
		}
		if len(crd.Spec.Versions) != 1 || crd.Spec.Versions[0].Name != GroupVersion.Version {
			t.Errorf("%s has the versions %v", name, crd.Spec.Versions)
		}
		// What no Cluster owns is moved by clusterctl only when the CRD says so.
		_, moves := crd.Metadata.Labels["clusterctl.cluster.x-k8s.io/move-hierarchy"]
		if want := kind == "LibvirtHost"; moves != want {
			t.Errorf("%s has the label to be moved: %t, want %t", name, moves, want)
		}
	}
}

func read(t *testing.T, file string, into any) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(data, into); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
}
