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
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
)

const (
	// linkMTU is what the link carries, and podMTU what is left of it for pods: VXLAN adds 50 bytes.
	linkMTU = 1420
	podMTU  = linkMTU - 50

	// Of a packet that a ping makes, so much is headers: IP's and ICMP's.
	pingHeaders = 20 + 8

	// transfer is what a TCP connection has to carry, in bytes.
	transfer = 10 << 20
)

// startOnSites starts a pod of netcheck on each site.
func startOnSites(ctx context.Context) (pods [2]*corev1.Pod) {
	GinkgoHelper()
	for i, site := range sites {
		pods[i] = netcheckPod(i, site.machine(ctx).Name)
		Expect(clusterClient().Create(ctx, pods[i])).To(Succeed())
	}
	for i := range pods {
		waitForPod(ctx, pods[i])
	}
	return pods
}

// waitForPod waits until a pod is ready, and reads it.
func waitForPod(ctx context.Context, pod *corev1.Pod) {
	GinkgoHelper()
	Eventually(func(g Gomega) {
		g.Expect(clusterClient().Get(ctx, client.ObjectKeyFromObject(pod), pod)).To(Succeed())
		g.Expect(pod.Status.PodIP).NotTo(BeEmpty())
		g.Expect(pod.Status.Conditions).To(ContainElement(SatisfyAll(
			HaveField("Type", corev1.PodReady), HaveField("Status", corev1.ConditionTrue))))
	}).WithContext(ctx).WithTimeout(10 * time.Minute).WithPolling(2 * time.Second).Should(Succeed())
}

// netcheck runs a command of netcheck in a pod.
func netcheck(ctx context.Context, pod *corev1.Pod, args ...string) (string, error) {
	return kubectl(ctx, lab.ClusterKubeconfig(), append([]string{"exec", pod.Name, "--", "/netcheck"}, args...)...)
}

// expectAllLengths has a pod send the other one packets of all lengths. What is too long is refused where it is sent.
func expectAllLengths(ctx context.Context, from, to *corev1.Pod) {
	GinkgoHelper()
	By("pings from " + from.Name + " that nobody may fragment")
	Eventually(func() error {
		// The first one may wait for neighbours to be found, on a slow machine longer than it waits.
		_, err := netcheck(ctx, from, "ping", "-size", strconv.Itoa(podMTU-pingHeaders), to.Status.PodIP)
		return err
	}).WithContext(ctx).WithTimeout(time.Minute).WithPolling(time.Second).Should(Succeed())
	output, err := netcheck(ctx, from, "ping", "-size", strconv.Itoa(podMTU-pingHeaders+1), to.Status.PodIP)
	Expect(err).To(HaveOccurred())
	Expect(strings.Count(output, "message too long")).To(Equal(3), "it must be told, and at once")
	By("10 MB of TCP from " + from.Name)
	expectTransfer(ctx, from, to)
	By("datagrams of 1300 to 1500 bytes from " + from.Name)
	_, err = netcheck(ctx, from, "udp", "-from", "1300", "-to", "1500", addressOf(to))
	Expect(err).NotTo(HaveOccurred())
}

// expectTransfer sends 10 MB from one pod to another by TCP.
func expectTransfer(ctx context.Context, from, to *corev1.Pod) {
	GinkgoHelper()
	output, err := netcheck(ctx, from, "put", "-timeout", "2m", "-bytes", strconv.Itoa(transfer), "http://"+addressOf(to)+"/bytes")
	Expect(err).NotTo(HaveOccurred())
	Expect(output).To(ContainSubstring(fmt.Sprintf("%d bytes", transfer)))
}

func addressOf(pod *corev1.Pod) string { return net.JoinHostPort(pod.Status.PodIP, "8080") }

// manyAddresses of a Service make an answer of DNS that needs TCP and several packets.
const manyAddresses = 100

// expectLargeAnswers has the pod on the other site ask a pod of CoreDNS, by TCP.
func expectLargeAnswers(ctx context.Context, pods [2]*corev1.Pod) {
	GinkgoHelper()
	By("a large answer of DNS by TCP")
	c := clusterClient()
	meta := metav1.ObjectMeta{Namespace: "default", Name: "many", Labels: map[string]string{discoveryv1.LabelServiceName: "many"}}
	service := &corev1.Service{ObjectMeta: meta, Spec: corev1.ServiceSpec{ClusterIP: corev1.ClusterIPNone, Ports: []corev1.ServicePort{{Port: 80}}}}
	slice := &discoveryv1.EndpointSlice{ObjectMeta: meta, AddressType: discoveryv1.AddressTypeIPv4, Ports: []discoveryv1.EndpointPort{{Port: ptr.To[int32](80)}}}
	for i := range manyAddresses {
		slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{Addresses: []string{fmt.Sprintf("192.0.2.%d", i+1)}})
	}
	Expect(client.IgnoreAlreadyExists(c.Create(ctx, service))).To(Succeed())
	Expect(client.IgnoreAlreadyExists(c.Create(ctx, slice))).To(Succeed())

	var servers corev1.PodList
	Expect(c.List(ctx, &servers, client.InNamespace(metav1.NamespaceSystem), client.MatchingLabels{"k8s-app": "kube-dns"})).To(Succeed())
	Expect(servers.Items).NotTo(BeEmpty())
	server, asks := servers.Items[0], pods[0]
	if server.Spec.NodeName == asks.Spec.NodeName {
		asks = pods[1]
	}
	Eventually(func() (string, error) {
		return netcheck(ctx, asks, "dns", "-server", net.JoinHostPort(server.Status.PodIP, "53"), "many.default.svc.cluster.local.")
	}).WithContext(ctx).WithTimeout(2 * time.Minute).WithPolling(time.Second).Should(ContainSubstring("%d addresses", manyAddresses))
}

// setOffloads turns what interfaces of a guest do for the kernel on or off.
func setOffloads(ctx context.Context, machine *infrav1.LibvirtMachine, state string, interfaces ...string) {
	GinkgoHelper()
	for _, name := range interfaces {
		inGuest(ctx, machine, fmt.Sprintf("ethtool -K %[1]s tx %[2]s tso %[2]s gso %[2]s gro %[2]s >/dev/null 2>&1;"+
			" ethtool -k %[1]s | grep -E '^(tx-checksumming|tcp-segmentation-offload|generic-segmentation-offload|generic-receive-offload): %[2]s' | wc -l | grep -qx 4",
			name, state))
	}
}

// countOnSites counts in all network namespaces that a packet from pod to pod passes.
func countOnSites(ctx context.Context) map[string]counters {
	GinkgoHelper()
	found := map[string]counters{}
	for _, site := range sites {
		output, err := site.host.Command(ctx, "cat", "/proc/self/net/snmp").Output()
		Expect(err).NotTo(HaveOccurred())
		found["host "+site.name] = readCounters(string(output))
		machine := site.machine(ctx)
		found["node "+machine.Name] = countInGuest(ctx, machine, "cat /proc/net/snmp")
		found["pod on "+machine.Name] = countInGuest(ctx, machine, "cat /proc/$(pidof -s netcheck)/net/snmp")
	}
	return found
}

// longestBreak is for how long a change of keys may keep packets from coming through.
const longestBreak = time.Second

// expectNoBreakByNewKeys changes the keys of both hosts while a pod on one site pings one on the other. Emulated machines
// take their time to answer without that, too.
func expectNoBreakByNewKeys(ctx context.Context, pods [2]*corev1.Pod) {
	GinkgoHelper()
	quiet := longestSilence(ctx, pods, 100)
	ended := make(chan time.Duration, 1)
	go func() {
		defer GinkgoRecover()
		defer close(ended)
		ended <- longestSilence(ctx, pods, 500)
	}()
	for _, site := range sites {
		host := libvirtHost(site.name)
		Expect(management.GetClient().Get(ctx, client.ObjectKeyFromObject(host), host)).To(Succeed())
		before := host.Status.WireGuard.PublicKey
		began := time.Now()
		output, err := site.command(ctx, "rotate-key").CombinedOutput()
		Expect(err).NotTo(HaveOccurred(), "%s", output)
		Eventually(func(g Gomega) {
			g.Expect(management.GetClient().Get(ctx, client.ObjectKeyFromObject(host), host)).To(Succeed())
			g.Expect(host.Status.WireGuard.PublicKey).NotTo(Equal(before))
			g.Expect(host.Status.WireGuard.NextPublicKey).To(BeEmpty())
		}).WithContext(ctx).WithTimeout(2 * time.Minute).WithPolling(200 * time.Millisecond).Should(Succeed())
		GinkgoWriter.Printf("%s has a new key after %s\n", site.name, time.Since(began).Round(time.Millisecond))
		Consistently(ended).WithTimeout(100*time.Millisecond).ShouldNot(Receive(), "the pings ended before the keys were changed")
	}
	var silence time.Duration
	Eventually(ended).WithContext(ctx).WithTimeout(5 * time.Minute).Should(Receive(&silence))
	GinkgoWriter.Printf("the longest time without an answer is %s, and %s while keys are changed\n", quiet, silence)
	Expect(silence - quiet).To(BeNumerically("<=", longestBreak))
	expectLinked(ctx)
}

// longestSilence is the longest time between two answers to pings from the first pod to the second.
func longestSilence(ctx context.Context, pods [2]*corev1.Pod, count int) time.Duration {
	GinkgoHelper()
	// It fails when a single one isn't answered.
	output, _ := netcheck(ctx, pods[0], "ping", "-count", strconv.Itoa(count), "-wait", "300ms", "-interval", "100ms", pods[1].Status.PodIP)
	_, text, found := strings.Cut(output, "the longest time without an answer was ")
	Expect(found).To(BeTrue(), output)
	silence, err := time.ParseDuration(strings.Fields(text)[0])
	Expect(err).NotTo(HaveOccurred())
	return silence
}
