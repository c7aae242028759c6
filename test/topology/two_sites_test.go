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
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// expectTwoSites has the management plane accept what the flavor two-sites generates from few variables, and looks
// whether workers, networks and Calico are as two sites need them.
func (m *management) expectTwoSites() {
	m.t.Helper()
	manifests := m.generate("far", "two-sites", map[string]string{
		"CONTROL_PLANE_ENDPOINT_IP": "10.101.0.2", "LIBVIRT_SECOND_SITE_WORKERS": "3",
		// The hosts have a route to each site: no cluster's but this one's.
		"LIBVIRT_NODE_CIDR": "10.101.0.0/25", "LIBVIRT_INGRESS_CIDR": "10.101.0.128/25", "LIBVIRT_SECOND_NODE_CIDR": "10.101.1.0/25",
		"LIBVIRT_IMAGE_URL": "http://127.0.0.1:9/node.qcow2", "LIBVIRT_IMAGE_CHECKSUM": "sha256:" + strings.Repeat("0123456789abcdef", 4),
	})
	m.apply("two-sites", manifests)

	found := map[string]string{}
	// field notes a field of an object by what it is of.
	field := func(object *unstructured.Unstructured, path ...string) {
		value, ok, err := unstructured.NestedFieldNoCopy(object.Object, path...)
		if err != nil || !ok {
			m.t.Fatalf("%s %s has no %v: %v", object.GetKind(), object.GetName(), path, err)
		}
		found[object.GetName()+" "+path[len(path)-1]] = fmt.Sprint(value)
	}
	for _, object := range decode(m.t, manifests) {
		switch object.GetKind() {
		case "MachineDeployment":
			field(object, "spec", "replicas")
			field(object, "spec", "template", "spec", "failureDomain")
		case "LibvirtCluster":
			field(object, "spec", "network", "mtu")
		case "ConfigMap":
			data, _, err := unstructured.NestedStringMap(object.Object, "data")
			must(m.t, err)
			for _, content := range data {
				for line := range strings.Lines(content) {
					if value, ok := strings.CutPrefix(strings.TrimSpace(line), "veth_mtu: "); ok {
						found["veth_mtu"] = value
					}
				}
			}
		}
	}
	for name, want := range map[string]string{
		"far-workers replicas": "2", "far-workers failureDomain": "kvm1",
		"far-workers-second-site replicas": "3", "far-workers-second-site failureDomain": "kvm2",
		"far mtu": "1420", "veth_mtu": `"1370"`,
	} {
		if found[name] != want {
			m.t.Errorf("%s is %s, want %s", name, found[name], want)
		}
	}
}
