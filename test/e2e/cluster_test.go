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
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/cluster-api/test/framework"
	"sigs.k8s.io/cluster-api/util/conditions"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/lab/quickstart"
)

var _ = Describe("A cluster on one host", Ordered, func() {
	BeforeAll(func(ctx SpecContext) {
		startLab(ctx, quickstart.Options{Name: "e2e", ControlPlanes: 1, Workers: 1})
	}, NodeTimeout(90*time.Minute))

	It("has a Node for every Machine, with one identity", func(ctx SpecContext) {
		framework.VerifyMachinesReady(ctx, framework.VerifyMachinesReadyInput{
			Lister: management.GetClient(), Name: clusterName, Namespace: namespace,
		})
		framework.VerifyClusterAvailable(ctx, framework.VerifyClusterAvailableInput{
			Getter: management.GetClient(), Name: clusterName, Namespace: namespace,
		})
		machines := framework.GetMachinesByCluster(ctx, framework.GetMachinesByClusterInput{
			Lister: management.GetClient(), ClusterName: clusterName, Namespace: namespace,
		})
		Expect(machines).To(HaveLen(2))
		for _, machine := range machines {
			Expect(machine.Status.NodeRef.Name).To(Equal(machine.Name))
			Expect(machine.Spec.ProviderID).To(HavePrefix(infrav1.ProviderIDPrefix))
			id, err := kubectl(ctx, lab.ClusterKubeconfig(), "get", "node", machine.Name, "--output", "jsonpath={.spec.providerID}")
			Expect(err).NotTo(HaveOccurred())
			Expect(id).To(Equal(machine.Spec.ProviderID))
			uuid := strings.TrimPrefix(machine.Spec.ProviderID, infrav1.ProviderIDPrefix)
			Expect(virsh(ctx, lab.Host(), "domstate", uuid)).To(ContainElement("running"))
		}
	}, NodeTimeout(10*time.Minute))

	It("reports itself well", func(ctx SpecContext) {
		var hosts infrav1.LibvirtHostList
		Expect(management.GetClient().List(ctx, &hosts, client.InNamespace(namespace))).To(Succeed())
		Expect(hosts.Items).To(HaveLen(1))
		Expect(conditions.IsTrue(&hosts.Items[0], infrav1.ReadyCondition)).To(BeTrue())
		Expect(hosts.Items[0].Status.Machines).To(HaveValue(BeEquivalentTo(2)))
		table, err := kubectl(ctx, lab.Kubeconfig(), "--namespace", namespace, "get", "libvirthosts,libvirtclusters,libvirtmachines,machines")
		Expect(err).NotTo(HaveOccurred())
		Expect(table).To(ContainSubstring("10.100.0.2"))
		Expect(table).To(ContainSubstring("Running"))
	}, NodeTimeout(time.Minute))

	It("connects pods across nodes, by address and by the name of a Service", func(ctx SpecContext) {
		var nodes corev1.NodeList
		Expect(clusterClient().List(ctx, &nodes)).To(Succeed())
		Expect(nodes.Items).To(HaveLen(2))
		expectPodsConnected(ctx, nodes.Items[0].Name, nodes.Items[1].Name)
	}, NodeTimeout(30*time.Minute))

	It("grows and shrinks by its MachineDeployment", func(ctx SpecContext) {
		for _, replicas := range []int32{2, 1} {
			scaleWorkers(ctx, replicas)
			Expect(virsh(ctx, lab.Host(), "list", "--name")).To(HaveLen(int(replicas) + 1))
		}
	}, NodeTimeout(joinTimeout+2*removeTimeout))

	It("leaves nothing behind", func(ctx SpecContext) {
		deleteCluster(ctx)
		expectNothingLeft(ctx, lab.Host())
	}, NodeTimeout(removeTimeout+time.Minute))
})
