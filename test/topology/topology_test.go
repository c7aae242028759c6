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
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/utils/ptr"
	controlplanev1 "sigs.k8s.io/cluster-api/api/controlplane/kubeadm/v1beta2"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/cluster-api/util/conditions"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/hosttest"
)

// decode reads the objects of a stream of documents.
func decode(t *testing.T, manifests string) []*unstructured.Unstructured {
	t.Helper()
	var objects []*unstructured.Unstructured
	for decoder := yaml.NewYAMLOrJSONDecoder(strings.NewReader(manifests), 4096); ; {
		object := &unstructured.Unstructured{}
		if err := decoder.Decode(&object.Object); errors.Is(err, io.EOF) {
			return objects
		} else if err != nil {
			t.Fatal(err)
		}
		if len(object.Object) > 0 {
			objects = append(objects, object)
		}
	}
}

// parts are the objects that a topology is made into.
type parts struct {
	cluster                  clusterv1.Cluster
	libvirtCluster           infrav1.LibvirtCluster
	controlPlane             controlplanev1.KubeadmControlPlane
	workers                  clusterv1.MachineDeployment
	controlPlaneVM, workerVM infrav1.LibvirtMachineTemplate
	templates                infrav1.LibvirtMachineTemplateList
}

// read reads them, and tells what isn't there or isn't as the topology says.
func (m *management) read(name string) (parts, error) {
	var p parts
	ctx := m.t.Context()
	key := func(name string) client.ObjectKey { return client.ObjectKey{Namespace: "default", Name: name} }
	for _, part := range []struct {
		name   func() string
		object client.Object
	}{
		{func() string { return name }, &p.cluster},
		{func() string { return name }, &p.libvirtCluster},
		{func() string { return name + "-control-plane" }, &p.controlPlane},
		{func() string { return name + "-workers" }, &p.workers},
		{func() string { return p.controlPlane.Spec.MachineTemplate.Spec.InfrastructureRef.Name }, &p.controlPlaneVM},
		{func() string { return p.workers.Spec.Template.Spec.InfrastructureRef.Name }, &p.workerVM},
	} {
		if err := m.api.Get(ctx, key(part.name()), part.object); err != nil {
			return p, fmt.Errorf("reading %T %s: %w", part.object, part.name(), err)
		}
	}
	if err := m.api.List(ctx, &p.templates, client.InNamespace("default"), client.MatchingLabels{clusterv1.ClusterNameLabel: name}); err != nil {
		return p, err
	}
	if !conditions.IsTrue(&p.cluster, clusterv1.ClusterTopologyReconciledCondition) {
		return p, fmt.Errorf("the topology isn't reconciled: %s", conditions.GetMessage(&p.cluster, clusterv1.ClusterTopologyReconciledCondition))
	}
	return p, nil
}

// setVariable changes a variable of a Cluster.
func (m *management) setVariable(cluster, name string, change func(map[string]any)) error {
	m.t.Helper()
	object := &clusterv1.Cluster{}
	if err := m.api.Get(m.t.Context(), client.ObjectKey{Namespace: "default", Name: cluster}, object); err != nil {
		return err
	}
	before := object.DeepCopy()
	for i := range object.Spec.Topology.Variables {
		variable := &object.Spec.Topology.Variables[i]
		if variable.Name != name {
			continue
		}
		value := map[string]any{}
		if err := json.Unmarshal(variable.Value.Raw, &value); err != nil {
			return err
		}
		change(value)
		raw, err := json.Marshal(value)
		if err != nil {
			return err
		}
		variable.Value = apiextensionsv1.JSON{Raw: raw}
		return m.api.Patch(m.t.Context(), object, client.MergeFrom(before))
	}
	return fmt.Errorf("Cluster %s has no variable %s", cluster, name)
}

// TestTopology makes a cluster of the released class, finds in it what the ordinary template says, and rolls its templates
// by changes of variables.
func TestTopology(t *testing.T) {
	m := manage(t)
	variables := map[string]string{
		"CONTROL_PLANE_ENDPOINT_IP": "10.70.0.2", "LIBVIRT_NODE_CIDR": "10.70.0.0/25", "LIBVIRT_INGRESS_CIDR": "10.70.0.128/25",
		"LIBVIRT_URI": hosttest.TestDriver(t), "LIBVIRT_MTU": "1420",
		// Nothing is there, so that no machine gets further than its image.
		"LIBVIRT_IMAGE_URL": "http://127.0.0.1:9/node.qcow2", "LIBVIRT_IMAGE_CHECKSUM": "sha256:" + strings.Repeat("0123456789abcdef", 4),
		"LIBVIRT_DOMAIN_TYPE": "QEMU", "LIBVIRT_DISK_CACHE": "Unsafe", "LIBVIRT_CONTROL_PLANE_MEMORY": "3Gi", "LIBVIRT_WORKER_VCPUS": "1",
		"LIBVIRT_LEASE_SECONDS": "120", "LIBVIRT_RENEW_SECONDS": "90", "LIBVIRT_PROBE_FAILURES": "60", "COREDNS_REPLICAS": "1",
	}
	manifests := m.generate("demo", "topology", variables)
	file := filepath.Join(t.TempDir(), "demo.yaml")
	must(t, os.WriteFile(file, []byte(manifests), 0o600))
	m.command(nil, filepath.Join(m.binDir, "kubectl"), "--kubeconfig", m.kubeconfig, "apply", "-f", file)
	var first parts
	eventually(t, "the topology is reconciled", func() (err error) {
		first, err = m.read("demo")
		return err
	})
	if replicas := ptr.Deref(first.workers.Spec.Replicas, 0); replicas != 2 || first.workers.Spec.Template.Spec.Version != "v1.36.3" {
		t.Errorf("There are %d workers of version %s", replicas, first.workers.Spec.Template.Spec.Version)
	}
	m.comparePlain(t, variables, first)

	t.Run("templates tell what a machine has", func(t *testing.T) {
		eventually(t, "there is a capacity", func() error {
			now, err := m.read("demo")
			if err == nil && (now.workerVM.Status.Capacity.Memory().String() != "4Gi" || now.workerVM.Status.NodeInfo.Architecture != infrav1.ArchitectureAMD64) {
				err = fmt.Errorf("it is %+v", now.workerVM.Status)
			}
			return err
		})
	})

	t.Run("nothing changes by itself", func(t *testing.T) {
		for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(500 * time.Millisecond) {
			now, err := m.read("demo")
			must(t, err)
			if now.workers.Generation != first.workers.Generation || now.controlPlane.Generation != first.controlPlane.Generation ||
				now.workerVM.Name != first.workerVM.Name || len(now.templates.Items) != 2 {
				t.Fatalf("It did: %d templates, generations %d and %d", len(now.templates.Items), now.workers.Generation, now.controlPlane.Generation)
			}
		}
	})

	t.Run("a change of the workers' size makes a new template for them", func(t *testing.T) {
		must(t, m.setVariable("demo", "worker", func(value map[string]any) {
			value["memory"] = "6Gi"
			value["dataDisks"] = []any{map[string]any{"name": "brick", "size": "50Gi", "reclaimPolicy": "Retain"}}
		}))
		eventually(t, "the workers have another template", func() error {
			now, err := m.read("demo")
			switch {
			case err != nil:
				return err
			case now.workerVM.Name == first.workerVM.Name:
				return errors.New("it is the same")
			}
			if disks := now.workerVM.Spec.Template.Spec.DataDisks; len(disks) != 1 || disks[0].Name != "brick" || disks[0].ReclaimPolicy != infrav1.DiskReclaimPolicyRetain {
				t.Errorf("The data disks of the new template are %+v", disks)
			}
			if want := resource.MustParse("6Gi"); now.workerVM.Spec.Template.Spec.Memory.Cmp(want) != 0 || now.workerVM.Spec.Template.Spec.VCPUs != 1 {
				t.Errorf("The new template is %+v", now.workerVM.Spec.Template.Spec)
			}
			if now.controlPlaneVM.Name != first.controlPlaneVM.Name {
				t.Error("The control plane has another template, too")
			}
			return nil
		})
		// Machines of the old one are still there.
		old := &infrav1.LibvirtMachineTemplate{}
		must(t, m.api.Get(t.Context(), client.ObjectKeyFromObject(&first.workerVM), old))
		if diff := cmp.Diff(first.workerVM.Spec, old.Spec); diff != "" {
			t.Errorf("The old template changed:\n%s", diff)
		}
	})

	t.Run("a change of the image makes new templates for all", func(t *testing.T) {
		must(t, m.setVariable("demo", "image", func(value map[string]any) {
			delete(value, "url")
			delete(value, "checksum")
			value["volume"] = "node-image"
		}))
		eventually(t, "all have other templates", func() error {
			now, err := m.read("demo")
			if err != nil {
				return err
			}
			for _, template := range []infrav1.LibvirtMachineTemplate{now.controlPlaneVM, now.workerVM} {
				if got := template.Spec.Template.Spec.Image; got != (infrav1.Image{Volume: "node-image"}) {
					return fmt.Errorf("the image of %s is %+v", template.Name, got)
				}
			}
			return nil
		})
	})

	t.Run("what can't be is refused at once", func(t *testing.T) {
		for name, change := range map[string]struct {
			variable string
			edit     func(map[string]any)
			want     string
		}{
			"two images":           {"image", func(v map[string]any) { v["url"] = "https://images.example.org/node.qcow2" }, "image needs either url and checksum, or volume"},
			"a bridge of nobody's": {"network", func(v map[string]any) { v["bridge"] = "br0" }, "network needs managementPolicy Existing together with bridge or name"},
			"a lease too short":    {"timing", func(v map[string]any) { v["renewSeconds"] = 120 }, "timing.renewSeconds must be less than timing.leaseSeconds"},
			"no processor":         {"worker", func(v map[string]any) { v["vcpus"] = 0 }, "greater than or equal to 1"},
		} {
			if err := m.setVariable("demo", change.variable, change.edit); err == nil || !strings.Contains(err.Error(), change.want) {
				t.Errorf("%s: got %v, want %s", name, err, change.want)
			}
		}
	})
}

// comparePlain compares what a topology was made into with what the ordinary template says for the same variables, as the
// API server completes it.
func (m *management) comparePlain(t *testing.T, variables map[string]string, made parts) {
	t.Helper()
	compared := 0
	for _, object := range decode(t, m.generate("plain", "", variables)) {
		var from client.Object
		switch object.GetKind() + " " + object.GetName() {
		case "LibvirtCluster plain":
			from = &made.libvirtCluster
		case "KubeadmControlPlane plain-control-plane":
			from = &made.controlPlane
		case "LibvirtMachineTemplate plain-control-plane":
			from = &made.controlPlaneVM
		case "LibvirtMachineTemplate plain-workers":
			from = &made.workerVM
		case "KubeadmConfigTemplate plain-workers":
			template := &unstructured.Unstructured{}
			template.SetGroupVersionKind(object.GroupVersionKind())
			must(t, m.api.Get(t.Context(), client.ObjectKey{Namespace: "default", Name: made.workers.Spec.Template.Spec.Bootstrap.ConfigRef.Name}, template))
			from = template
		default:
			continue
		}
		compared++
		if object.GetKind() == "LibvirtCluster" {
			// Two clusters can't be where the first is, and it has its network by now.
			made.libvirtCluster.Spec.Network.UUID = ""
		}
		must(t, m.api.Create(t.Context(), object, client.DryRunAll))
		if diff := cmp.Diff(specOf(t, object), specOf(t, from)); diff != "" {
			t.Errorf("The topology makes another %s than the ordinary template (-ordinary +topology):\n%s", object.GetKind(), diff)
		}
	}
	if compared != 5 {
		t.Errorf("Compared %d objects, want 5", compared)
	}
}

// specOf is the spec of an object without what names others.
func specOf(t *testing.T, object client.Object) map[string]any {
	t.Helper()
	raw, err := json.Marshal(object)
	must(t, err)
	// The names of the two clusters differ.
	raw = bytes.ReplaceAll(raw, []byte(`"plain`), []byte(`"demo`))
	var content struct {
		Spec map[string]any `json:"spec"`
	}
	must(t, json.Unmarshal(raw, &content))
	for _, path := range [][]string{
		{"machineTemplate", "spec", "infrastructureRef"}, {"machineTemplate", "metadata"}, {"template", "metadata"},
	} {
		unstructured.RemoveNestedField(content.Spec, path...)
	}
	return content.Spec
}
