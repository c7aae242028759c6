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

package controllers

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
)

func (s *scene) createTemplate(name string, edits ...func(*infrav1.LibvirtMachineTemplate)) *infrav1.LibvirtMachineTemplate {
	s.t.Helper()
	template := &infrav1.LibvirtMachineTemplate{ObjectMeta: s.meta(name, "")}
	template.Spec.Template.Spec = infrav1.LibvirtMachineSpec{
		VCPUs:    4,
		Memory:   resource.MustParse("6Gi"),
		Image:    infrav1.Image{Volume: imageVolume},
		RootDisk: infrav1.RootDisk{Size: resource.MustParse("30Gi")},
	}
	for _, edit := range edits {
		edit(template)
	}
	s.create(template)
	return template
}

// expectCapacity waits until a template tells what its machines will have.
func (s *scene) expectCapacity(template *infrav1.LibvirtMachineTemplate, cpu, memory, disk string) {
	s.t.Helper()
	want := infrav1.LibvirtMachineTemplateStatus{
		Capacity: corev1.ResourceList{
			"cpu": resource.MustParse(cpu), "memory": resource.MustParse(memory), "ephemeral-storage": resource.MustParse(disk),
		},
		NodeInfo: infrav1.NodeInfo{Architecture: "amd64", OperatingSystem: "linux"},
	}
	eventually(s.t, "LibvirtMachineTemplate "+template.Name+" has its capacity", func() error {
		s.refresh(template)
		if !equality.Semantic.DeepEqual(template.Status, want) {
			return fmt.Errorf("its status is %+v", template.Status)
		}
		return nil
	})
}

func (s *scene) expectNoCapacity(template *infrav1.LibvirtMachineTemplate) {
	s.t.Helper()
	staysSo(s.t, "LibvirtMachineTemplate "+template.Name+" has no status", func() error {
		s.refresh(template)
		if template.Status.Capacity != nil {
			return fmt.Errorf("it is %+v", template.Status)
		}
		return nil
	})
}

// TestTemplateCapacity looks at templates that nothing uses yet: there is neither a host nor a machine, nor a Cluster.
func TestTemplateCapacity(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.expectCapacity(s.createTemplate("large"), "4", "6Gi", "30Gi")
	s.expectCapacity(s.createTemplate("small", func(template *infrav1.LibvirtMachineTemplate) {
		template.Spec.Template.Spec.VCPUs = 1
		template.Spec.Template.Spec.Memory = resource.MustParse("1500M")
		template.Spec.Template.Spec.RootDisk.Size = resource.MustParse("5G")
	}), "1", "1500M", "5G")

	// Whoever wiped it, as a move to another management cluster does, gets it again.
	again := s.createTemplate("again")
	s.expectCapacity(again, "4", "6Gi", "30Gi")
	changeStatus(s, again, func(template *infrav1.LibvirtMachineTemplate) {
		template.Status = infrav1.LibvirtMachineTemplateStatus{}
	})
	s.expectCapacity(again, "4", "6Gi", "30Gi")
}

func TestTemplateCapacityIsPaused(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	template := s.createTemplate("paused", func(template *infrav1.LibvirtMachineTemplate) {
		setAnnotation(template, clusterv1.PausedAnnotation, "")
	})
	s.expectNoCapacity(template)
	change(s, template, func(template *infrav1.LibvirtMachineTemplate) {
		delete(template.Annotations, clusterv1.PausedAnnotation)
	})
	s.expectCapacity(template, "4", "6Gi", "30Gi")

	s.createCluster("still", "10.90.0.0/25")
	cluster := s.cluster("still")
	change(s, cluster, func(c *clusterv1.Cluster) { c.Spec.Paused = ptr.To(true) })
	owned := s.createTemplate("owned", func(template *infrav1.LibvirtMachineTemplate) {
		template.OwnerReferences = []metav1.OwnerReference{{
			APIVersion: clusterv1.GroupVersion.String(), Kind: "Cluster", Name: cluster.Name, UID: cluster.UID,
		}}
	})
	s.expectNoCapacity(owned)
	change(s, cluster, func(c *clusterv1.Cluster) { c.Spec.Paused = nil })
	s.expectCapacity(owned, "4", "6Gi", "30Gi")
}
