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

package deploy

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/utils/ptr"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/cluster-api/util/conditions"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/hosttest"
)

var adminUser = envtest.User{Name: "admin", Groups: []string{"system:masters"}}

func find(t *testing.T, objects []*unstructured.Unstructured, kind, name string) *unstructured.Unstructured {
	t.Helper()
	k := slices.IndexFunc(objects, func(o *unstructured.Unstructured) bool { return o.GetKind() == kind && o.GetName() == name })
	if k < 0 {
		t.Fatalf("There is no %s %s", kind, name)
	}
	return objects[k]
}

// TestNamespacedRightsStayInTheNamespace looks for rights of the manager outside its namespace.
func TestNamespacedRightsStayInTheNamespace(t *testing.T) {
	objects := rendered(t, "../../config/namespaced")
	bound := map[string]bool{}
	for _, object := range objects {
		if object.GetKind() == "ClusterRoleBinding" {
			name, _, err := unstructured.NestedString(object.Object, "roleRef", "name")
			must(t, err)
			bound[name] = true
		}
	}
	if len(bound) != 1 || !bound["capl-authentication-role"] {
		t.Errorf("The ClusterRoles %v are bound in all namespaces", bound)
	}
	var namespaces []string
	for _, object := range objects {
		if namespace := object.GetNamespace(); namespace != "" && !slices.Contains(namespaces, namespace) {
			namespaces = append(namespaces, namespace)
		}
		if object.GetLabels()["cluster.x-k8s.io/provider"] != "infrastructure-libvirt" {
			t.Errorf("%s %s lacks the label that clusterctl goes by", object.GetKind(), object.GetName())
		}
	}
	if !slices.Equal(namespaces, []string{system}) {
		t.Errorf("The objects are in the namespaces %v", namespaces)
	}
}

// TestServiceMonitorFindsTheManager renders the component for Prometheus with the rest.
func TestServiceMonitorFindsTheManager(t *testing.T) {
	dir, err := os.MkdirTemp("..", "overlay-")
	must(t, err)
	defer os.RemoveAll(dir)
	must(t, os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte("resources: [../../config/default]\ncomponents: [../../config/prometheus]\n"), 0o600))
	objects := rendered(t, dir)
	selects := func(object *unstructured.Unstructured, labels map[string]string, fields ...string) {
		selector, _, err := unstructured.NestedStringMap(object.Object, fields...)
		must(t, err)
		for key, value := range selector {
			if labels[key] != value {
				t.Errorf("%s %s selects %s=%s, and there is %q", object.GetKind(), object.GetName(), key, value, labels[key])
			}
		}
		if len(selector) == 0 {
			t.Errorf("%s %s selects everything", object.GetKind(), object.GetName())
		}
	}
	service := find(t, objects, "Service", "capl-metrics-service")
	pods, _, err := unstructured.NestedStringMap(find(t, objects, "Deployment", "capl-controller-manager").Object, "spec", "template", "metadata", "labels")
	must(t, err)
	selects(service, pods, "spec", "selector")
	selects(find(t, objects, "ServiceMonitor", "capl-metrics"), service.GetLabels(), "spec", "selector", "matchLabels")
}

// scrape reads the metrics with a token, if any.
func scrape(t *testing.T, address, token string) (int, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+address+"/metrics", nil)
	must(t, err)
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	defer transport.CloseIdleConnections()
	response, err := (&http.Client{Transport: transport}).Do(request)
	must(t, err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	must(t, err)
	return response.StatusCode, string(body)
}

// tokenOf makes a service account and a token of it.
func tokenOf(t *testing.T, ns, name string) string {
	t.Helper()
	account := &corev1.ServiceAccount{ObjectMeta: meta(ns, name)}
	create(t, account)
	request := &authenticationv1.TokenRequest{}
	must(t, api.SubResource("token").Create(t.Context(), account, request))
	return request.Status.Token
}

// TestManagers runs the manager as each of the two installations does: with no right too many it serves its namespace or
// all, and its metrics are for those who may read them.
func TestManagers(t *testing.T) {
	namespace(t, system)
	for _, test := range []struct {
		config string
		all    bool
	}{{"namespaced", false}, {"default", true}} {
		t.Run(test.config, func(t *testing.T) {
			objects := rendered(t, "../../config/"+test.config)
			install(t, objects, "ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding")
			t.Cleanup(func() { uninstall(t, objects) })
			metrics := runManager(t, find(t, objects, "Deployment", "capl-controller-manager"))

			ours := &infrav1.LibvirtHost{ObjectMeta: meta(system, test.config), Spec: infrav1.LibvirtHostSpec{URI: hosttest.TestDriver(t, hosttest.Volume("default", "node-image", "qcow2", 1<<30))}}
			theirs := &infrav1.LibvirtHost{ObjectMeta: meta(namespace(t, ""), test.config), Spec: infrav1.LibvirtHostSpec{URI: hosttest.TestDriver(t)}}
			create(t, ours, theirs)
			ready := func(h *infrav1.LibvirtHost) error {
				if err := api.Get(t.Context(), client.ObjectKeyFromObject(h), h); err != nil {
					return err
				}
				if !conditions.IsTrue(h, infrav1.ReadyCondition) {
					return fmt.Errorf("its conditions are %v", h.Status.Conditions)
				}
				return nil
			}
			eventually(t, "a host in the manager's namespace is ready", func() error { return ready(ours) })
			if test.all {
				eventually(t, "a host elsewhere is ready", func() error { return ready(theirs) })
			} else if err := ready(theirs); err == nil || len(theirs.Finalizers) > 0 {
				t.Errorf("A host in namespace %s is served too", theirs.Namespace)
			}

			ns := namespace(t, "")
			bound, unbound := tokenOf(t, ns, "prometheus"), tokenOf(t, ns, "anybody")
			create(t, &rbacv1.ClusterRoleBinding{
				ObjectMeta: metav1.ObjectMeta{GenerateName: "metrics-"},
				RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "capl-metrics-reader"},
				Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: ns, Name: "prometheus"}},
			})
			if code, body := scrape(t, metrics, ""); code != http.StatusUnauthorized {
				t.Errorf("An anonymous scrape gave %d: %.200s", code, body)
			}
			// controller-runtime takes that for a failure of its own.
			if code, body := scrape(t, metrics, "nonsense"); code < 400 || strings.Contains(body, "capl_") {
				t.Errorf("A scrape with a false token gave %d: %.200s", code, body)
			}
			if code, body := scrape(t, metrics, unbound); code != http.StatusForbidden {
				t.Errorf("A scrape without the right gave %d: %.200s", code, body)
			}
			eventually(t, "a scrape with the right has the host", func() error {
				code, body := scrape(t, metrics, bound)
				if want := fmt.Sprintf("capl_host_connected{host=%q} 1", system+"/"+test.config); code != http.StatusOK || !strings.Contains(body, want) {
					return fmt.Errorf("it gave %d, and %s isn't in %.2000s", code, want, body)
				}
				return nil
			})
			makeMachine(t, test.config)
			must(t, api.Delete(t.Context(), ours))
			must(t, client.IgnoreNotFound(api.Delete(t.Context(), theirs)))
			eventually(t, "the host is gone", func() error {
				err := api.Get(t.Context(), client.ObjectKeyFromObject(ours), ours)
				if apierrors.IsNotFound(err) {
					return nil
				}
				return fmt.Errorf("it is there: %w", err)
			})
		})
	}
}

// uninstall removes the rights of the manager, so that the next has none of them.
func uninstall(t *testing.T, objects []*unstructured.Unstructured) {
	t.Helper()
	for _, object := range objects {
		if strings.Contains(object.GetKind(), "Role") {
			if err := client.IgnoreNotFound(api.Delete(context.Background(), object.DeepCopy())); err != nil {
				t.Error(err)
			}
		}
	}
}

// makeMachine has a cluster and a machine made as far as the bootstrap data, which isn't there, and removed again.
func makeMachine(t *testing.T, name string) {
	t.Helper()
	owned := func(owner client.Object, kind string) []metav1.OwnerReference {
		return []metav1.OwnerReference{{APIVersion: clusterv1.GroupVersion.String(), Kind: kind, Name: owner.GetName(), UID: owner.GetUID()}}
	}
	reference := func(kind string) clusterv1.ContractVersionedObjectReference {
		return clusterv1.ContractVersionedObjectReference{APIGroup: infrav1.GroupVersion.Group, Kind: kind, Name: name}
	}
	labelled := func() metav1.ObjectMeta {
		m := meta(system, name)
		m.Labels = map[string]string{clusterv1.ClusterNameLabel: name}
		return m
	}
	expect := func(object interface {
		client.Object
		conditions.Getter
	}, condition, reason string) {
		t.Helper()
		eventually(t, fmt.Sprintf("%T has %s for %s", object, condition, reason), func() error {
			if err := api.Get(t.Context(), client.ObjectKeyFromObject(object), object); err != nil {
				return err
			}
			if conditions.GetReason(object, condition) != reason {
				return fmt.Errorf("its conditions are %v", object.GetConditions())
			}
			return nil
		})
	}
	cluster := &clusterv1.Cluster{ObjectMeta: labelled(), Spec: clusterv1.ClusterSpec{
		ControlPlaneEndpoint: clusterv1.APIEndpoint{Host: "10.20.0.2", Port: 6443}, InfrastructureRef: reference("LibvirtCluster"),
	}}
	create(t, cluster)
	libvirtCluster := &infrav1.LibvirtCluster{ObjectMeta: labelled(), Spec: infrav1.LibvirtClusterSpec{Network: infrav1.ClusterNetwork{CIDR: "10.20.0.0/25"}}}
	libvirtCluster.OwnerReferences = owned(cluster, "Cluster")
	create(t, libvirtCluster)
	expect(libvirtCluster, infrav1.ReadyCondition, infrav1.ReadyReason)
	before := cluster.DeepCopy()
	cluster.Status.Initialization.InfrastructureProvisioned = ptr.To(true)
	must(t, api.Status().Patch(t.Context(), cluster, client.MergeFrom(before)))
	machine := &clusterv1.Machine{ObjectMeta: labelled(), Spec: clusterv1.MachineSpec{
		ClusterName: name, Bootstrap: clusterv1.Bootstrap{DataSecretName: ptr.To("missing")}, InfrastructureRef: reference("LibvirtMachine"),
	}}
	create(t, machine)
	libvirtMachine := &infrav1.LibvirtMachine{ObjectMeta: labelled(), Spec: infrav1.LibvirtMachineSpec{
		VCPUs: 1, Memory: resource.MustParse("1Gi"), Image: infrav1.Image{Volume: "node-image"}, RootDisk: infrav1.RootDisk{Size: resource.MustParse("2Gi")},
	}}
	libvirtMachine.OwnerReferences = owned(machine, "Machine")
	create(t, libvirtMachine)
	expect(libvirtMachine, infrav1.MachineBootstrapDataReadyCondition, infrav1.MachineBootstrapSecretNotFoundReason)
	for _, object := range []client.Object{libvirtMachine, libvirtCluster} {
		must(t, api.Delete(t.Context(), object))
		eventually(t, fmt.Sprintf("%T is gone", object), func() error {
			err := api.Get(t.Context(), client.ObjectKeyFromObject(object), object)
			if apierrors.IsNotFound(err) {
				return nil
			}
			return fmt.Errorf("it is there: %w", err)
		})
	}
}
