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
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/cluster-api/util/conditions"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/lab/quickstart"
)

// cutFor is how long the link between the sites is cut.
const cutFor = time.Minute

var _ = Describe("A cluster on two sites", Ordered, ContinueOnFailure, func() {
	// The pods of netcheck, one on each site.
	var pods [2]*corev1.Pod

	BeforeAll(func(ctx SpecContext) {
		startLab(ctx, quickstart.Options{
			Name: "sites", Flavor: "two-sites", Hosts: len(sites), Connect: connectSites, Declare: declareSite,
			ControlPlanes: 1, Workers: firstSiteWorkers(), Others: 1,
		})
	}, NodeTimeout(60*time.Minute))

	It("has its control plane on the first site, a worker on the second, and a link", func(ctx SpecContext) {
		expectLinked(ctx)
		var cluster infrav1.LibvirtCluster
		Expect(management.GetClient().Get(ctx, client.ObjectKey{Namespace: namespace, Name: clusterName}, &cluster)).To(Succeed())
		Expect(cluster.Status.FailureDomains).To(ConsistOf(
			SatisfyAll(HaveField("Name", "kvm1"), HaveField("ControlPlane", HaveValue(BeTrue()))),
			SatisfyAll(HaveField("Name", "kvm2"), HaveField("ControlPlane", HaveValue(BeFalse())))))
		controlPlane, _ := machinesByHost(ctx)
		Expect(controlPlane).To(SatisfyAll(HaveLen(1), HaveKey("kvm1")))
		Expect(sites[0].machine(ctx).Spec.Address).To(HavePrefix("10.100.0."))
		second := sites[1].machine(ctx)
		Expect(second.Spec.Address).To(HavePrefix("10.100.1."))
		labels, err := kubectl(ctx, lab.ClusterKubeconfig(), "get", "node", second.Name, "--output", "jsonpath={.metadata.labels}")
		Expect(err).NotTo(HaveOccurred())
		Expect(labels).To(ContainSubstring(`"node.cluster.x-k8s.io/failure-domain":"kvm2"`))
		for _, site := range sites {
			mtus := inGuest(ctx, site.machine(ctx), "cat /sys/class/net/eth0/mtu /sys/class/net/vxlan.calico/mtu")
			Expect(strings.Fields(mtus)).To(Equal([]string{"1420", "1370"}))
		}
		pods = startOnSites(ctx)
	}, NodeTimeout(15*time.Minute))

	for _, state := range []string{"on", "off"} {
		It("carries what pods send, whatever its length, with offloads "+state, func(ctx SpecContext) {
			for _, site := range sites {
				setOffloads(ctx, site.machine(ctx), state, "eth0", "vxlan.calico")
			}
			before := countOnSites(ctx)
			expectAllLengths(ctx, pods[0], pods[1])
			expectAllLengths(ctx, pods[1], pods[0])
			expectLargeAnswers(ctx, pods)
			for where, now := range countOnSites(ctx) {
				grown := now.since(before[where])
				GinkgoWriter.Printf("with offloads %s, %s: %v\n", state, where, grown)
				Expect(grown).To(SatisfyAll(HaveKeyWithValue("IpFragFails", BeZero()), HaveKeyWithValue("IpReasmFails", BeZero())), where)
				if strings.HasPrefix(where, "host ") {
					Expect(grown).To(HaveKeyWithValue("IpFragCreates", BeZero()), where)
				}
			}
		}, NodeTimeout(20*time.Minute))
	}

	It("loses packets without a word to TCP, with the settings of 2019", func(ctx SpecContext) {
		expectTrap(ctx)
	}, NodeTimeout(20*time.Minute))

	It("goes on while its hosts change their keys", func(ctx SpecContext) {
		expectNoBreakByNewKeys(ctx, pods)
	}, NodeTimeout(10*time.Minute))

	It("loses nothing when the link is cut", func(ctx SpecContext) {
		before, node := identities(ctx), sites[1].machine(ctx).Name
		Expect(internet.Cut(ctx)).To(Succeed())
		cut := time.Now()
		expectNode(ctx, node, false, 2*time.Minute)
		GinkgoWriter.Printf("%s is NotReady %s after the cut\n", node, time.Since(cut).Round(time.Second))
		Eventually(linkCondition).WithContext(ctx).WithTimeout(time.Minute).WithPolling(time.Second).Should(HaveField("Status", BeEquivalentTo("False")))
		time.Sleep(time.Until(cut.Add(cutFor)))
		Expect(internet.Mend(ctx)).To(Succeed())
		expectRecovery(ctx, before, node, time.Now())
		expectTransfer(ctx, pods[0], pods[1])
	}, NodeTimeout(15*time.Minute))

	It("loses nothing when the host of the second site starts anew", func(ctx SpecContext) {
		before, node := identities(ctx), sites[1].machine(ctx).Name
		sites[1].stop(ctx)
		expectNode(ctx, node, false, 2*time.Minute)
		sites[1].start(ctx)
		expectRecovery(ctx, before, node, time.Now())
		for i := range pods {
			waitForPod(ctx, pods[i])
		}
		expectTransfer(ctx, pods[0], pods[1])
		expectTransfer(ctx, pods[1], pods[0])
	}, NodeTimeout(25*time.Minute))

	It("leaves nothing behind", func(ctx SpecContext) {
		deleteCluster(ctx)
		for _, site := range sites {
			Eventually(func() (string, error) {
				found, err := site.host.Command(ctx, "sh", "-c", "nft list tables; ip -oneline link; ip route").CombinedOutput()
				return string(found), err
			}).WithContext(ctx).WithTimeout(time.Minute).WithPolling(time.Second).ShouldNot(MatchRegexp(`inet capl-|capl-wg|10\.100\.`))
			site.removeAgent(ctx)
			expectNothingLeft(ctx, site.host)
		}
	}, NodeTimeout(removeTimeout+2*time.Minute))
})

// linkCondition is SitesLinked of the cluster.
func linkCondition(ctx context.Context) (any, error) {
	var cluster infrav1.LibvirtCluster
	if err := management.GetClient().Get(ctx, client.ObjectKey{Namespace: namespace, Name: clusterName}, &cluster); err != nil {
		return nil, err
	}
	return conditions.Get(&cluster, infrav1.ClusterSitesLinkedCondition), nil
}

func expectLinked(ctx context.Context) {
	GinkgoHelper()
	Eventually(linkCondition).WithContext(ctx).WithTimeout(5 * time.Minute).WithPolling(time.Second).Should(
		SatisfyAll(HaveField("Status", BeEquivalentTo("True")), HaveField("Reason", infrav1.ClusterSitesLinkedReason)))
}

// identities are the UIDs of all Machines, LibvirtMachines, Nodes and of the pods that the test made, by name, and when
// they are to be deleted.
func identities(ctx context.Context) string {
	GinkgoHelper()
	const format = `jsonpath={range .items[*]}{.kind} {.metadata.name} {.metadata.uid} {.metadata.deletionTimestamp}{"\n"}{end}`
	machines, err := kubectl(ctx, lab.Kubeconfig(), "--namespace", namespace, "get", "machines,libvirtmachines", "--output", format)
	Expect(err).NotTo(HaveOccurred())
	nodes, err := kubectl(ctx, lab.ClusterKubeconfig(), "get", "nodes", "--output", format)
	Expect(err).NotTo(HaveOccurred())
	pods, err := kubectl(ctx, lab.ClusterKubeconfig(), "get", "pods", "--selector", "app=netcheck", "--output", format)
	Expect(err).NotTo(HaveOccurred())
	return machines + nodes + pods
}

// expectNode waits until a Node is Ready, or isn't.
func expectNode(ctx context.Context, name string, ready bool, within time.Duration) {
	GinkgoHelper()
	Eventually(func(g Gomega) {
		node := &corev1.Node{}
		g.Expect(clusterClient().Get(ctx, client.ObjectKey{Name: name}, node)).To(Succeed())
		status := corev1.ConditionUnknown
		for _, condition := range node.Status.Conditions {
			if condition.Type == corev1.NodeReady {
				status = condition.Status
			}
		}
		g.Expect(status == corev1.ConditionTrue).To(Equal(ready), "Ready is %s", status)
	}).WithContext(ctx).WithTimeout(within).WithPolling(time.Second).Should(Succeed())
}

// expectRecovery waits until all is as it was, by itself, and tells how long that took.
func expectRecovery(ctx context.Context, before, node string, since time.Time) {
	GinkgoHelper()
	expectLinked(ctx)
	GinkgoWriter.Printf("the sites are linked after %s\n", time.Since(since).Round(time.Second))
	expectNode(ctx, node, true, 15*time.Minute)
	GinkgoWriter.Printf("%s is Ready after %s\n", node, time.Since(since).Round(time.Second))
	Expect(identities(ctx)).To(Equal(before))
}
