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
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/drone/envsubst/v2"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
)

// TestReleasedTemplates fills in the parts that cluster templates are made of, as clusterctl does, and has the API server
// look at the objects of ours in them.
func TestReleasedTemplates(t *testing.T) {
	required := map[string]string{
		"CLUSTER_NAME": "demo", "NAMESPACE": "default", "KUBERNETES_VERSION": "v1.36.3",
		"CONTROL_PLANE_MACHINE_COUNT": "3", "WORKER_MACHINE_COUNT": "3",
		"LIBVIRT_IMAGE_URL":      "https://images.example.org/node.qcow2",
		"LIBVIRT_IMAGE_CHECKSUM": "sha256:" + strings.Repeat("0123456789abcdef", 4),
	}
	for part, tt := range map[string]struct {
		variables map[string]string
		want      []string
	}{
		"host":            {nil, []string{"LibvirtHost kvm1"}},
		"cluster":         {nil, []string{"LibvirtMachineTemplate demo-control-plane", "LibvirtMachineTemplate demo-workers"}},
		"cluster-flatcar": {nil, []string{"LibvirtMachineTemplate demo-control-plane", "LibvirtMachineTemplate demo-workers"}},
		"clusterclass":    {nil, []string{"LibvirtClusterTemplate libvirt", "LibvirtMachineTemplate libvirt-control-plane", "LibvirtMachineTemplate libvirt-worker"}},
		"network-managed": {map[string]string{"CONTROL_PLANE_ENDPOINT_IP": "10.100.0.2"}, []string{"LibvirtCluster demo"}},
		"network-bridge": {map[string]string{
			"CONTROL_PLANE_ENDPOINT_IP": "192.168.1.99", "LIBVIRT_NODE_CIDR": "192.168.1.0/24",
			"LIBVIRT_NODE_RANGE": "192.168.1.100-192.168.1.149", "LIBVIRT_GATEWAY": "192.168.1.1",
			"LIBVIRT_NAMESERVERS": "192.168.1.1, 192.168.1.2",
		}, []string{"LibvirtCluster demo"}},
		"network-sites": {map[string]string{"CONTROL_PLANE_ENDPOINT_IP": "10.100.0.2"}, []string{"LibvirtCluster demo"}},
		"second-site":   {nil, nil},
		"network-gateway": {map[string]string{
			"CONTROL_PLANE_ENDPOINT_IP": "10.100.0.2", "LIBVIRT_EXTERNAL_ADDRESS": "203.0.113.10",
			"LIBVIRT_API_EXTERNAL_ADDRESS": "203.0.113.11", "LIBVIRT_API_ALLOWED_CIDRS": "198.51.100.0/24,192.0.2.9/32",
		}, []string{"LibvirtCluster demo"}},
	} {
		t.Run(part, func(t *testing.T) {
			content, err := os.ReadFile(filepath.Join("..", "..", "templates", part+".yaml"))
			if err != nil {
				t.Fatal(err)
			}
			filled, err := envsubst.Eval(string(content), func(name string) string {
				if value, ok := tt.variables[name]; ok {
					return value
				}
				return required[name]
			})
			if err != nil {
				t.Fatal(err)
			}
			var found []string
			for document := range strings.SplitSeq(filled, "\n---\n") {
				object := &unstructured.Unstructured{}
				if err := yaml.Unmarshal([]byte(document), &object.Object); err != nil {
					t.Fatalf("%v:\n%s", err, document)
				}
				if object.GroupVersionKind().Group != infrav1.GroupVersion.Group {
					continue
				}
				object.SetNamespace("default") // where clusterctl puts what has none
				check(t, api.Create(t.Context(), object, client.DryRunAll, client.FieldValidation("Strict")))
				found = append(found, object.GetKind()+" "+object.GetName())
			}
			if !slices.Equal(found, tt.want) {
				t.Errorf("there are %v, want %v", found, tt.want)
			}
		})
	}
}

// TestVariablesAreInTheReference keeps the page on template variables complete.
func TestVariablesAreInTheReference(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "reference", "template-variables.md"))
	if err != nil {
		t.Fatal(err)
	}
	var parts []string
	for _, pattern := range []string{"*.yaml", "site/*.yaml"} {
		found, err := filepath.Glob(filepath.Join("..", "..", "templates", pattern))
		if err != nil || len(found) == 0 {
			t.Fatalf("no templates %s: %v", pattern, err)
		}
		parts = append(parts, found...)
	}
	for _, part := range parts {
		content, err := os.ReadFile(part)
		if err != nil {
			t.Fatal(err)
		}
		for _, match := range regexp.MustCompile(`\$\{([A-Z_]+)`).FindAllStringSubmatch(string(content), -1) {
			if !strings.Contains(string(page), "`"+match[1]+"`") {
				t.Errorf("%s uses %s, which the page doesn't have", filepath.Base(part), match[1])
			}
		}
	}
}
