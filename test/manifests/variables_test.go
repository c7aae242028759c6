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

package manifests

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/cluster-api/cmd/clusterctl/client/yamlprocessor"
	"sigs.k8s.io/yaml"
)

// TestManagerNeedsNoVariables has clusterctl fill in the manager's Deployment where nobody has set anything, and where
// somebody has.
func TestManagerNeedsNoVariables(t *testing.T) {
	content, err := os.ReadFile("../../config/manager/manager.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		variables map[string]string
		want      []string
	}{
		"nothing is set": {nil, []string{"--image-allow-http=false", "--image-allowed-cidrs=none", "--diagnostics-address=:8443"}},
		"images come from within": {
			map[string]string{"CAPL_IMAGE_ALLOW_HTTP": "true", "CAPL_IMAGE_ALLOWED_CIDRS": "10.1.2.0/24,fd00:1::/64"},
			[]string{"--image-allow-http=true", "--image-allowed-cidrs=10.1.2.0/24,fd00:1::/64"},
		},
	} {
		filled, err := yamlprocessor.NewSimpleProcessor().Process(content, func(name string) (string, error) {
			if value, ok := test.variables[name]; ok {
				return value, nil
			}
			return "", errors.New("not set")
		})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		args := argsOfManager(t, filled)
		for _, want := range test.want {
			if !slices.Contains(args, want) {
				t.Errorf("%s: there is no %s among %v", name, want, args)
			}
		}
	}
}

// argsOfManager are the arguments of the container in the Deployment of a file.
func argsOfManager(t *testing.T, content []byte) []string {
	t.Helper()
	for document := range strings.SplitSeq(string(content), "\n---\n") {
		var deployment struct {
			Kind string
			Spec struct {
				Template struct {
					Spec struct{ Containers []struct{ Args []string } }
				}
			}
		}
		if err := yaml.Unmarshal([]byte(document), &deployment); err != nil {
			t.Fatal(err)
		}
		if deployment.Kind == "Deployment" {
			return deployment.Spec.Template.Spec.Containers[0].Args
		}
	}
	t.Fatal("There is no Deployment")
	return nil
}
