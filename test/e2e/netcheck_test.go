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
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// netcheckImage is preloaded on every node of the lab's image.
const netcheckImage = "registry.local/capl/netcheck:v1"

func netcheckName(i int) string { return fmt.Sprintf("netcheck-%d", i) }

// netcheckPod answers HTTP requests with its name, on the given node: the control plane's too.
func netcheckPod(i int, node string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: netcheckName(i), Labels: map[string]string{"app": "netcheck"}},
		Spec: corev1.PodSpec{
			NodeName:    node,
			Tolerations: []corev1.Toleration{{Operator: corev1.TolerationOpExists}},
			Containers: []corev1.Container{{
				Name: "netcheck", Image: netcheckImage, ImagePullPolicy: corev1.PullNever, Args: []string{"serve"},
			}},
		},
	}
}

func netcheckService() *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "netcheck"},
		Spec:       corev1.ServiceSpec{Selector: map[string]string{"app": "netcheck"}, Ports: []corev1.ServicePort{{Port: 8080}}},
	}
}

// clusterClient talks to the cluster itself.
func clusterClient() client.Client {
	GinkgoHelper()
	config, err := clientcmd.BuildConfigFromFlags("", lab.ClusterKubeconfig())
	Expect(err).NotTo(HaveOccurred())
	c, err := client.New(config, client.Options{})
	Expect(err).NotTo(HaveOccurred())
	return c
}

// expectPodsConnected checks that pods on two nodes reach each other, and a Service by its name, and removes them again.
func expectPodsConnected(ctx context.Context, nodes ...string) {
	GinkgoHelper()
	c := clusterClient()
	service := netcheckService()
	Expect(c.Create(ctx, service)).To(Succeed())
	pods := make([]*corev1.Pod, len(nodes))
	for i, node := range nodes {
		pods[i] = netcheckPod(i, node)
		Expect(c.Create(ctx, pods[i])).To(Succeed())
	}
	for _, pod := range pods {
		Eventually(func(g Gomega) {
			g.Expect(c.Get(ctx, client.ObjectKeyFromObject(pod), pod)).To(Succeed())
			g.Expect(pod.Status.Phase).To(Equal(corev1.PodRunning))
			g.Expect(pod.Status.PodIP).NotTo(BeEmpty())
		}).WithContext(ctx).WithTimeout(10 * time.Minute).WithPolling(2 * time.Second).Should(Succeed())
	}
	get := func(from int, url string) {
		GinkgoHelper()
		Eventually(func() (string, error) {
			return kubectl(ctx, lab.ClusterKubeconfig(), "exec", netcheckName(from), "--", "/netcheck", "get", "-timeout", "30s", url)
		}).WithContext(ctx).WithTimeout(5 * time.Minute).WithPolling(5 * time.Second).Should(ContainSubstring("netcheck-"))
	}
	get(0, "http://"+net.JoinHostPort(pods[1].Status.PodIP, "8080")+"/")
	get(1, "http://"+net.JoinHostPort(pods[0].Status.PodIP, "8080")+"/")
	get(0, "http://netcheck.default.svc.cluster.local:8080/")
	get(1, "http://netcheck:8080/")
	for _, pod := range pods {
		Expect(c.Delete(ctx, pod, client.GracePeriodSeconds(0))).To(Succeed())
	}
	Expect(c.Delete(ctx, service)).To(Succeed())
}
