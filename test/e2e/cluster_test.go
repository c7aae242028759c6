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
	"net"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/cluster-api/test/framework"
	"sigs.k8s.io/cluster-api/util/conditions"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
)

var _ = Describe("A cluster", Ordered, func() {
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
			Expect(virsh(ctx, "domstate", uuid)).To(ContainElement("running"))
		}
	}, SpecTimeout(10*time.Minute))

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
	}, SpecTimeout(time.Minute))

	It("connects pods across nodes, by address and by the name of a Service", func(ctx SpecContext) {
		var nodes corev1.NodeList
		Expect(clusterClient().List(ctx, &nodes)).To(Succeed())
		Expect(nodes.Items).To(HaveLen(2))
		Expect(clusterClient().Create(ctx, netcheckService())).To(Succeed())
		for i := range nodes.Items {
			Expect(clusterClient().Create(ctx, netcheckPod(i, nodes.Items[i].Name))).To(Succeed())
		}
		pods := make([]corev1.Pod, len(nodes.Items))
		for i := range pods {
			Eventually(func(g Gomega, ctx SpecContext) {
				g.Expect(clusterClient().Get(ctx, client.ObjectKey{Namespace: "default", Name: netcheckName(i)}, &pods[i])).To(Succeed())
				g.Expect(pods[i].Status.Phase).To(Equal(corev1.PodRunning))
				g.Expect(pods[i].Status.PodIP).NotTo(BeEmpty())
			}).WithContext(ctx).WithTimeout(10 * time.Minute).WithPolling(2 * time.Second).Should(Succeed())
		}
		get := func(from int, url string) {
			GinkgoHelper()
			Eventually(func(ctx SpecContext) (string, error) {
				return kubectl(ctx, lab.ClusterKubeconfig(), "exec", netcheckName(from), "--", "/netcheck", "get", "-timeout", "30s", url)
			}).WithContext(ctx).WithTimeout(5 * time.Minute).WithPolling(5 * time.Second).Should(ContainSubstring("netcheck-"))
		}
		get(0, "http://"+net.JoinHostPort(pods[1].Status.PodIP, "8080")+"/")
		get(1, "http://"+net.JoinHostPort(pods[0].Status.PodIP, "8080")+"/")
		get(0, "http://netcheck.default.svc.cluster.local:8080/")
		get(1, "http://netcheck:8080/")
		for i := range pods {
			Expect(clusterClient().Delete(ctx, &pods[i], client.GracePeriodSeconds(0))).To(Succeed())
		}
	}, SpecTimeout(30*time.Minute))

	It("grows and shrinks by its MachineDeployment", func(ctx SpecContext) {
		var cluster clusterv1.Cluster
		Expect(management.GetClient().Get(ctx, client.ObjectKey{Namespace: namespace, Name: clusterName}, &cluster)).To(Succeed())
		for _, replicas := range []int32{2, 1} {
			deployments := framework.GetMachineDeploymentsByCluster(ctx, framework.GetMachineDeploymentsByClusterInput{
				Lister: management.GetClient(), ClusterName: clusterName, Namespace: namespace,
			})
			Expect(deployments).To(HaveLen(1))
			framework.ScaleAndWaitMachineDeployment(ctx, framework.ScaleAndWaitMachineDeploymentInput{
				ClusterProxy: management, Cluster: &cluster, MachineDeployment: deployments[0], Replicas: replicas,
				WaitForMachineDeployments: []any{joinTimeout, 3 * time.Second},
			})
			Eventually(func(g Gomega, ctx SpecContext) {
				var nodes corev1.NodeList
				g.Expect(clusterClient().List(ctx, &nodes)).To(Succeed())
				g.Expect(nodes.Items).To(HaveLen(int(replicas) + 1))
				g.Expect(virsh(ctx, "list", "--name")).To(HaveLen(int(replicas) + 1))
			}).WithContext(ctx).WithTimeout(removeTimeout).WithPolling(3 * time.Second).Should(Succeed())
		}
	}, SpecTimeout(joinTimeout+2*removeTimeout))

	It("leaves nothing behind", func(ctx SpecContext) {
		cluster := &clusterv1.Cluster{}
		cluster.Namespace, cluster.Name = namespace, clusterName
		framework.DeleteCluster(ctx, framework.DeleteClusterInput{Deleter: management.GetClient(), Cluster: cluster})
		Eventually(func(ctx SpecContext) bool {
			return apierrors.IsNotFound(management.GetClient().Get(ctx, client.ObjectKeyFromObject(cluster), cluster))
		}).WithContext(ctx).WithTimeout(removeTimeout).WithPolling(2 * time.Second).Should(BeTrue())
		Expect(virsh(ctx, "list", "--all", "--name")).To(BeEmpty())
		Expect(virsh(ctx, "net-list", "--all", "--name")).To(BeEmpty())
		Expect(virsh(ctx, "vol-list", "capi-seeds")).To(ConsistOf("Name", "Path", HavePrefix("---")))
		for _, word := range virsh(ctx, "vol-list", "default") {
			// Images stay: the next cluster finds them.
			Expect(word).NotTo(ContainSubstring("capl-"))
		}
	}, SpecTimeout(removeTimeout+time.Minute))
})
