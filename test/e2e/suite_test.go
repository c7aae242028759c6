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

// Package e2e takes the road of a new user, from nothing to a cluster and back, and looks at all of it on the way.
package e2e

import (
	"context"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/cluster-api/test/framework"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/lab/privatehost"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/lab/quickstart"
)

const (
	namespace = "default"

	// Emulated machines take several minutes to boot and join.
	joinTimeout   = 25 * time.Minute
	removeTimeout = 10 * time.Minute
)

// What the container of specs that is under way works with: each makes a lab of its own.
var (
	clusterName string
	lab         *quickstart.Quickstart
	management  framework.ClusterProxy
)

func TestE2E(t *testing.T) {
	RegisterFailHandler(Fail)
	RunSpecs(t, "From nothing to a cluster and back")
}

// startLab takes the quickstart's path to a cluster, and sees to it that all of that is removed at the end of the
// container.
func startLab(ctx SpecContext, options quickstart.Options) {
	GinkgoHelper()
	repository, err := filepath.Abs("../..")
	Expect(err).NotTo(HaveOccurred())
	clusterName = options.Name
	options.Repository, options.Dir, options.Namespace, options.Out = repository, "/var/lib/capl/e2e", namespace, GinkgoWriter
	options.Timeout, options.Supervisor = 60*time.Minute, []string{filepath.Join(repository, "bin", "lab"), "plane", "supervise"}
	Expect(quickstart.Clean(ctx, options)).To(Succeed(), "removing what an earlier run left")
	DeferCleanup(func(ctx SpecContext) {
		Expect(quickstart.Clean(ctx, options)).To(Succeed())
	}, NodeTimeout(5*time.Minute))

	lab = quickstart.New(options)
	Expect(lab.Run(context.WithoutCancel(ctx))).To(Succeed())

	scheme := runtime.NewScheme()
	framework.TryAddDefaultSchemes(scheme)
	Expect(infrav1.AddToScheme(scheme)).To(Succeed())
	management = framework.NewClusterProxy("management", lab.Kubeconfig(), scheme)
}

// kubectl runs kubectl with one of the kubeconfigs and returns what it prints.
func kubectl(ctx context.Context, kubeconfig string, args ...string) (string, error) {
	command := exec.CommandContext(ctx, filepath.Join(lab.BinDir(), "kubectl"), append([]string{"--kubeconfig", kubeconfig}, args...)...)
	output, err := command.CombinedOutput()
	GinkgoWriter.Printf("$ kubectl %s\n%s\n", strings.Join(args, " "), output)
	return string(output), err
}

// virsh runs virsh on a host and returns the words that it prints.
func virsh(ctx context.Context, host *privatehost.Host, args ...string) []string {
	GinkgoHelper()
	output, err := exec.CommandContext(ctx, "virsh", append([]string{"-c", host.URI()}, args...)...).CombinedOutput()
	Expect(err).NotTo(HaveOccurred(), "virsh %s: %s", strings.Join(args, " "), output)
	return strings.Fields(string(output))
}

// expectNothingLeft checks that a host has nothing of a cluster any more.
func expectNothingLeft(ctx context.Context, host *privatehost.Host) {
	GinkgoHelper()
	Expect(virsh(ctx, host, "list", "--all", "--name")).To(BeEmpty())
	Expect(virsh(ctx, host, "net-list", "--all", "--name")).To(BeEmpty())
	Expect(virsh(ctx, host, "vol-list", "capi-seeds")).To(ConsistOf("Name", "Path", HavePrefix("---")))
	for _, word := range virsh(ctx, host, "vol-list", "default") {
		// Images stay: the next cluster finds them.
		Expect(word).NotTo(ContainSubstring("capl-"))
	}
}

// scaleWorkers changes the number of workers beside a control plane of one, and waits until they are there and Ready, and
// others are gone.
func scaleWorkers(ctx context.Context, replicas int32) {
	GinkgoHelper()
	cluster := &clusterv1.Cluster{}
	Expect(management.GetClient().Get(ctx, client.ObjectKey{Namespace: namespace, Name: clusterName}, cluster)).To(Succeed())
	deployments := framework.GetMachineDeploymentsByCluster(ctx, framework.GetMachineDeploymentsByClusterInput{
		Lister: management.GetClient(), ClusterName: clusterName, Namespace: namespace,
	})
	Expect(deployments).To(HaveLen(1))
	framework.ScaleAndWaitMachineDeployment(ctx, framework.ScaleAndWaitMachineDeploymentInput{
		ClusterProxy: management, Cluster: cluster, MachineDeployment: deployments[0], Replicas: replicas,
		WaitForMachineDeployments: []any{joinTimeout, 3 * time.Second},
	})
	Eventually(func(g Gomega) {
		var nodes corev1.NodeList
		g.Expect(clusterClient().List(ctx, &nodes)).To(Succeed())
		g.Expect(nodes.Items).To(HaveLen(int(replicas) + 1))
		for _, node := range nodes.Items {
			g.Expect(node.Status.Conditions).To(ContainElement(SatisfyAll(
				HaveField("Type", corev1.NodeReady), HaveField("Status", corev1.ConditionTrue))), node.Name)
		}
	}).WithContext(ctx).WithTimeout(joinTimeout).WithPolling(3 * time.Second).Should(Succeed())
}

// deleteCluster deletes the cluster and waits until it is gone.
func deleteCluster(ctx context.Context) {
	GinkgoHelper()
	cluster := &clusterv1.Cluster{}
	cluster.Namespace, cluster.Name = namespace, clusterName
	framework.DeleteCluster(ctx, framework.DeleteClusterInput{Deleter: management.GetClient(), Cluster: cluster})
	Eventually(func() bool {
		return apierrors.IsNotFound(management.GetClient().Get(ctx, client.ObjectKeyFromObject(cluster), cluster))
	}).WithContext(ctx).WithTimeout(removeTimeout).WithPolling(2 * time.Second).Should(BeTrue())
}
