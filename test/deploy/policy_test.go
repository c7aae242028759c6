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
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	clusterctlv1 "sigs.k8s.io/cluster-api/cmd/clusterctl/api/v1alpha3"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
)

// installPolicy creates the policy as clusterctl does, which takes every kind that it doesn't know for a namespaced one.
func installPolicy(t *testing.T) {
	t.Helper()
	for _, object := range rendered(t, "../../config/default") {
		if strings.HasPrefix(object.GetKind(), "ValidatingAdmissionPolicy") {
			object.SetNamespace(system)
			if err := api.Create(t.Context(), object); err != nil && !apierrors.IsAlreadyExists(err) {
				t.Fatal(err)
			}
		}
	}
	// It is in force a moment later.
	ns := namespace(t, "")
	host := &infrav1.LibvirtHost{ObjectMeta: meta(ns, "trial"), Spec: infrav1.LibvirtHostSpec{URI: "qemu:///system"}}
	host.Spec.CredentialsRef.Name = "trial"
	secret := &corev1.Secret{ObjectMeta: meta(ns, "trial")}
	create(t, host, secret)
	eventually(t, "the policy is in force", func() error {
		err := api.Delete(t.Context(), secret, client.DryRunAll)
		if apierrors.IsForbidden(err) {
			return nil
		}
		return fmt.Errorf("a deletion gives %w", err)
	})
	must(t, api.Delete(t.Context(), host))
}

func TestCredentialsStayWhileAHostNamesThem(t *testing.T) {
	installPolicy(t)
	ns, elsewhere := namespace(t, ""), namespace(t, "")
	kvm1 := &infrav1.LibvirtHost{ObjectMeta: meta(ns, "kvm1"), Spec: infrav1.LibvirtHostSpec{URI: "qemu:///system"}}
	kvm1.Spec.CredentialsRef.Name = "kvm1-ssh"
	kvm1.Finalizers = []string{infrav1.HostFinalizer}
	local := &infrav1.LibvirtHost{ObjectMeta: meta(ns, "local"), Spec: infrav1.LibvirtHostSpec{URI: "qemu:///system"}}
	used, other := &corev1.Secret{ObjectMeta: meta(ns, "kvm1-ssh")}, &corev1.Secret{ObjectMeta: meta(ns, "kvm2-ssh")}
	namesake := &corev1.Secret{ObjectMeta: meta(elsewhere, "kvm1-ssh")}
	create(t, kvm1, local, used, other, namesake)

	denied := func() error {
		err := api.Delete(t.Context(), used)
		if !apierrors.IsForbidden(err) {
			return fmt.Errorf("the deletion gave %w", err)
		}
		for _, text := range []string{"Secret kvm1-ssh has the credentials of LibvirtHost kvm1", "spec.credentialsRef", "delete the LibvirtHost first"} {
			if !strings.Contains(err.Error(), text) {
				t.Errorf("The refusal lacks %q: %v", text, err)
			}
		}
		return nil
	}
	// The API server learns of a new LibvirtHost a moment later.
	eventually(t, "the deletion is refused", denied)
	must(t, api.Delete(t.Context(), other))
	must(t, api.Delete(t.Context(), namesake))
	if err := api.DeleteAllOf(t.Context(), &corev1.Secret{}, client.InNamespace(ns)); !apierrors.IsForbidden(err) {
		t.Errorf("Deleting all Secrets gave %v", err)
	}
	// Also while the LibvirtHost waits for its machines to go.
	must(t, api.Delete(t.Context(), kvm1))
	must(t, denied())

	// clusterctl move marks what it takes away, because it does so in no particular order.
	moved := used.DeepCopy()
	moved.Annotations = map[string]string{clusterctlv1.DeleteForMoveAnnotation: ""}
	must(t, api.Update(t.Context(), moved))
	must(t, api.Delete(t.Context(), moved, client.DryRunAll))
	moved.Annotations = nil
	must(t, api.Update(t.Context(), moved))

	must(t, api.Get(t.Context(), client.ObjectKeyFromObject(kvm1), kvm1))
	kvm1.Finalizers = nil
	must(t, api.Update(t.Context(), kvm1))
	eventually(t, "it may be deleted with the host gone", func() error { return client.IgnoreNotFound(api.Delete(t.Context(), used)) })
}

// TestManagerWritesNoOtherSecrets tries out, by the name of the manager's service account and with all rights, what the
// policy leaves it.
func TestManagerWritesNoOtherSecrets(t *testing.T) {
	installPolicy(t)
	ns := namespace(t, "")
	config := rest.CopyConfig(apiConfig)
	config.Impersonate = rest.ImpersonationConfig{UserName: "system:serviceaccount:" + system + ":capl-manager", Groups: []string{"system:masters"}}
	asManager, err := client.New(config, client.Options{Scheme: scheme})
	must(t, err)
	secretOf := func(name string, edits ...func(*corev1.Secret)) *corev1.Secret {
		secret := &corev1.Secret{ObjectMeta: meta(ns, name), Type: clusterv1.ClusterSecretType}
		secret.OwnerReferences = []metav1.OwnerReference{{
			APIVersion: infrav1.GroupVersion.String(), Kind: "LibvirtCluster", Name: "demo", UID: "11111111-1111-4111-8111-111111111111",
		}}
		for _, edit := range edits {
			edit(secret)
		}
		return secret
	}
	unowned := func(s *corev1.Secret) { s.OwnerReferences = nil }
	opaque := func(s *corev1.Secret) { s.Type = corev1.SecretTypeOpaque }
	denied := func(what string, err error) {
		t.Helper()
		if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "<cluster>-kubeconfig-external, which a LibvirtCluster owns") {
			t.Errorf("%s gave %v", what, err)
		}
	}
	eventually(t, "the policy is in force", func() error {
		if err := asManager.Create(t.Context(), secretOf("trial"), client.DryRunAll); !apierrors.IsForbidden(err) {
			return fmt.Errorf("a creation gives %w", err)
		}
		return nil
	})
	denied("Another name", asManager.Create(t.Context(), secretOf("demo-kubeconfig")))
	denied("Another type", asManager.Create(t.Context(), secretOf("demo-kubeconfig-external", opaque)))
	denied("No owner", asManager.Create(t.Context(), secretOf("demo-kubeconfig-external", unowned)))

	ours := secretOf("demo-kubeconfig-external")
	must(t, asManager.Create(t.Context(), ours))
	before := ours.DeepCopy()
	ours.Data = map[string][]byte{"value": []byte("x")}
	must(t, asManager.Patch(t.Context(), ours, client.MergeFrom(before)))
	before = ours.DeepCopy()
	orphaned := ours.DeepCopy()
	orphaned.OwnerReferences = nil
	denied("Taking the owner away", asManager.Patch(t.Context(), orphaned, client.MergeFrom(before)))
	must(t, asManager.Delete(t.Context(), ours))

	for _, theirs := range []*corev1.Secret{secretOf("bootstrap", unowned, opaque), secretOf("other-kubeconfig-external", unowned)} {
		create(t, theirs)
		before := theirs.DeepCopy()
		theirs.Data = map[string][]byte{"value": []byte("x")}
		denied("Changing "+theirs.Name, asManager.Patch(t.Context(), theirs, client.MergeFrom(before)))
		denied("Deleting "+theirs.Name, asManager.Delete(t.Context(), theirs))
		adopted := before.DeepCopy()
		adopted.OwnerReferences = ours.DeepCopy().OwnerReferences
		denied("Adopting "+theirs.Name, asManager.Patch(t.Context(), adopted, client.MergeFrom(before)))
		// Everybody else may.
		must(t, api.Delete(t.Context(), theirs))
	}
}

// TestNamespaceGoesWithItsHosts deletes a namespace. Kubernetes does so in no particular order, and again and again.
func TestNamespaceGoesWithItsHosts(t *testing.T) {
	installPolicy(t)
	runNamespaceController(t)
	ns := namespace(t, "")
	host := &infrav1.LibvirtHost{ObjectMeta: meta(ns, "kvm1"), Spec: infrav1.LibvirtHostSpec{URI: "qemu:///system"}}
	host.Spec.CredentialsRef.Name = "kvm1-ssh"
	host.Finalizers = []string{infrav1.HostFinalizer}
	secret := &corev1.Secret{ObjectMeta: meta(ns, "kvm1-ssh")}
	create(t, host, secret)
	eventually(t, "the policy knows the host", func() error {
		if err := api.Delete(t.Context(), secret, client.DryRunAll); !apierrors.IsForbidden(err) {
			return fmt.Errorf("the deletion gave %w", err)
		}
		return nil
	})
	must(t, api.Delete(t.Context(), &corev1.Namespace{ObjectMeta: meta("", ns)}))
	eventually(t, "the host is being deleted", func() error {
		if err := api.Get(t.Context(), client.ObjectKeyFromObject(host), host); err != nil || host.DeletionTimestamp.IsZero() {
			return fmt.Errorf("it isn't: %w", err)
		}
		return nil
	})
	must(t, api.Get(t.Context(), client.ObjectKeyFromObject(secret), secret))
	host.Finalizers = nil
	must(t, api.Update(t.Context(), host))
	eventually(t, "the namespace is gone", func() error {
		err := api.Get(t.Context(), client.ObjectKey{Name: ns}, &corev1.Namespace{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("it is there: %w", err)
	})
}

// runNamespaceController runs the part of kube-controller-manager that empties namespaces, until the end of the test.
func runNamespaceController(t *testing.T) {
	t.Helper()
	admin, err := env.AddUser(adminUser, nil)
	must(t, err)
	config, err := admin.KubeConfig()
	must(t, err)
	dir := t.TempDir()
	path := filepath.Join(dir, "kubeconfig")
	must(t, os.WriteFile(path, config, 0o600))
	logFile, err := os.Create(filepath.Join(dir, "log"))
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	command := exec.CommandContext(ctx, filepath.Join(os.Getenv("CAPL_BIN_DIR"), "kube-controller-manager"),
		"--kubeconfig="+path, "--authentication-kubeconfig="+path, "--authorization-kubeconfig="+path,
		"--controllers=namespace-controller", "--leader-elect=false", "--bind-address=127.0.0.1", "--secure-port="+freePort(t), "--cert-dir="+dir)
	command.Stdout, command.Stderr = logFile, logFile
	command.WaitDelay = 10 * time.Second
	must(t, command.Start())
	t.Cleanup(func() {
		cancel()
		_ = command.Wait()
		if content, err := os.ReadFile(logFile.Name()); t.Failed() && err == nil {
			t.Logf("The log of kube-controller-manager:\n%s", content)
		}
	})
}
