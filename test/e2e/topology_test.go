//go:build e2e

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

package e2e

import (
	"context"
	"encoding/json"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/utils/ptr"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/lab/quickstart"
)

var _ = Describe("A cluster of the ClusterClass", Ordered, func() {
	BeforeAll(func(ctx SpecContext) {
		startLab(ctx, quickstart.Options{
			Name: "classy", Flavor: "topology", ControlPlanes: 1, Workers: 1,
			Variables: map[string]string{"CNI": "none"}, Change: bridgePods,
		})
	}, NodeTimeout(90*time.Minute))

	It("is what its topology says", func(ctx SpecContext) {
		var cluster clusterv1.Cluster
		Expect(management.GetClient().Get(ctx, client.ObjectKey{Namespace: namespace, Name: clusterName}, &cluster)).To(Succeed())
		Expect(cluster.Spec.Topology.ClassRef.Name).To(Equal("libvirt"))
		Expect(cluster.Status.Conditions).To(ContainElement(SatisfyAll(
			HaveField("Type", clusterv1.ClusterTopologyReconciledCondition), HaveField("Status", BeEquivalentTo("True")))))
		var templates infrav1.LibvirtMachineTemplateList
		Expect(management.GetClient().List(ctx, &templates, client.InNamespace(namespace), client.MatchingLabels{clusterv1.ClusterNameLabel: clusterName})).To(Succeed())
		Expect(templates.Items).To(HaveLen(2))
		for _, template := range templates.Items {
			Expect(template.Status.Capacity).To(HaveKey(corev1.ResourceMemory))
		}
	}, NodeTimeout(time.Minute))

	It("grows and shrinks by its topology", func(ctx SpecContext) {
		for _, replicas := range []int32{2, 1} {
			changeTopology(ctx, func(topology *clusterv1.Topology) {
				topology.Workers.MachineDeployments[0].Replicas = ptr.To(replicas)
			})
			Eventually(func(g Gomega) {
				expectNodes(ctx, g, int(replicas)+1)
				g.Expect(virsh(ctx, lab.Host(), "list", "--name")).To(HaveLen(int(replicas) + 1))
			}).WithContext(ctx).WithTimeout(joinTimeout).WithPolling(3 * time.Second).Should(Succeed())
		}
	}, NodeTimeout(2*joinTimeout+time.Minute))

	It("rolls its workers when a variable changes their template", func(ctx SpecContext) {
		_, before := machinesByHost(ctx)
		Expect(before["kvm1"]).To(HaveLen(1))
		old := before["kvm1"][0]
		changeTopology(ctx, func(topology *clusterv1.Topology) {
			for i := range topology.Variables {
				if variable := &topology.Variables[i]; variable.Name == "worker" {
					value := map[string]any{}
					Expect(json.Unmarshal(variable.Value.Raw, &value)).To(Succeed())
					value["memory"] = "1800Mi"
					raw, err := json.Marshal(value)
					Expect(err).NotTo(HaveOccurred())
					variable.Value = apiextensionsv1.JSON{Raw: raw}
				}
			}
		})
		Eventually(func(g Gomega) {
			_, workers := machinesByHost(ctx)
			g.Expect(workers["kvm1"]).To(HaveLen(1))
			g.Expect(workers["kvm1"][0].Name).NotTo(Equal(old.Name))
			g.Expect(workers["kvm1"][0].Spec.Memory.Cmp(resource.MustParse("1800Mi"))).To(BeZero())
			expectNodes(ctx, g, 2)
		}).WithContext(ctx).WithTimeout(joinTimeout).WithPolling(3 * time.Second).Should(Succeed())
		Expect(virsh(ctx, lab.Host(), "list", "--all", "--name")).To(HaveLen(2))
		Eventually(func(g Gomega) {
			var templates infrav1.LibvirtMachineTemplateList
			g.Expect(management.GetClient().List(ctx, &templates, client.InNamespace(namespace), client.MatchingLabels{clusterv1.ClusterNameLabel: clusterName})).To(Succeed())
			g.Expect(templates.Items).To(ContainElement(HaveField("Spec.Template.Spec.Memory", WithTransform(
				func(q resource.Quantity) string { return q.String() }, Equal("1800Mi")))))
		}).WithContext(ctx).WithTimeout(time.Minute).WithPolling(time.Second).Should(Succeed())
	}, NodeTimeout(joinTimeout+2*time.Minute))

	It("leaves nothing behind", func(ctx SpecContext) {
		deleteCluster(ctx)
		expectNothingLeft(ctx, lab.Host())
	}, NodeTimeout(removeTimeout+time.Minute))
})

// changeTopology changes the topology of the cluster.
func changeTopology(ctx context.Context, edit func(*clusterv1.Topology)) {
	GinkgoHelper()
	cluster := &clusterv1.Cluster{}
	Expect(management.GetClient().Get(ctx, client.ObjectKey{Namespace: namespace, Name: clusterName}, cluster)).To(Succeed())
	before := cluster.DeepCopy()
	edit(&cluster.Spec.Topology)
	Expect(management.GetClient().Patch(ctx, cluster, client.MergeFrom(before))).To(Succeed())
}

// expectNodes checks that the cluster has that many nodes and all of them are Ready.
func expectNodes(ctx context.Context, g Gomega, count int) {
	var nodes corev1.NodeList
	g.Expect(clusterClient().List(ctx, &nodes)).To(Succeed())
	g.Expect(nodes.Items).To(HaveLen(count))
	for _, node := range nodes.Items {
		g.Expect(node.Status.Conditions).To(ContainElement(SatisfyAll(
			HaveField("Type", corev1.NodeReady), HaveField("Status", corev1.ConditionTrue))), node.Name)
	}
}
