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
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	controlplanev1 "sigs.k8s.io/cluster-api/api/controlplane/kubeadm/v1beta2"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/lab/privatehost"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/lab/quickstart"
)

var _ = Describe("A cluster over two hosts", Ordered, func() {
	// stays is the host with the control plane, leaves is the other one.
	var stays, leaves string

	BeforeAll(func(ctx SpecContext) {
		startLab(ctx, quickstart.Options{
			Name: "wide", Hosts: 2, ControlPlanes: 1, Workers: 1,
			Variables: map[string]string{"CNI": "none"}, Change: bridgePods,
		})
	}, NodeTimeout(90*time.Minute))

	It("grows to a set of three", func(ctx SpecContext) {
		// One by one, because emulated machines that join side by side keep each other waiting.
		scaleWorkers(ctx, 2)
		scaleWorkers(ctx, 3)
	}, NodeTimeout(2*joinTimeout))

	It("spreads the workers over the failure domains", func(ctx SpecContext) {
		var cluster infrav1.LibvirtCluster
		Expect(management.GetClient().Get(ctx, client.ObjectKey{Namespace: namespace, Name: clusterName}, &cluster)).To(Succeed())
		Expect(cluster.Status.FailureDomains).To(ConsistOf(HaveField("Name", "kvm1"), HaveField("Name", "kvm2")))
		controlPlane, workers := machinesByHost(ctx)
		Expect(workers).To(SatisfyAll(HaveKey("kvm1"), HaveKey("kvm2")))
		stays, leaves = "kvm1", "kvm2"
		if len(controlPlane["kvm2"]) > 0 {
			stays, leaves = leaves, stays
		}
		for name, machines := range workers {
			for _, machine := range machines {
				Expect(machine.Status.FailureDomain).To(Equal(name))
			}
		}
	}, NodeTimeout(time.Minute))

	It("moves the workers of a cordoned host by deleting their Machines", func(ctx SpecContext) {
		host := libvirtHost(leaves)
		Expect(management.GetClient().Get(ctx, client.ObjectKeyFromObject(host), host)).To(Succeed())
		before := host.DeepCopy()
		host.Spec.Scheduling = infrav1.HostSchedulingDisabled
		Expect(management.GetClient().Patch(ctx, host, client.MergeFrom(before))).To(Succeed())
		_, workers := machinesByHost(ctx)
		for i := range workers[leaves] {
			machine := &clusterv1.Machine{}
			machine.Namespace, machine.Name = namespace, workers[leaves][i].Name
			Expect(management.GetClient().Delete(ctx, machine)).To(Succeed())
			Eventually(func(g Gomega) {
				_, workers := machinesByHost(ctx)
				g.Expect(workers[leaves]).NotTo(ContainElement(HaveField("Name", machine.Name)))
				g.Expect(len(workers[leaves]) + len(workers[stays])).To(Equal(3))
				ready, err := kubectl(ctx, lab.ClusterKubeconfig(), "wait", "--for=condition=Ready", "node", "--all", "--timeout=1s")
				g.Expect(err).NotTo(HaveOccurred())
				for _, machine := range workers[stays] {
					g.Expect(ready).To(ContainSubstring(machine.Name))
				}
			}).WithContext(ctx).WithTimeout(joinTimeout).WithPolling(5 * time.Second).Should(Succeed())
		}
		_, workers = machinesByHost(ctx)
		Expect(workers).NotTo(HaveKey(leaves))
		Expect(virsh(ctx, privateHost(leaves), "list", "--all", "--name")).To(BeEmpty())
	}, NodeTimeout(2*joinTimeout))

	It("lets go of a host that isn't selected any more", func(ctx SpecContext) {
		host := libvirtHost(leaves)
		Expect(management.GetClient().Get(ctx, client.ObjectKeyFromObject(host), host)).To(Succeed())
		before := host.DeepCopy()
		host.Labels = nil
		Expect(management.GetClient().Patch(ctx, host, client.MergeFrom(before))).To(Succeed())
		Eventually(func(g Gomega) {
			var cluster infrav1.LibvirtCluster
			g.Expect(management.GetClient().Get(ctx, client.ObjectKey{Namespace: namespace, Name: clusterName}, &cluster)).To(Succeed())
			g.Expect(cluster.Status.Hosts).To(ConsistOf(stays))
			g.Expect(cluster.Status.FailureDomains).To(ConsistOf(HaveField("Name", stays)))
		}).WithContext(ctx).WithTimeout(removeTimeout).WithPolling(time.Second).Should(Succeed())
		Expect(management.GetClient().Delete(ctx, host)).To(Succeed())
		Eventually(func() bool {
			return apierrors.IsNotFound(management.GetClient().Get(ctx, client.ObjectKeyFromObject(host), host))
		}).WithContext(ctx).WithTimeout(removeTimeout).WithPolling(time.Second).Should(BeTrue())
		expectNothingLeft(ctx, privateHost(leaves))
	}, NodeTimeout(2*removeTimeout))

	It("leaves nothing behind", func(ctx SpecContext) {
		deleteCluster(ctx)
		expectNothingLeft(ctx, privateHost(stays))
	}, NodeTimeout(removeTimeout+time.Minute))
})

// bridgePods has the pods of each node connected by a bridge of their own, which a kubeadm configuration brings along.
// Several emulated machines leave no processor for Calico; the cluster on one host has it.
func bridgePods(object *unstructured.Unstructured) error {
	file := map[string]any{
		"path":        "/etc/cni/net.d/10-bridge.conflist",
		"permissions": "0644",
		"content": `{"cniVersion": "1.0.0", "name": "bridge", "plugins": [{"type": "bridge", "bridge": "cni0", "isGateway": true,
  "ipMasq": true, "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.244.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}}]}
`,
	}
	switch object.GetKind() {
	case "KubeadmControlPlane":
		return appendTo(object, file, "spec", "kubeadmConfigSpec", "files")
	case "KubeadmConfigTemplate":
		return appendTo(object, file, "spec", "template", "spec", "files")
	case "ClusterClass":
		// Its patches write the files of the control plane, so that one more has to come after them.
		return appendTo(object, map[string]any{
			"name": "bridgePods",
			"definitions": []any{map[string]any{
				"selector": map[string]any{
					"apiVersion":     controlplanev1.GroupVersion.String(),
					"kind":           "KubeadmControlPlaneTemplate",
					"matchResources": map[string]any{"controlPlane": true},
				},
				"jsonPatches": []any{map[string]any{"op": "add", "path": "/spec/template/spec/kubeadmConfigSpec/files/-", "value": file}},
			}},
		}, "spec", "patches")
	}
	return nil
}

// appendTo appends an item to a list of an object.
func appendTo(object *unstructured.Unstructured, item any, path ...string) error {
	list, _, err := unstructured.NestedSlice(object.Object, path...)
	if err != nil {
		return err
	}
	return unstructured.SetNestedSlice(object.Object, append(list, item), path...)
}

// machinesByHost are the LibvirtMachines of the control plane and those of the workers, by their host.
func machinesByHost(ctx context.Context) (controlPlane, workers map[string][]infrav1.LibvirtMachine) {
	GinkgoHelper()
	var list infrav1.LibvirtMachineList
	Expect(management.GetClient().List(ctx, &list, client.InNamespace(namespace), client.MatchingLabels{clusterv1.ClusterNameLabel: clusterName})).To(Succeed())
	controlPlane, workers = map[string][]infrav1.LibvirtMachine{}, map[string][]infrav1.LibvirtMachine{}
	for i := range list.Items {
		machine := list.Items[i]
		if _, ok := machine.Labels[clusterv1.MachineControlPlaneLabel]; ok {
			controlPlane[machine.Spec.HostName] = append(controlPlane[machine.Spec.HostName], machine)
		} else {
			workers[machine.Spec.HostName] = append(workers[machine.Spec.HostName], machine)
		}
	}
	return controlPlane, workers
}

func libvirtHost(name string) *infrav1.LibvirtHost {
	host := &infrav1.LibvirtHost{}
	host.Namespace, host.Name = namespace, name
	return host
}

// privateHost is what a LibvirtHost of the lab stands for.
func privateHost(name string) *privatehost.Host {
	GinkgoHelper()
	for _, host := range lab.Hosts() {
		if host.Name() == name {
			return host
		}
	}
	Fail("the lab has no host " + name)
	return nil
}
