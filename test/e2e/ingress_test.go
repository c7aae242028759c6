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
	"os"
	"path/filepath"
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

// The host has two public addresses. Clients at allowed may use the API server, those at other may not.
var (
	siteAddress = netip.MustParseAddr("203.0.113.10")
	apiAddress  = netip.MustParseAddr("203.0.113.11")
	router      = netip.MustParsePrefix("203.0.113.1/24")
	allowed     = netip.MustParseAddr("198.51.100.7")
	other       = netip.MustParseAddr("192.0.2.9")
)

var _ = Describe("A site on a public address", Ordered, func() {
	var internet *privatehost.Internet

	BeforeAll(func(ctx SpecContext) {
		startLab(ctx, quickstart.Options{
			Name: "site", Flavor: "metallb-nginx", ControlPlanes: 1, Workers: 2,
			Variables: map[string]string{
				"LIBVIRT_EXTERNAL_ADDRESS": siteAddress.String(), "LIBVIRT_API_EXTERNAL_ADDRESS": apiAddress.String(),
				"LIBVIRT_API_ALLOWED_CIDRS": "198.51.100.0/24",
				"CNI":                       "none", "INGRESS": "plain-nginx", "WEB_IMAGE": "registry.local/capl/nginx:v1",
			},
			Change: siteManifests,
		})
		var err error
		internet, err = privatehost.ConnectInternet(ctx, lab.Host(), privatehost.InternetOptions{
			Router: router, Public: []netip.Addr{siteAddress, apiAddress}, Clients: []netip.Addr{allowed, other},
		})
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(func() { Expect(internet.Close()).To(Succeed()) })
		guardHost(ctx, lab.Host())
		startAgent(lab.Host())
	}, NodeTimeout(90*time.Minute))

	It("has a gateway that lets in what is declared", func(ctx SpecContext) {
		Eventually(func(g Gomega) {
			var cluster infrav1.LibvirtCluster
			g.Expect(management.GetClient().Get(ctx, client.ObjectKey{Namespace: namespace, Name: clusterName}, &cluster)).To(Succeed())
			g.Expect(conditions.IsTrue(&cluster, infrav1.ClusterGatewayReadyCondition)).To(BeTrue(), "%+v", conditions.Get(&cluster, infrav1.ClusterGatewayReadyCondition))
		}).WithContext(ctx).WithTimeout(5 * time.Minute).WithPolling(time.Second).Should(Succeed())
	}, NodeTimeout(6*time.Minute))

	It("answers everybody, and knows who asks", func(ctx SpecContext) {
		expectRollout(ctx, "metallb-system", "deployment/controller", "daemonset/speaker")
		expectRollout(ctx, "web", "deployment/web")
		expectRollout(ctx, "nginx-ingress", "daemonset/plain-nginx")
		for _, from := range []netip.Addr{allowed, other} {
			var pod string
			Eventually(func() (err error) {
				pod, err = ask(ctx, internet, from)
				return err
			}).WithContext(ctx).WithTimeout(5 * time.Minute).WithPolling(time.Second).Should(Succeed())
			Expect(pod).To(HavePrefix("web-"))
			Eventually(func() (string, error) {
				return kubectl(ctx, lab.ClusterKubeconfig(), "--namespace", "web", "logs", pod)
			}).WithContext(ctx).WithTimeout(time.Minute).WithPolling(time.Second).Should(ContainSubstring(from.String() + " by "))
		}
	}, NodeTimeout(40*time.Minute))

	It("lets kubectl in from listed networks only", func(ctx SpecContext) {
		var secret corev1.Secret
		Expect(management.GetClient().Get(ctx, client.ObjectKey{Namespace: namespace, Name: clusterName + "-kubeconfig-external"}, &secret)).To(Succeed())
		kubeconfig := filepath.Join(GinkgoT().TempDir(), "kubeconfig")
		Expect(os.WriteFile(kubeconfig, secret.Data["value"], 0o600)).To(Succeed())
		nodes := func(as netip.Addr) (string, error) {
			Expect(internet.SpeakAs(ctx, as)).To(Succeed())
			output, err := internet.Command(ctx, filepath.Join(lab.BinDir(), "kubectl"), "--kubeconfig", kubeconfig,
				"get", "nodes", "--request-timeout", "20s").CombinedOutput()
			GinkgoWriter.Printf("%s$ kubectl get nodes\n%s\n", as, output)
			return string(output), err
		}
		Eventually(func(g Gomega) {
			table, err := nodes(allowed)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(strings.Count(table, " Ready ")).To(Equal(3))
		}).WithContext(ctx).WithTimeout(3 * time.Minute).WithPolling(5 * time.Second).Should(Succeed())
		_, err := nodes(other)
		Expect(err).To(HaveOccurred())
		_, err = internet.Dial(ctx, other, netip.AddrPortFrom(apiAddress, 6443).String())
		Expect(err).To(HaveOccurred())
	}, NodeTimeout(5*time.Minute))

	It("shows the internet nothing else", func(ctx SpecContext) {
		open := func(client, target netip.Addr) []uint16 {
			ports, err := internet.Scan(ctx, client, target, 2*time.Second)
			Expect(err).NotTo(HaveOccurred())
			GinkgoWriter.Printf("%s finds open at %s: %v\n", client, target, ports)
			return ports
		}
		Expect(open(allowed, siteAddress)).To(ConsistOf(uint16(80), uint16(443)))
		Expect(open(other, siteAddress)).To(ConsistOf(uint16(80), uint16(443)))
		Expect(open(allowed, apiAddress)).To(ConsistOf(uint16(6443)))
		Expect(open(other, apiAddress)).To(BeEmpty())
		// Somebody in the same data centre may know what is behind the host.
		Expect(internet.RouteToHost(ctx, netip.MustParsePrefix("10.100.0.0/24"), siteAddress)).To(Succeed())
		for _, target := range append(nodeAddresses(ctx), "10.100.0.1", "10.100.0.2", "10.100.0.129", ingressAddress) {
			Expect(open(allowed, netip.MustParseAddr(target))).To(BeEmpty(), target)
		}
	}, NodeTimeout(15*time.Minute))

	It("goes on without the node that answered for its address", func(ctx SpecContext) {
		victim := answering(ctx)
		pods, err := kubectl(ctx, lab.ClusterKubeconfig(), "--namespace", "web", "get", "pods", "--output", "wide")
		Expect(err).NotTo(HaveOccurred())
		Expect(pods).To(ContainSubstring(victim.Name), "no replica runs on it")
		virsh(ctx, lab.Host(), "destroy", victim.Status.Domain.Name)
		destroyed := time.Now()
		for { // how long the outage really is
			short, cancel := context.WithTimeout(ctx, time.Second)
			_, err := ask(short, internet, other)
			cancel()
			if after := time.Since(destroyed); err == nil || after > 15*time.Second {
				GinkgoWriter.Printf("%s after the node was destroyed: %v\n", after.Round(time.Millisecond), err)
				break
			}
		}
		time.Sleep(time.Until(destroyed.Add(15 * time.Second)))
		expectRequests(ctx, internet, 500)
	}, NodeTimeout(20*time.Minute))

	It("leaves nothing behind", func(ctx SpecContext) {
		deleteCluster(ctx)
		Eventually(func() (string, error) {
			tables, err := lab.Host().Command(ctx, "nft", "list", "tables").CombinedOutput()
			return string(tables), err
		}).WithContext(ctx).WithTimeout(time.Minute).WithPolling(time.Second).ShouldNot(ContainSubstring("capl-"))
		removeAgent(ctx, lab.Host())
		expectNothingLeft(ctx, lab.Host())
	}, NodeTimeout(removeTimeout+2*time.Minute))
})
