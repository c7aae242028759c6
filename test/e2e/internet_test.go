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
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/lab/privatehost"
)

// ingressAddress is what the site's public address leads to.
const ingressAddress = "10.100.0.130"

// siteManifests changes the manifests of the site's cluster for the lab: pods are connected by what emulated machines can
// bear, and workers that are destroyed stay so.
func siteManifests(object *unstructured.Unstructured) error {
	if object.GetKind() == "LibvirtMachineTemplate" {
		return unstructured.SetNestedField(object.Object, "Never", "spec", "template", "spec", "restartPolicy")
	}
	return routePods(object)
}

// routePods gives each node a range of pods by the last part of its address, and a route to those of the others.
func routePods(object *unstructured.Unstructured) error {
	var spec []string
	switch object.GetKind() {
	case "KubeadmControlPlane":
		spec = []string{"spec", "kubeadmConfigSpec"}
	case "KubeadmConfigTemplate":
		spec = []string{"spec", "template", "spec"}
	default:
		return nil
	}
	err := appendTo(object, map[string]any{
		"path":        "/etc/cni/net.d/10-bridge.conflist",
		"permissions": "0644",
		"content": `{"cniVersion": "1.0.0", "name": "bridge", "plugins": [{"type": "bridge", "bridge": "cni0", "isGateway": true,
  "ipMasq": true, "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.244.NODE.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}}]}
`,
	}, append(slices.Clone(spec), "files")...)
	if err != nil {
		return err
	}
	return appendTo(object, `n=$(hostname -I | tr ' ' '\n' | sed -n 's/^10\.100\.0\.//p' | head -n 1);`+
		` sed -i "s/NODE/$n/" /etc/cni/net.d/10-bridge.conflist;`+
		` for m in $(seq 10 40); do [ "$m" = "$n" ] || ip route replace "10.244.$m.0/24" via "10.100.0.$m"; done`,
		append(slices.Clone(spec), "preKubeadmCommands")...)
}

// guardHost keeps the internet from what the host itself serves, such as the management plane: the agent minds the border
// of the node networks only.
func guardHost(ctx context.Context, host *privatehost.Host) {
	GinkgoHelper()
	command := host.Command(ctx, "nft", "-f", "-")
	command.Stdin = strings.NewReader(`table inet host {
  chain input {
    type filter hook input priority filter
    iifname wan0 ct state new drop
  }
}
`)
	output, err := command.CombinedOutput()
	Expect(err).NotTo(HaveOccurred(), "%s", output)
}

// agent is the agent on the host while one runs.
var agent *exec.Cmd

// startAgent runs the agent as the host's service manager would.
func startAgent(host *privatehost.Host) {
	GinkgoHelper()
	agent = host.Command(context.Background(), agentProgram(), "run", "--uri", host.URI())
	agent.Stdout, agent.Stderr = GinkgoWriter, GinkgoWriter
	Expect(agent.Start()).To(Succeed())
	DeferCleanup(stopAgent)
}

func stopAgent() {
	GinkgoHelper()
	if agent == nil {
		return
	}
	Expect(agent.Process.Signal(syscall.SIGTERM)).To(Succeed())
	ended := make(chan error, 1)
	go func(agent *exec.Cmd) { ended <- agent.Wait() }(agent)
	agent = nil
	Eventually(ended).WithTimeout(20 * time.Second).Should(Receive(BeNil()))
}

// removeAgent ends the agent and removes what it leaves on a host.
func removeAgent(ctx context.Context, host *privatehost.Host) {
	GinkgoHelper()
	stopAgent()
	// Below a directory of its own, so that an agent of the machine itself stays installed.
	output, err := host.Command(ctx, agentProgram(), "uninstall", "--uri", host.URI(), "--root", GinkgoT().TempDir()).CombinedOutput()
	Expect(err).NotTo(HaveOccurred(), "%s", output)
}

func agentProgram() string {
	GinkgoHelper()
	program, err := filepath.Abs("../../bin/host-agent")
	Expect(err).NotTo(HaveOccurred())
	return program
}

// ask asks the site for its name as a client, by a connection of its own, and returns the name of the pod that answered.
func ask(ctx context.Context, internet *privatehost.Internet, from netip.Addr) (string, error) {
	return askBy(ctx, siteAddress.String(), func(ctx context.Context, _, address string) (net.Conn, error) {
		return internet.Dial(ctx, from, address)
	})
}

// askBy asks a site by a connection that is made by dial.
func askBy(ctx context.Context, site string, dial func(ctx context.Context, network, address string) (net.Conn, error)) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	transport := &http.Transport{DisableKeepAlives: true, DialContext: dial}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+site+"/", nil)
	if err != nil {
		return "", err
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("the answer is %s", response.Status)
	}
	return strings.TrimSpace(string(body)), err
}

// expectRequests asks the site a number of times and wants every answer.
func expectRequests(ctx context.Context, internet *privatehost.Internet, count int) {
	GinkgoHelper()
	var took []time.Duration
	failures, pods := map[string]int{}, map[string]int{}
	for range count {
		started := time.Now()
		pod, err := ask(ctx, internet, other)
		took = append(took, time.Since(started))
		if err != nil {
			failures[err.Error()]++
		} else {
			pods[pod]++
		}
	}
	slices.Sort(took)
	GinkgoWriter.Printf("%d requests, %d kinds of failures %v, answered by %v: p50 %s, p99 %s, longest %s\n", count, len(failures), failures, pods,
		took[count/2], took[count*99/100], took[count-1])
	Expect(failures).To(BeEmpty())
}

// answering is the machine that answers for the site's address, as the host has learned by ARP.
func answering(ctx context.Context) infrav1.LibvirtMachine {
	GinkgoHelper()
	output, err := lab.Host().Command(ctx, "ip", "-json", "neigh", "show", "to", ingressAddress).CombinedOutput()
	Expect(err).NotTo(HaveOccurred(), "%s", output)
	var neighbours []struct {
		MAC string `json:"lladdr"`
	}
	Expect(json.Unmarshal(output, &neighbours)).To(Succeed(), "%s", output)
	Expect(neighbours).To(HaveLen(1))
	_, workers := machinesByHost(ctx)
	for _, machine := range workers[lab.Host().Name()] {
		if slices.Contains(virsh(ctx, lab.Host(), "domiflist", machine.Status.Domain.Name), neighbours[0].MAC) {
			return machine
		}
	}
	Fail("no worker has the hardware address " + neighbours[0].MAC)
	return infrav1.LibvirtMachine{}
}

// expectRollout waits for workloads of the cluster.
func expectRollout(ctx context.Context, namespace string, workloads ...string) {
	GinkgoHelper()
	for _, workload := range workloads {
		Eventually(func() error {
			_, err := kubectl(ctx, lab.ClusterKubeconfig(), "--namespace", namespace, "rollout", "status", workload, "--timeout", "30s")
			return err
		}).WithContext(ctx).WithTimeout(15*time.Minute).WithPolling(time.Second).Should(Succeed(), workload)
	}
}

// nodeAddresses are those of the cluster's nodes.
func nodeAddresses(ctx context.Context) []string {
	GinkgoHelper()
	var nodes corev1.NodeList
	Expect(clusterClient().List(ctx, &nodes)).To(Succeed())
	var addresses []string
	for _, node := range nodes.Items {
		for _, address := range node.Status.Addresses {
			if address.Type == corev1.NodeInternalIP {
				addresses = append(addresses, address.Address)
			}
		}
	}
	Expect(addresses).To(HaveLen(len(nodes.Items)))
	return addresses
}
