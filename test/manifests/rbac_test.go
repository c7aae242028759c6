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
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/util/yaml"
)

// used are the rights that the manager makes use of, by group and resource. Whoever adds one to a marker in the code adds
// it here too, with what it is for.
var used = map[string]string{
	// Credentials of hosts, bootstrap data and kubeconfigs are read one by one; nothing lists Secrets. Those that are made,
	// changed and deleted are kubeconfigs for outside, and config/policy/kubeconfigs_only.yaml keeps it to these.
	"/secrets": "create delete get patch",
	// The cache, and what Reconcile writes: spec.hostName, spec.providerID, finalizers; conditions and all else in status.
	"infrastructure.cluster.x-k8s.io/libvirthosts":           "get list patch watch",
	"infrastructure.cluster.x-k8s.io/libvirthosts/status":    "patch",
	"infrastructure.cluster.x-k8s.io/libvirtclusters":        "get list patch watch",
	"infrastructure.cluster.x-k8s.io/libvirtclusters/status": "patch",
	"infrastructure.cluster.x-k8s.io/libvirtmachines":        "get list patch watch",
	"infrastructure.cluster.x-k8s.io/libvirtmachines/status": "patch",
	"cluster.x-k8s.io/clusters":                              "get list watch",
	"cluster.x-k8s.io/machines":                              "get list watch",
	// Addresses from pools: claims are made, read and given back with their machine, with a finalizer until then.
	"ipam.cluster.x-k8s.io/ipaddressclaims": "create delete get list patch watch",
	"ipam.cluster.x-k8s.io/ipaddresses":     "get list watch",
	// The names of owners for the log.
	"cluster.x-k8s.io/machinesets": "get list watch",
	// What is reported of templates, whose images aren't removed from a host. The CRD migrator uses the right to patch.
	"infrastructure.cluster.x-k8s.io/libvirtmachinetemplates":        "get list patch watch",
	"infrastructure.cluster.x-k8s.io/libvirtmachinetemplates/status": "patch",
	// The CRD migrator moves stored objects to the newest version of the API.
	"infrastructure.cluster.x-k8s.io/libvirtclustertemplates":       "list patch",
	"apiextensions.k8s.io/customresourcedefinitions":                "get list watch",
	"apiextensions.k8s.io/customresourcedefinitions of ours":        "patch",
	"apiextensions.k8s.io/customresourcedefinitions/status of ours": "patch",
	// Who scrapes the metrics, and whether they may.
	"authentication.k8s.io/tokenreviews":        "create",
	"authorization.k8s.io/subjectaccessreviews": "create",
}

// notNamespaced are those of them that have no part in a namespaced installation: the migrator is off there.
var notNamespaced = []string{
	"infrastructure.cluster.x-k8s.io/libvirtclustertemplates",
	"apiextensions.k8s.io/customresourcedefinitions", "apiextensions.k8s.io/customresourcedefinitions of ours",
	"apiextensions.k8s.io/customresourcedefinitions/status of ours",
}

// roles reads the Roles and ClusterRoles of a file, with the rights of each as in used.
func roles(t *testing.T, path string) map[string]map[string]string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]map[string]string{}
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(content), 4096)
	for {
		var role rbacv1.ClusterRole
		if err := decoder.Decode(&role); errors.Is(err, io.EOF) {
			return found
		} else if err != nil {
			t.Fatalf("Reading %s: %v", path, err)
		}
		if role.Kind == "Role" || role.Kind == "ClusterRole" {
			found[role.Kind+" "+role.Name] = rights(t, path, role.Rules)
		}
	}
}

func rights(t *testing.T, path string, rules []rbacv1.PolicyRule) map[string]string {
	t.Helper()
	verbs := map[string][]string{}
	for _, rule := range rules {
		for _, group := range rule.APIGroups {
			for _, resource := range rule.Resources {
				key := group + "/" + resource
				if len(rule.ResourceNames) > 0 {
					key += " of ours"
				}
				for _, name := range rule.ResourceNames {
					if !strings.HasSuffix(name, ".infrastructure.cluster.x-k8s.io") {
						t.Errorf("%s grants rights on %s", path, name)
					}
				}
				verbs[key] = append(verbs[key], rule.Verbs...)
			}
		}
		if text := fmt.Sprint(rule); strings.Contains(text, "*") {
			t.Errorf("%s has a wildcard: %s", path, text)
		}
		if len(rule.NonResourceURLs) > 0 {
			t.Errorf("%s grants rights on %v", path, rule.NonResourceURLs)
		}
	}
	granted := map[string]string{}
	for key, list := range verbs {
		slices.Sort(list)
		granted[key] = strings.Join(slices.Compact(list), " ")
	}
	return granted
}

func compare(t *testing.T, what string, granted, needed map[string]string) {
	t.Helper()
	keys := maps.Clone(granted)
	maps.Copy(keys, needed)
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		if granted[key] != needed[key] {
			t.Errorf("%s grants %q on %s, and what is used is %q", what, granted[key], key, needed[key])
		}
	}
}

func TestRoleGrantsWhatIsUsedAndNoMore(t *testing.T) {
	compare(t, "config/rbac/role.yaml", roles(t, "../../config/rbac/role.yaml")["ClusterRole manager-role"], used)
}

// TestNamespacedRolesAreTheSame compares the roles of the namespaced installation, which are written by hand.
func TestNamespacedRolesAreTheSame(t *testing.T) {
	needed, reviews := map[string]string{}, map[string]string{}
	for key, verbs := range used {
		switch {
		case slices.Contains(notNamespaced, key):
		case strings.HasSuffix(key, "reviews"):
			reviews[key] = verbs
		default:
			needed[key] = verbs
		}
	}
	needed["infrastructure.cluster.x-k8s.io/libvirtmachinetemplates"] = "get list watch" // only the migrator patches them
	compare(t, "config/namespaced/role.yaml", roles(t, "../../config/namespaced/role.yaml")["Role capl-manager-role"], needed)
	compare(t, "config/namespaced/authentication_role.yaml",
		roles(t, "../../config/namespaced/authentication_role.yaml")["ClusterRole capl-authentication-role"], reviews)
}
