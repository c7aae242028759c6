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
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/json"
	"sigs.k8s.io/yaml"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
)

// Manifests as users write them. The tests change one thing at a time.
const (
	hostSpec = `
uri: qemu+libssh2://root@203.0.113.11/system
credentialsRef: {name: kvm1}
failureDomain: kvm1
storage: {imagePool: default, diskPool: default, seedPool: capi-seeds}
reserved: {memory: 4Gi}
scheduling: Enabled
`
	clusterSpec = `
controlPlaneEndpoint: {host: 10.100.0.2, port: 6443}
hostSelector: {matchLabels: {site: home}}
network: {cidr: 10.100.0.0/25, ingressCIDR: 10.100.0.128/25, mtu: 1500}
`
	machineSpec = `
vcpus: 2
memory: 4Gi
image:
  url: https://images.example.org/node.qcow2
  checksum: sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
rootDisk: {size: 20Gi}
domainType: KVM
`
)

// An edit changes an object before it is sent.
type edit func(object map[string]any)

// set gives a field, named as in spec.network.cidr, a value in YAML.
func set(field, value string) edit {
	return func(object map[string]any) {
		if err := unstructured.SetNestedField(object, parse(value), strings.Split(field, ".")...); err != nil {
			panic(fmt.Sprintf("setting %s: %v", field, err))
		}
	}
}

// parse reads YAML into the types of the API machinery, which has integers where YAML has numbers.
func parse(value string) any {
	document, err := yaml.YAMLToJSON([]byte(value))
	if err != nil {
		panic(fmt.Sprintf("%s: %v", value, err))
	}
	var parsed any
	if err := json.Unmarshal(document, &parsed); err != nil {
		panic(fmt.Sprintf("%s: %v", value, err))
	}
	return parsed
}

// unset removes a field.
func unset(field string) edit {
	return func(object map[string]any) {
		unstructured.RemoveNestedField(object, strings.Split(field, ".")...)
	}
}

// annotate sets an annotation.
func annotate(name string) edit {
	return func(object map[string]any) {
		if err := unstructured.SetNestedField(object, "", "metadata", "annotations", name); err != nil {
			panic(err)
		}
	}
}

var count atomic.Int64

func object(t *testing.T, kind, spec string, edits ...edit) *unstructured.Unstructured {
	t.Helper()
	u := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": infrav1.GroupVersion.String(),
		"kind":       kind,
		"metadata":   map[string]any{"namespace": "default", "name": fmt.Sprintf("test-%d", count.Add(1))},
		"spec":       parse(spec),
	}}
	return change(u, edits...)
}

func change(u *unstructured.Unstructured, edits ...edit) *unstructured.Unstructured {
	u = u.DeepCopy()
	for _, apply := range edits {
		apply(u.Object)
	}
	return u
}

func host(t *testing.T, edits ...edit) *unstructured.Unstructured {
	t.Helper()
	return object(t, "LibvirtHost", hostSpec, edits...)
}

func cluster(t *testing.T, edits ...edit) *unstructured.Unstructured {
	t.Helper()
	return object(t, "LibvirtCluster", clusterSpec, edits...)
}

func machine(t *testing.T, edits ...edit) *unstructured.Unstructured {
	t.Helper()
	return object(t, "LibvirtMachine", machineSpec, edits...)
}

// template has the spec of a cluster or a machine as spec.template.spec.
func template(t *testing.T, kind, spec string, edits ...edit) *unstructured.Unstructured {
	t.Helper()
	indented := strings.ReplaceAll(strings.TrimSpace(spec), "\n", "\n    ")
	return object(t, kind, "template:\n  spec:\n    "+indented, edits...)
}

func clusterTemplate(t *testing.T, edits ...edit) *unstructured.Unstructured {
	t.Helper()
	return template(t, "LibvirtClusterTemplate", clusterSpec, edits...)
}

func machineTemplate(t *testing.T, edits ...edit) *unstructured.Unstructured {
	t.Helper()
	return template(t, "LibvirtMachineTemplate", machineSpec, edits...)
}
