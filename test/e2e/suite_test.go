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
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/cluster-api/test/framework"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/lab/quickstart"
)

const (
	clusterName = "e2e"
	namespace   = "default"

	// Emulated machines take several minutes to boot and join.
	joinTimeout   = 25 * time.Minute
	removeTimeout = 10 * time.Minute
)

var (
	lab        *quickstart.Quickstart
	labOptions quickstart.Options
	management framework.ClusterProxy
)

func TestE2E(t *testing.T) {
	RegisterFailHandler(Fail)
	RunSpecs(t, "From nothing to a cluster and back")
}

var _ = BeforeSuite(func(ctx SpecContext) {
	repository, err := filepath.Abs("../..")
	Expect(err).NotTo(HaveOccurred())
	labOptions = quickstart.Options{
		Repository: repository, Dir: "/var/lib/capl/e2e", Name: clusterName, Namespace: namespace,
		ControlPlanes: 1, Workers: 1, Timeout: 45 * time.Minute, Out: GinkgoWriter,
		Supervisor: []string{filepath.Join(repository, "bin", "lab"), "plane", "supervise"},
	}
	Expect(quickstart.Clean(ctx, labOptions)).To(Succeed(), "removing what an earlier run left")
	DeferCleanup(func(ctx SpecContext) {
		Expect(quickstart.Clean(ctx, labOptions)).To(Succeed())
	}, NodeTimeout(5*time.Minute))

	lab = quickstart.New(labOptions)
	Expect(lab.Run(context.WithoutCancel(ctx))).To(Succeed())

	scheme := runtime.NewScheme()
	framework.TryAddDefaultSchemes(scheme)
	Expect(infrav1.AddToScheme(scheme)).To(Succeed())
	management = framework.NewClusterProxy("management", lab.Kubeconfig(), scheme)
}, NodeTimeout(90*time.Minute))

// kubectl runs kubectl with one of the kubeconfigs and returns what it prints.
func kubectl(ctx context.Context, kubeconfig string, args ...string) (string, error) {
	command := exec.CommandContext(ctx, filepath.Join(lab.BinDir(), "kubectl"), append([]string{"--kubeconfig", kubeconfig}, args...)...)
	output, err := command.CombinedOutput()
	GinkgoWriter.Printf("$ kubectl %s\n%s\n", strings.Join(args, " "), output)
	return string(output), err
}

// virsh runs virsh on the host and returns the names that it prints.
func virsh(ctx context.Context, args ...string) []string {
	GinkgoHelper()
	output, err := exec.CommandContext(ctx, "virsh", append([]string{"-c", lab.Host().URI()}, args...)...).CombinedOutput()
	Expect(err).NotTo(HaveOccurred(), "virsh %s: %s", strings.Join(args, " "), output)
	return strings.Fields(string(output))
}
