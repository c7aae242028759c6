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
	"fmt"

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
