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
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

func TestFindDeployment(t *testing.T) {
	got, err := findDeployment(sampleObjects(t, map[string]string{"DEMO_A": "true"}))
	if err != nil {
		t.Fatal(err)
	}
	want := deployment{
		namespace:      "demo-system",
		serviceAccount: "demo-manager",
		manifestLabel:  "infrastructure-demo",
		args:           []string{"--leader-elect", "--v=4", "--feature-gates=A=true"},
		env:            []string{"POD_NAMESPACE=demo-system", "LITERAL=1"},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(deployment{})); diff != "" {
		t.Errorf("deployment (-want +got):\n%s", diff)
	}
	if got, want := got.user(), "system:serviceaccount:demo-system:demo-manager"; got != want {
		t.Errorf("user = %q, want %q", got, want)
	}
}

func TestFindDeploymentSaysWhatIsMissing(t *testing.T) {
	edit := func(path ...string) func(*unstructured.Unstructured) {
		return func(o *unstructured.Unstructured) { unstructured.RemoveNestedField(o.Object, path...) }
	}
	for name, tc := range map[string]struct {
		edit func(*unstructured.Unstructured)
		want string
	}{
		"no Deployment":      {func(o *unstructured.Unstructured) { o.SetKind("StatefulSet") }, "0 Deployments"},
		"no provider label":  {edit("metadata", "labels"), providerLabel},
		"no service account": {edit("spec", "template", "spec", "serviceAccountName"), "serviceAccountName"},
		"no manager":         {edit("spec", "template", "spec", "containers"), "no container named manager"},
	} {
		t.Run(name, func(t *testing.T) {
			components := sampleObjects(t, nil)
			tc.edit(components[3])
			if _, err := findDeployment(components); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error = %v, want one that says %q", err, tc.want)
			}
		})
	}
}

func TestManagerProcess(t *testing.T) {
	d := deployment{args: []string{"--leader-elect", "--diagnostics-address=:8443", "--insecure-diagnostics=false", "--feature-gates=A=true"}}
	p := managerProcess("/run/plane", Provider{Name: "demo", Manager: "/bin/demo"}, d, managerPorts{health: 1, webhook: 2, diagnostics: 3}, true)
	want := []string{
		"--feature-gates=A=true",
		"--kubeconfig=/run/plane/identities/demo.kubeconfig",
		"--health-addr=127.0.0.1:1",
		"--diagnostics-address=127.0.0.1:3",
		"--insecure-diagnostics=true",
		"--webhook-port=2",
		"--webhook-cert-dir=/run/plane/webhooks/demo",
	}
	if diff := cmp.Diff(want, p.args); diff != "" {
		t.Errorf("arguments (-want +got):\n%s", diff)
	}
	if got, want := p.healthURL, "http://127.0.0.1:1/readyz"; got != want {
		t.Errorf("health URL = %q, want %q", got, want)
	}
	without := managerProcess("/run/plane", Provider{Name: "demo"}, d, managerPorts{}, false)
	for _, arg := range without.args {
		if strings.HasPrefix(arg, "--webhook") {
			t.Errorf("argument %q was given to a manager without webhooks", arg)
		}
	}
}

func TestClusterctlIdentity(t *testing.T) {
	for label, want := range map[string][2]string{
		"cluster-api":            {"cluster-api", "CoreProvider"},
		"bootstrap-kubeadm":      {"kubeadm", "BootstrapProvider"},
		"control-plane-kubeadm":  {"kubeadm", "ControlPlaneProvider"},
		"infrastructure-libvirt": {"libvirt", "InfrastructureProvider"},
		"ipam-in-cluster":        {"in-cluster", "IPAMProvider"},
	} {
		name, providerType := clusterctlIdentity(label)
		if got := [2]string{name, providerType}; got != want {
			t.Errorf("clusterctlIdentity(%q) = %v, want %v", label, got, want)
		}
	}
}

func TestParseStat(t *testing.T) {
	const line = "42 (a (strange) name) S 7 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 11 0 987654 1 2 3"
	got, err := parseStat([]byte(line))
	if err != nil {
		t.Fatal(err)
	}
	if want := (stat{state: "S", parent: 7, startTicks: 987654}); got != want {
		t.Errorf("parseStat = %+v, want %+v", got, want)
	}
	for _, broken := range []string{"", "42 (name", "42 (name) S 7"} {
		if _, err := parseStat([]byte(broken)); err == nil {
			t.Errorf("parseStat(%q) succeeded", broken)
		}
	}
}
