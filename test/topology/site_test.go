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

package topology

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/hosttest"
)

// TestSite has a management plane accept what the flavors with a site generate from few variables, and an API server what
// their resource sets put on the cluster, by the order in which they do.
func TestSite(t *testing.T) {
	m := manage(t)
	testSite(t, m, "metallb-nginx", map[string]bool{"calico": true, "metallb": true, "nginx-ingress": true, "plain-nginx": false, "web": true},
		[]string{"metallb", "nginx-ingress", "plain-nginx", "web"})
	found := testSite(t, m, "calico-bgp", map[string]bool{"calico": true, "calico-bgp": true, "metallb": true, "nginx-ingress": true, "plain-nginx": false, "web": true},
		[]string{"calico", "metallb", "nginx-ingress", "plain-nginx", "web", "calico-bgp"})
	// MetalLB only assigns, and Calico doesn't encapsulate.
	for name, unwanted := range map[string]string{"metallb": "kind: DaemonSet", "metallb-pools": "kind: L2Advertisement", "calico": "value: Always"} {
		for _, content := range found[name] {
			if strings.Contains(content, unwanted) {
				t.Errorf("%s of calico-bgp has %q", name, unwanted)
			}
		}
	}
	m.expectTwoSites()
	// The controller reads its own pod, by a Role that it shares with the speakers.
	for _, content := range found["metallb"] {
		if !strings.Contains(content, "kind: RoleBinding\nmetadata:\n  labels:\n    app: metallb\n  name: pod-lister") {
			t.Error("metallb of calico-bgp doesn't let the controller read pods")
		}
	}
}

// testSite has a flavor's manifests accepted. Of each set, want tells whether the cluster is given it. What the sets in
// apply put on a cluster is accepted too. It returns the content of the ConfigMaps.
func testSite(t *testing.T, m *management, flavor string, want map[string]bool, apply []string) map[string]map[string]string {
	t.Helper()
	required := map[string]string{
		"CONTROL_PLANE_ENDPOINT_IP": "10.100.0.2",
		"LIBVIRT_URI":               hosttest.TestDriver(t),
		// Nothing is there, so that no machine gets further than its image.
		"LIBVIRT_IMAGE_URL": "http://127.0.0.1:9/node.qcow2", "LIBVIRT_IMAGE_CHECKSUM": "sha256:" + strings.Repeat("0123456789abcdef", 4),
		"LIBVIRT_EXTERNAL_ADDRESS": "203.0.113.10", "LIBVIRT_API_EXTERNAL_ADDRESS": "203.0.113.11",
		"LIBVIRT_API_ALLOWED_CIDRS": "198.51.100.0/24,192.0.2.9/32",
	}
	manifests := m.generate("demo", flavor, required)
	m.apply("everything", manifests)

	// Of each set, what it has the labels for and which ConfigMaps it applies.
	found := map[string]map[string]string{}
	selectors := map[string][]string{}
	sets := map[string][]string{}
	var labels map[string]string
	for _, object := range decode(t, manifests) {
		name := strings.TrimPrefix(object.GetName(), "demo-")
		switch object.GetKind() {
		case "Cluster":
			labels = object.GetLabels()
		case "ConfigMap":
			data, _, err := unstructured.NestedStringMap(object.Object, "data")
			must(t, err)
			found[name] = data
		case "ClusterResourceSet":
			selector, _, err := unstructured.NestedStringMap(object.Object, "spec", "clusterSelector", "matchLabels")
			must(t, err)
			for key, value := range selector {
				selectors[name] = append(selectors[name], key+"="+value)
			}
			resources, _, err := unstructured.NestedSlice(object.Object, "spec", "resources")
			must(t, err)
			for _, resource := range resources {
				sets[name] = append(sets[name], strings.TrimPrefix(resource.(map[string]any)["name"].(string), "demo-"))
			}
		}
	}
	for set, want := range want {
		if len(selectors[set]) != 1 {
			t.Fatalf("the set %s selects by %v", set, selectors[set])
		}
		key, value, _ := strings.Cut(selectors[set][0], "=")
		if selected := labels[key] == value; selected != want {
			t.Errorf("a cluster with the labels %v is given %s: %t", labels, set, selected)
		}
	}
	for _, set := range apply {
		if len(sets[set]) == 0 {
			t.Errorf("the set %s is empty", set)
		}
		for _, name := range sets[set] {
			if len(found[name]) != 1 {
				t.Fatalf("the set %s needs the ConfigMap %s, which has %d entries", set, name, len(found[name]))
			}
			for _, content := range found[name] {
				if strings.Contains(content, "$$") {
					t.Errorf("%s has a dollar sign twice", name)
				}
				// The API server of a management plane forbids privileged containers, which Calico needs.
				if name != "calico" {
					m.apply(name, content)
				}
			}
		}
	}
	var service corev1.Service
	must(t, m.api.Get(t.Context(), client.ObjectKey{Namespace: "nginx-ingress", Name: "nginx-ingress"}, &service))
	if got := service.Annotations["metallb.io/loadBalancerIPs"]; got != "10.100.0.130" {
		t.Errorf("the ingress asks for the address %q", got)
	}

	for variable, label := range map[string]string{"LOAD_BALANCER": "load-balancer", "INGRESS": "ingress", "WORKLOAD": "workload", "CNI": "cni"} {
		variables := map[string]string{variable: "none"}
		for name, value := range required {
			variables[name] = value
		}
		i := slices.IndexFunc(decode(t, m.generate("demo", flavor, variables)), func(object *unstructured.Unstructured) bool {
			return object.GetKind() == "Cluster" && object.GetLabels()[label] == "demo-none"
		})
		if i < 0 {
			t.Errorf("%s doesn't leave anything out", variable)
		}
	}
	return found
}

// apply has the API server take manifests, without a field that it doesn't know.
func (m *management) apply(what, manifests string) {
	m.t.Helper()
	file := filepath.Join(m.t.TempDir(), what+".yaml")
	must(m.t, os.WriteFile(file, []byte(manifests), 0o600))
	m.command(nil, filepath.Join(m.binDir, "kubectl"), "--kubeconfig", m.kubeconfig, "apply", "--validate=strict", "--filename", file)
}
