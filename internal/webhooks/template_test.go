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
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

func TestTemplateCreate(t *testing.T) {
	for _, tt := range []struct {
		name     string
		template *unstructured.Unstructured
		want     []string
	}{
		{name: "a cluster as documented", template: clusterTemplate(t)},
		{name: "a machine as documented", template: machineTemplate(t)},
		{name: "machines pinned to a host", template: machineTemplate(t, set("spec.template.spec.hostName", "kvm1"))},
		{name: "labels", template: machineTemplate(t, set("spec.template.metadata", "{labels: {tier: web}}"))},

		{
			name:     "a range that can't be served",
			template: clusterTemplate(t, set("spec.template.spec.network.cidr", "10.100.0.0/8")),
			want:     []string{`spec.template.spec.network.cidr: Invalid value: "10.100.0.0/8": has host bits set: use 10.0.0.0/8`},
		},
		{
			name:     "an endpoint that can't be served",
			template: clusterTemplate(t, set("spec.template.spec.controlPlaneEndpoint.host", "192.0.2.1")),
			want:     []string{`spec.template.spec.controlPlaneEndpoint.host: Invalid value: "192.0.2.1": 192.0.2.1 is outside the node network 10.100.0.0/25: use one of 10.100.0.2-10.100.0.9`},
		},
		{
			name:     "one network for several clusters",
			template: clusterTemplate(t, set("spec.template.spec.network.uuid", networkUUID)),
			want:     []string{"spec.template.spec.network.uuid: Forbidden: identifies the network of one cluster: remove it from the template"},
		},
		{
			name:     "one domain for several machines",
			template: machineTemplate(t, set("spec.template.spec.providerID", providerID)),
			want:     []string{"spec.template.spec.providerID: Forbidden: identifies the domain of one machine: remove it from the template"},
		},
		{
			name:     "one address for several machines",
			template: machineTemplate(t, set("spec.template.spec.address", "10.100.0.10")),
			want:     []string{"spec.template.spec.address: Forbidden: is the address of one machine: remove it from the template"},
		},
		{
			name:     "one slot for several machines",
			template: machineTemplate(t, set("spec.template.spec.slot", "{set: MachineDeployment/db, number: 0}")),
			want:     []string{"spec.template.spec.slot: Forbidden: is the place of one machine in its set: remove it from the template"},
		},
		{name: "machines with data disks", template: machineTemplate(t, set("spec.template.spec.dataDisks", "[{name: brick, size: 50Gi, reclaimPolicy: Retain}]"))},
		{name: "clusters on a bridge", template: clusterTemplate(t, unset("spec.template.spec.controlPlaneEndpoint"), set("spec.template.spec.network",
			"{managementPolicy: Existing, bridge: br0, cidr: 192.168.1.0/24, nodeRange: 192.168.1.100-192.168.1.149, gateway: 192.168.1.1, nameservers: [192.168.1.1]}"))},
		{
			name:     "a label that can't be one",
			template: machineTemplate(t, set("spec.template.metadata", `{labels: {"a b": web}}`)),
			want:     []string{`spec.template.metadata.labels: Invalid value: "a b": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')`},
		},
		{
			name:     "an image by http",
			template: machineTemplate(t, set("spec.template.spec.image.url", "http://images.example.org/node.qcow2")),
			want: []string{"spec.template.spec.image.url: Invalid value: images come by https only: serve it by https, " +
				"or have the administrator start the manager with --image-allow-http"},
		},
		{
			name:     "an image from within",
			template: machineTemplate(t, set("spec.template.spec.image.url", "https://169.254.169.254/node.qcow2")),
			want: []string{"spec.template.spec.image.url: Invalid value: it leads to a link-local address, from where no images are taken: " +
				"publish the image at a public address, or have the administrator name the network in the manager's --image-allowed-cidrs"},
		},
		{
			name:     "an image without a checksum",
			template: machineTemplate(t, unset("spec.template.spec.image.checksum")),
			want:     []string{"spec.template.spec.image: Invalid value: checksum is required with url: set it to sha256: and the digest that sha256sum prints for the image"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			check(t, api.Create(t.Context(), tt.template), tt.want...)
		})
	}
}

const (
	immutable       = "spec.template.spec: Forbidden: can't be changed, because what was made from the template wouldn't follow: "
	machinesRemedy  = "create a new LibvirtMachineTemplate and name it in the MachineDeployment or the control plane, which rolls out new machines"
	clustersRemedy  = "create a new LibvirtClusterTemplate and name it in the ClusterClass"
	dryRunAnnotated = clusterv1.TopologyDryRunAnnotation
)

func TestTemplateUpdate(t *testing.T) {
	moreCPUs := set("spec.template.spec.vcpus", "4")
	anotherMTU := set("spec.template.spec.network.mtu", "1420")
	for _, tt := range []struct {
		name     string
		template *unstructured.Unstructured
		edits    []edit
		options  []client.UpdateOption
		want     []string
	}{
		{name: "metadata of a cluster's template", template: clusterTemplate(t), edits: []edit{annotate("example.org/note")}},
		{name: "metadata of a machine's template", template: machineTemplate(t), edits: []edit{annotate("example.org/note")}},
		{name: "labels of the machines", template: machineTemplate(t), edits: []edit{set("spec.template.metadata", "{labels: {tier: web}}")}},
		{name: "the same in other words", template: machineTemplate(t), edits: []edit{set("spec.template.spec.memory", "4096Mi")}},

		{name: "a machine's template", template: machineTemplate(t), edits: []edit{moreCPUs}, want: []string{immutable + machinesRemedy}},
		{name: "a cluster's template", template: clusterTemplate(t), edits: []edit{anotherMTU}, want: []string{immutable + clustersRemedy}},
		{
			name: "a dry run of just anybody", template: machineTemplate(t), edits: []edit{moreCPUs},
			options: []client.UpdateOption{client.DryRunAll}, want: []string{immutable + machinesRemedy},
		},
		{
			name: "the topology controller's annotation without a dry run", template: machineTemplate(t),
			edits: []edit{moreCPUs, annotate(dryRunAnnotated)}, want: []string{immutable + machinesRemedy},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			check(t, api.Create(t.Context(), tt.template))
			check(t, api.Update(t.Context(), change(tt.template, tt.edits...), tt.options...), tt.want...)
		})
	}
}

// The topology controller applies a changed template as a dry run to learn whether it needs a new one.
func TestTemplateTopologyDryRun(t *testing.T) {
	for _, tt := range []struct {
		name     string
		template *unstructured.Unstructured
		edit     edit
		want     []string
	}{
		{name: "a machine's template", template: machineTemplate(t), edit: set("spec.template.spec.vcpus", "4")},
		{name: "a cluster's template", template: clusterTemplate(t), edit: set("spec.template.spec.network.mtu", "1420")},
		{
			name: "a template that could never be made", template: machineTemplate(t), edit: set("spec.template.spec.providerID", providerID),
			want: []string{"spec.template.spec.providerID: Forbidden: identifies the domain of one machine: remove it from the template"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			created := tt.template.DeepCopy()
			check(t, api.Create(t.Context(), created))
			changed := change(tt.template, tt.edit, annotate(dryRunAnnotated))
			err := api.Apply(t.Context(), client.ApplyConfigurationFromUnstructured(changed),
				client.DryRunAll, client.ForceOwnership, client.FieldOwner("capi-topology"))
			check(t, err, tt.want...)

			stored := created.DeepCopy()
			if err := api.Get(t.Context(), client.ObjectKeyFromObject(created), stored); err != nil {
				t.Fatal(err)
			}
			if stored.GetResourceVersion() != created.GetResourceVersion() {
				t.Error("the dry run changed the template")
			}
		})
	}
}
