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
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
)

func libvirtMachine(name string, status metav1.ConditionStatus, reason, message string) infrav1.LibvirtMachine {
	machine := infrav1.LibvirtMachine{ObjectMeta: metav1.ObjectMeta{Name: name}}
	machine.Status.Domain.Name = "default." + name
	machine.SetConditions([]metav1.Condition{{Type: infrav1.ReadyCondition, Status: status, Reason: reason, Message: message}})
	return machine
}

func machine(name, node string) clusterv1.Machine {
	return clusterv1.Machine{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Status:     clusterv1.MachineStatus{NodeRef: clusterv1.MachineNodeReference{Name: node}},
	}
}

func node(name string, ready corev1.ConditionStatus) corev1.Node {
	return corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Status: corev1.NodeStatus{Conditions: []corev1.NodeCondition{
			{Type: corev1.NodeReady, Status: ready, Message: "cni plugin not initialized"},
		}},
	}
}

// running are the addons of a cluster in which one of the nodes has them.
func running(nodes int32) addons {
	a := addons{
		daemonSets:  []appsv1.DaemonSet{{ObjectMeta: metav1.ObjectMeta{Name: "kube-proxy"}}},
		deployments: []appsv1.Deployment{{ObjectMeta: metav1.ObjectMeta{Name: "coredns"}}},
	}
	a.daemonSets[0].Status.DesiredNumberScheduled, a.daemonSets[0].Status.NumberReady = nodes, 1
	a.deployments[0].Status.ReadyReplicas = 1
	return a
}

func TestDescribe(t *testing.T) {
	got := describe(observation{
		libvirtMachines: []infrav1.LibvirtMachine{
			libvirtMachine("a", metav1.ConditionFalse, "ImageImporting", "ImageReady: 45 %, 900 MiB of 2.0 GiB"),
			{ObjectMeta: metav1.ObjectMeta{Name: "b"}},
		},
		nodes:    []corev1.Node{node("a", corev1.ConditionFalse), node("b", corev1.ConditionTrue)},
		addons:   addons{deployments: []appsv1.Deployment{{ObjectMeta: metav1.ObjectMeta{Name: "coredns"}}}},
		consoles: map[string]string{"default.a": "Starting kubelet"},
	})
	want := []string{
		"machine a: ImageImporting (ImageReady: 45 %, 900 MiB of 2.0 GiB)",
		"console of a: Starting kubelet",
		"machine b: not seen by its controller yet",
		"node a: NotReady (cni plugin not initialized)",
		"node b: Ready",
		"addons: coredns has 0 pods of 1, kube-proxy isn't there yet",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestComplete(t *testing.T) {
	up := libvirtMachine("a", metav1.ConditionTrue, "Ready", "")
	for name, tt := range map[string]struct {
		seen observation
		want bool
		// says is part of what is still waited for.
		says string
	}{
		"all there": {observation{
			libvirtMachines: []infrav1.LibvirtMachine{up}, machines: []clusterv1.Machine{machine("a", "a")},
			nodes: []corev1.Node{node("a", corev1.ConditionTrue)}, addons: running(1),
		}, true, ""},
		"an addon on one node of two": {observation{
			libvirtMachines: []infrav1.LibvirtMachine{up}, machines: []clusterv1.Machine{machine("a", "a")},
			nodes: []corev1.Node{node("a", corev1.ConditionTrue)}, addons: running(2),
		}, false, "kube-proxy runs on 1 nodes of 2"},
		"no addon yet": {observation{
			libvirtMachines: []infrav1.LibvirtMachine{up}, machines: []clusterv1.Machine{machine("a", "a")},
			nodes: []corev1.Node{node("a", corev1.ConditionTrue)},
		}, false, "coredns isn't there yet; kube-proxy isn't there yet"},
		"nothing yet": {observation{}, false, "there is no Machine yet"},
		"no Node yet": {observation{
			libvirtMachines: []infrav1.LibvirtMachine{up}, machines: []clusterv1.Machine{machine("a", "")},
		}, false, "Machine a has no Node yet"},
		"Node not Ready": {observation{
			libvirtMachines: []infrav1.LibvirtMachine{up}, machines: []clusterv1.Machine{machine("a", "a")},
			nodes: []corev1.Node{node("a", corev1.ConditionFalse)},
		}, false, "Node a is NotReady"},
		"machine stopped since": {observation{
			libvirtMachines: []infrav1.LibvirtMachine{libvirtMachine("a", metav1.ConditionFalse, "DomainCrashed", "gone")},
			machines:        []clusterv1.Machine{machine("a", "a")}, nodes: []corev1.Node{node("a", corev1.ConditionTrue)},
		}, false, "DomainCrashed (gone)"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := complete(tt.seen, 1); got != tt.want {
				t.Errorf("complete is %t", got)
			}
			if waits := strings.Join(pending(tt.seen), "; "); !strings.Contains(waits, tt.says) {
				t.Errorf("waits for %q, want %q", waits, tt.says)
			}
		})
	}
}

func TestLastConsoleLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "console.log")
	if got := lastConsoleLine(path); got != "" {
		t.Errorf("a console that isn't there has the line %q", got)
	}
	noise := bytes.Repeat([]byte("x\n"), 8<<10)
	if err := os.WriteFile(path, append(noise, "[\x1b[0;32m  OK  \x1b[0m] Started kubelet.\r\n\r\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := lastConsoleLine(path); got != "[  OK  ] Started kubelet." {
		t.Errorf("got %q", got)
	}
}

func TestPrinterRepeatsNothing(t *testing.T) {
	var out bytes.Buffer
	p := newPrinter(&out)
	for _, text := range []string{"building a", "building a", "building b"} {
		p.say("%s", text)
	}
	if got := strings.Count(out.String(), "\n"); got != 2 {
		t.Errorf("%d lines: %s", got, out.String())
	}
}
