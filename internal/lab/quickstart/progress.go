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

package quickstart

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/utils/ptr"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/cluster-api/util/conditions"
	"sigs.k8s.io/cluster-api/util/kubeconfig"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
)

// observation is what is known of the cluster at one moment.
type observation struct {
	cluster         clusterv1.Cluster
	libvirtClusters []infrav1.LibvirtCluster
	libvirtMachines []infrav1.LibvirtMachine
	machines        []clusterv1.Machine
	// nodes are those of the cluster itself; absent until its API server answers.
	nodes []corev1.Node
	// addons are what kubeadm and Calico run in the cluster.
	addons addons
	// consoles are the last lines of the guests' consoles, by domain.
	consoles map[string]string
}

const lookInterval = 3 * time.Second

// waitForCluster waits until every machine has a Node, every Node is Ready and the addons are there, and tells what it
// waits for.
func (q *Quickstart) waitForCluster(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, q.options.Timeout)
	defer cancel()
	ticker := time.NewTicker(lookInterval)
	defer ticker.Stop()
	told := map[string]string{}
	var nodes client.Client
	for {
		seen, err := q.look(ctx)
		if err == nil && nodes == nil {
			nodes, err = q.openCluster(ctx, seen)
		}
		if err == nil && nodes != nil {
			var list corev1.NodeList
			// Until the API server is up for good, an error is an ordinary state.
			if nodes.List(ctx, &list) == nil && seen.addons.read(ctx, nodes) == nil {
				seen.nodes = list.Items
			}
		}
		if err != nil {
			q.out.say("the management plane doesn't answer: %s", err)
		} else {
			q.tell(told, seen)
			if complete(seen, q.options.ControlPlanes+q.options.Workers+q.options.Others) {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("gave up after %s: %s", q.options.Timeout, strings.Join(pending(seen), "; "))
		case <-ticker.C:
		}
	}
}

// look reads all objects of the cluster.
func (q *Quickstart) look(ctx context.Context) (observation, error) {
	var seen observation
	inNamespace := client.InNamespace(q.options.Namespace)
	ofCluster := client.MatchingLabels{clusterv1.ClusterNameLabel: q.options.Name}
	var libvirtClusters infrav1.LibvirtClusterList
	var libvirtMachines infrav1.LibvirtMachineList
	var machines clusterv1.MachineList
	err := errors.Join(
		q.client.Get(ctx, client.ObjectKey{Namespace: q.options.Namespace, Name: q.options.Name}, &seen.cluster),
		q.client.List(ctx, &libvirtClusters, inNamespace, ofCluster),
		q.client.List(ctx, &libvirtMachines, inNamespace, ofCluster),
		q.client.List(ctx, &machines, inNamespace, ofCluster),
	)
	seen.libvirtClusters, seen.libvirtMachines, seen.machines = libvirtClusters.Items, libvirtMachines.Items, machines.Items
	seen.consoles = map[string]string{}
	for i := range seen.libvirtMachines {
		m := &seen.libvirtMachines[i]
		for _, host := range q.hosts {
			if name := m.Status.Domain.Name; name != "" && m.Spec.HostName == host.Name() {
				seen.consoles[name] = lastConsoleLine(host.Path("/var/log/libvirt/qemu/" + name + "-console.log"))
			}
		}
	}
	return seen, err
}

// openCluster writes the kubeconfig of the cluster once Cluster API has made it, and returns a client. It returns nil as
// long as there is none.
func (q *Quickstart) openCluster(ctx context.Context, seen observation) (client.Client, error) {
	data, err := kubeconfig.FromSecret(ctx, q.client, client.ObjectKeyFromObject(&seen.cluster))
	if err != nil {
		return nil, nil //nolint:nilerr,nilnil // It isn't there yet.
	}
	config, err := clientcmd.Load(data)
	if err != nil {
		return nil, fmt.Errorf("reading the cluster's kubeconfig: %w", err)
	}
	endpoint := seen.cluster.Spec.ControlPlaneEndpoint
	if q.host != nil {
		if err := q.exposeCluster(ctx, fmt.Sprintf("%s:%d", endpoint.Host, endpoint.Port)); err != nil {
			return nil, err
		}
		for _, cluster := range config.Clusters {
			cluster.Server, cluster.TLSServerName = "https://"+net.JoinHostPort(q.host.Addr().String(), "6443"), endpoint.Host
		}
	}
	if err := clientcmd.WriteToFile(*config, q.ClusterKubeconfig()); err != nil {
		return nil, fmt.Errorf("writing the cluster's kubeconfig: %w", err)
	}
	restConfig, err := clientcmd.BuildConfigFromFlags("", q.ClusterKubeconfig())
	if err != nil {
		return nil, fmt.Errorf("reading the cluster's kubeconfig: %w", err)
	}
	restConfig.Timeout = 10 * time.Second
	return client.New(restConfig, client.Options{})
}

// tell says what changed since the last look.
func (q *Quickstart) tell(told map[string]string, seen observation) {
	for _, line := range describe(seen) {
		subject, text, _ := strings.Cut(line, ": ")
		if told[subject] != text {
			told[subject] = text
			q.out.line("      %s", line)
		}
	}
}

// describe says of each part of the cluster how it stands, a line each: "subject: text".
func describe(seen observation) []string {
	var lines []string
	for i := range seen.libvirtClusters {
		lines = append(lines, "network: "+ready(&seen.libvirtClusters[i]))
	}
	for i := range seen.libvirtMachines {
		machine := &seen.libvirtMachines[i]
		lines = append(lines, fmt.Sprintf("machine %s: %s", machine.Name, ready(machine)))
		if console := seen.consoles[machine.Status.Domain.Name]; console != "" {
			lines = append(lines, fmt.Sprintf("console of %s: %s", machine.Name, console))
		}
	}
	for i := range seen.nodes {
		node := &seen.nodes[i]
		lines = append(lines, fmt.Sprintf("node %s: %s", node.Name, nodeState(node)))
	}
	if len(seen.nodes) > 0 {
		if waits := seen.addons.pending(); len(waits) > 0 {
			lines = append(lines, "addons: "+strings.Join(waits, ", "))
		} else {
			lines = append(lines, "addons: Ready")
		}
	}
	return lines
}

// ready is the Ready condition in words.
func ready(object conditions.Getter) string {
	condition := conditions.Get(object, infrav1.ReadyCondition)
	switch {
	case condition == nil:
		return "not seen by its controller yet"
	case condition.Message == "":
		return condition.Reason
	}
	return condition.Reason + " (" + condition.Message + ")"
}

func nodeState(node *corev1.Node) string {
	for _, condition := range node.Status.Conditions {
		if condition.Type == corev1.NodeReady {
			if condition.Status == corev1.ConditionTrue {
				return "Ready"
			}
			return "NotReady (" + condition.Message + ")"
		}
	}
	return "registered"
}

// complete tells whether all machines have a Node, all Nodes are Ready and the addons are there.
func complete(seen observation, want int) bool {
	if len(seen.machines) != want || len(seen.nodes) != want {
		return false
	}
	return len(pending(seen)) == 0
}

// pending is what the cluster still waits for.
func pending(seen observation) []string {
	var waits []string
	for i := range seen.machines {
		if !seen.machines[i].Status.NodeRef.IsDefined() {
			waits = append(waits, fmt.Sprintf("Machine %s has no Node yet", seen.machines[i].Name))
		}
	}
	for i := range seen.libvirtMachines {
		if !conditions.IsTrue(&seen.libvirtMachines[i], infrav1.ReadyCondition) {
			waits = append(waits, fmt.Sprintf("LibvirtMachine %s: %s", seen.libvirtMachines[i].Name, ready(&seen.libvirtMachines[i])))
		}
	}
	for i := range seen.nodes {
		if state := nodeState(&seen.nodes[i]); state != "Ready" {
			waits = append(waits, fmt.Sprintf("Node %s is %s", seen.nodes[i].Name, state))
		}
	}
	if len(seen.nodes) > 0 {
		waits = append(waits, seen.addons.pending()...)
	}
	if len(seen.machines) == 0 {
		waits = append(waits, "there is no Machine yet")
	}
	return waits
}

// addons are the workloads of the namespace kube-system.
type addons struct {
	daemonSets  []appsv1.DaemonSet
	deployments []appsv1.Deployment
}

func (a *addons) read(ctx context.Context, cluster client.Client) error {
	var daemonSets appsv1.DaemonSetList
	var deployments appsv1.DeploymentList
	inNamespace := client.InNamespace(metav1.NamespaceSystem)
	err := errors.Join(cluster.List(ctx, &daemonSets, inNamespace), cluster.List(ctx, &deployments, inNamespace))
	a.daemonSets, a.deployments = daemonSets.Items, deployments.Items
	return err
}

// pending says which are missing or don't run yet. A node can be Ready without them, but services have no addresses
// then, and no names.
func (a *addons) pending() []string {
	var waits []string
	wanted := map[string]bool{"kube-proxy": true, "coredns": true}
	for i := range a.daemonSets {
		set := &a.daemonSets[i]
		delete(wanted, set.Name)
		if set.Status.DesiredNumberScheduled == 0 || set.Status.NumberReady < set.Status.DesiredNumberScheduled {
			waits = append(waits, fmt.Sprintf("%s runs on %d nodes of %d", set.Name, set.Status.NumberReady, set.Status.DesiredNumberScheduled))
		}
	}
	for i := range a.deployments {
		deployment := &a.deployments[i]
		delete(wanted, deployment.Name)
		if want := ptr.Deref(deployment.Spec.Replicas, 1); deployment.Status.ReadyReplicas < want {
			waits = append(waits, fmt.Sprintf("%s has %d pods of %d", deployment.Name, deployment.Status.ReadyReplicas, want))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(wanted)) {
		waits = append(waits, name+" isn't there yet")
	}
	return waits
}

var escapes = regexp.MustCompile(`\x1b\[[0-9;?]*[A-Za-z]`)

// lastConsoleLine is the last line that a guest wrote to its console, without terminal codes; empty when there is none.
func lastConsoleLine(path string) string {
	file, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer file.Close()
	const tail = 4 << 10
	if info, err := file.Stat(); err == nil && info.Size() > tail {
		if _, err := file.Seek(-tail, io.SeekEnd); err != nil {
			return ""
		}
	}
	data, err := io.ReadAll(file)
	if err != nil {
		return ""
	}
	lines := bytes.Split(escapes.ReplaceAll(data, nil), []byte("\n"))
	slices.Reverse(lines)
	for _, line := range lines {
		if text := strings.TrimSpace(strings.ToValidUTF8(string(line), "")); text != "" {
			return text[:min(len(text), 160)]
		}
	}
	return ""
}

// show prints the cluster and how to use it.
func (q *Quickstart) show(ctx context.Context) error {
	for _, args := range [][]string{
		{"--kubeconfig", q.Kubeconfig(), "--namespace", q.options.Namespace, "get", "libvirthosts,libvirtclusters,libvirtmachines,machines"},
		{"--kubeconfig", q.ClusterKubeconfig(), "get", "nodes,pods", "--all-namespaces", "--output", "wide"},
	} {
		command := exec.CommandContext(ctx, filepath.Join(q.binDir, "kubectl"), args...)
		command.Stdout, command.Stderr = q.options.Out, q.options.Out
		fmt.Fprintf(q.options.Out, "\n$ kubectl %s\n", strings.Join(args, " "))
		if err := command.Run(); err != nil {
			return fmt.Errorf("kubectl %s: %w", strings.Join(args, " "), err)
		}
	}
	fmt.Fprintf(q.options.Out, `
The cluster is up. Use it:
  export PATH=%[1]s:$PATH
  kubectl --kubeconfig %[2]s get nodes
The management plane, where the cluster is declared:
  export KUBECONFIG=%[3]s
  kubectl get libvirthosts,libvirtclusters,libvirtmachines,machines --namespace %[4]s
  kubectl scale machinedeployment %[5]s-workers --namespace %[4]s --replicas 2
  clusterctl describe cluster %[5]s --namespace %[4]s
  virsh -c '%[6]s' list
Remove all of it:
  make quickstart-clean
`, q.binDir, q.ClusterKubeconfig(), q.Kubeconfig(), q.options.Namespace, q.options.Name, q.state.LibvirtURI)
	return nil
}
