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
	"net/netip"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/cluster-api/util/conditions"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/lab/privatehost"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/lab/quickstart"
)

var _ = Describe("A site by BGP", Ordered, func() {
	var internet *privatehost.Internet
	var bird *hostRouter

	BeforeAll(func(ctx SpecContext) {
		// With a single worker only one pod of the web workload finds a place: it wants two nodes.
		startLab(ctx, quickstart.Options{
			Name: "bgp", Flavor: "calico-bgp", ControlPlanes: 1, Workers: 1,
			Variables: map[string]string{
				"LIBVIRT_EXTERNAL_ADDRESS": siteAddress.String(), "LIBVIRT_API_EXTERNAL_ADDRESS": apiAddress.String(),
				"LIBVIRT_API_ALLOWED_CIDRS": "198.51.100.0/24",
				"INGRESS":                   "plain-nginx", "WEB_IMAGE": "registry.local/capl/nginx:v1",
			},
		})
		var err error
		internet, err = privatehost.ConnectInternet(ctx, lab.Host(), privatehost.InternetOptions{
			Router: router, Public: []netip.Addr{siteAddress, apiAddress}, Clients: []netip.Addr{allowed, other},
		})
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(func() { Expect(internet.Close()).To(Succeed()) })
		startAgent(lab.Host())
		bird = newRouter(lab.Host())
	}, NodeTimeout(75*time.Minute))

	It("keeps strangers from the router", func(ctx SpecContext) {
		// Somebody in the same data centre may know what is behind the host.
		Expect(internet.RouteToHost(ctx, netip.MustParsePrefix("10.100.0.0/24"), siteAddress)).To(Succeed())
		knock := func() error {
			connection, err := internet.Dial(ctx, other, "10.100.0.1:179")
			if err == nil {
				err = connection.Close()
			}
			return err
		}
		Eventually(knock).WithContext(ctx).WithTimeout(time.Minute).WithPolling(time.Second).Should(Succeed(), "without a firewall the router can be reached")
		command := lab.Host().Command(ctx, "nft", "-f", "-")
		command.Stdin = strings.NewReader(howTo("/etc/nftables.d/bgp.nft"))
		output, err := command.CombinedOutput()
		Expect(err).NotTo(HaveOccurred(), "%s", output)
		Expect(knock()).NotTo(Succeed())
		// The nodes have to get through to the next one.
		bird.stop()
		Expect(routesByBGP(ctx)).To(BeEmpty())
		bird.start()
	}, NodeTimeout(3*time.Minute))

	It("has a session with each node", func(ctx SpecContext) {
		started := time.Now()
		Eventually(func() int { return strings.Count(bird.ask(ctx, "show", "protocols"), "Established") }).
			WithContext(ctx).WithTimeout(5 * time.Minute).WithPolling(time.Second).Should(Equal(len(nodeAddresses(ctx))))
		GinkgoWriter.Printf("all sessions are established %s after the router's start\n", time.Since(started).Round(time.Millisecond))
	}, NodeTimeout(6*time.Minute))

	It("is reached through the host's routing table", func(ctx SpecContext) {
		expectRollout(ctx, "metallb-system", "deployment/controller")
		expectRollout(ctx, "nginx-ingress", "daemonset/plain-nginx")
		route := route{Destination: ingressAddress, Gateway: workerAddress(ctx), Protocol: "bird"}
		Eventually(routesByBGP).WithContext(ctx).WithTimeout(2 * time.Minute).WithPolling(time.Second).Should(ConsistOf(route))
		Expect(routeTo(ctx, ingressAddress)).To(HaveField("Gateway", route.Gateway))
		GinkgoWriter.Printf("%s\n", bird.ask(ctx, "show", "route", "all"))

		Eventually(askFromHost).
			WithContext(ctx).WithTimeout(15 * time.Minute).WithPolling(time.Second).Should(HavePrefix("web-"))
		Eventually(func(g Gomega) {
			var cluster infrav1.LibvirtCluster
			g.Expect(management.GetClient().Get(ctx, client.ObjectKey{Namespace: namespace, Name: clusterName}, &cluster)).To(Succeed())
			g.Expect(conditions.IsTrue(&cluster, infrav1.ClusterGatewayReadyCondition)).To(BeTrue(), "%+v", conditions.Get(&cluster, infrav1.ClusterGatewayReadyCondition))
		}).WithContext(ctx).WithTimeout(5 * time.Minute).WithPolling(time.Second).Should(Succeed())
		for _, from := range []netip.Addr{allowed, other} {
			pod, err := ask(ctx, internet, from)
			Expect(err).NotTo(HaveOccurred())
			Expect(pod).To(HavePrefix("web-"))
			Eventually(func() (string, error) {
				return kubectl(ctx, lab.ClusterKubeconfig(), "--namespace", "web", "logs", pod)
			}).WithContext(ctx).WithTimeout(time.Minute).WithPolling(time.Second).Should(ContainSubstring(from.String() + " by "))
		}
	}, NodeTimeout(50*time.Minute))

	It("is withdrawn with its last pod, and comes back with the next", func(ctx SpecContext) {
		steps := watchPods(ctx, "nginx-ingress")
		_, withdrawn := watchRoute(ctx, ingressAddress)
		place := func(patch string) {
			GinkgoHelper()
			_, err := kubectl(ctx, lab.ClusterKubeconfig(), "--namespace", "nginx-ingress", "patch", "daemonset", "plain-nginx", "--type", "merge",
				"--patch", `{"spec": {"template": {"spec": {"nodeSelector": `+patch+`}}}}`)
			Expect(err).NotTo(HaveOccurred())
		}
		asking, stop := context.WithCancel(ctx)
		defer stop()
		answered := keepAsking(asking)
		place(`{"no": "node"}`)
		var deleted, unrouted, gone time.Time
		Eventually(steps.deleted).WithContext(ctx).WithTimeout(2 * time.Minute).Should(Receive(&deleted))
		Eventually(withdrawn).WithContext(ctx).WithTimeout(time.Minute).Should(Receive(&unrouted))
		Expect(routesByBGP(ctx)).To(BeEmpty())
		Eventually(steps.gone).WithContext(ctx).WithTimeout(2 * time.Minute).Should(Receive(&gone))
		stop()
		last := answered()
		since := func(t time.Time) time.Duration { return t.Sub(deleted).Round(time.Millisecond) }
		GinkgoWriter.Printf("from the deletion of the last pod: its last answer after %s, the route withdrawn after %s, the pod gone after %s\n",
			since(last), since(unrouted), since(gone))
		Expect(unrouted).To(BeTemporally("<", last.Add(5*time.Second)), "the route led to nobody for too long")
		Expect(unrouted).To(BeTemporally("<", gone.Add(5*time.Second)))

		// What is left is the network that the address is in, where nobody has it.
		Expect(routeTo(ctx, ingressAddress)).To(HaveField("Gateway", BeEmpty()))
		_, err := ask(ctx, internet, other)
		Expect(err).To(HaveOccurred())

		learned, _ := watchRoute(ctx, ingressAddress)
		place("null")
		var ready, routed time.Time
		Eventually(steps.ready).WithContext(ctx).WithTimeout(10 * time.Minute).Should(Receive(&ready))
		Eventually(learned).WithContext(ctx).WithTimeout(time.Minute).Should(Receive(&routed))
		GinkgoWriter.Printf("the route is back %s after the next pod was ready\n", routed.Sub(ready).Round(time.Millisecond))
		Eventually(func() (string, error) { return ask(ctx, internet, other) }).
			WithContext(ctx).WithTimeout(time.Minute).WithPolling(time.Second).Should(HavePrefix("web-"))
	}, NodeTimeout(20*time.Minute))

	It("leaves nothing behind", func(ctx SpecContext) {
		deleteCluster(ctx)
		Eventually(routesByBGP).WithContext(ctx).WithTimeout(time.Minute).WithPolling(time.Second).Should(BeEmpty())
		Eventually(func() (string, error) {
			tables, err := lab.Host().Command(ctx, "nft", "list", "tables").CombinedOutput()
			return string(tables), err
		}).WithContext(ctx).WithTimeout(time.Minute).WithPolling(time.Second).ShouldNot(ContainSubstring("capl-"))
		removeAgent(ctx, lab.Host())
		expectNothingLeft(ctx, lab.Host())
	}, NodeTimeout(removeTimeout+2*time.Minute))
})

// workerAddress is that of the only node that isn't a control plane's.
func workerAddress(ctx context.Context) string {
	GinkgoHelper()
	var nodes corev1.NodeList
	Expect(clusterClient().List(ctx, &nodes)).To(Succeed())
	var workers []string
	for _, node := range nodes.Items {
		if _, controlPlane := node.Labels["node-role.kubernetes.io/control-plane"]; controlPlane {
			continue
		}
		for _, address := range node.Status.Addresses {
			if address.Type == corev1.NodeInternalIP {
				workers = append(workers, address.Address)
			}
		}
	}
	Expect(workers).To(HaveLen(1))
	return workers[0]
}
