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

package controllers

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/utils/ptr"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/cluster-api/util/conditions"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/hosttest"
)

// runClusterAPI runs Cluster API's own core manager until the test ends. It plays in all namespaces, because kept to one it
// fails to make the machines of a MachineSet ("failed to cast … informer"), and its watch filter leaves out only a part.
// So no other test may run meanwhile.
func runClusterAPI(s *scene) {
	s.t.Helper()
	bin := os.Getenv("CAPL_BIN_DIR")
	if bin == "" {
		s.t.Fatal("CAPL_BIN_DIR must name the directory with capi-core-manager: run make test, or make test TEST_PACKAGES=./internal/controllers/")
	}
	dir := s.t.TempDir()
	config := clientcmdapi.NewConfig()
	config.Clusters["c"] = &clientcmdapi.Cluster{Server: apiConfig.Host, CertificateAuthorityData: apiConfig.CAData}
	config.AuthInfos["c"] = &clientcmdapi.AuthInfo{ClientCertificateData: apiConfig.CertData, ClientKeyData: apiConfig.KeyData}
	config.Contexts["c"] = &clientcmdapi.Context{Cluster: "c", AuthInfo: "c"}
	config.CurrentContext = "c"
	kubeconfig := filepath.Join(dir, "kubeconfig")
	must(s.t, clientcmd.WriteToFile(*config, kubeconfig))
	cert, key := hosttest.NewAuthority(s.t, "webhooks").Issue(s.t, "127.0.0.1", false)
	must(s.t, os.WriteFile(filepath.Join(dir, "tls.crt"), cert, 0o600))
	must(s.t, os.WriteFile(filepath.Join(dir, "tls.key"), key, 0o600))
	logFile, err := os.Create(filepath.Join(dir, "log"))
	must(s.t, err)
	manager := exec.CommandContext(s.t.Context(), filepath.Join(bin, "capi-core-manager"),
		"--kubeconfig="+kubeconfig, "--leader-elect=false", "--webhook-cert-dir="+dir,
		"--webhook-port="+freePort(s.t), "--health-addr=127.0.0.1:0", "--diagnostics-address=127.0.0.1:0", "--insecure-diagnostics",
		"--skip-crd-migration-phases=StorageVersionMigration,CleanupManagedFields")
	// It says in which namespace it runs itself.
	manager.Env = append(os.Environ(), "POD_NAMESPACE="+s.namespace, "POD_NAME=capi-core-manager", "POD_UID="+foreignUUID)
	manager.Stdout, manager.Stderr = logFile, logFile
	must(s.t, manager.Start())
	s.t.Cleanup(func() {
		_ = manager.Process.Kill()
		_ = manager.Wait()
		if s.t.Failed() {
			if log, err := os.ReadFile(logFile.Name()); err == nil {
				s.t.Logf("Cluster API's core manager says\n%s", log[max(0, len(log)-8000):])
			}
		}
	})
}

// documentedHealthCheck is the MachineHealthCheck of docs/how-to/remediation.md.
func documentedHealthCheck(t *testing.T) *clusterv1.MachineHealthCheck {
	t.Helper()
	_, rest, _ := strings.Cut(string(file(t, "../../docs/how-to/remediation.md")), "```yaml\n")
	manifest, _, found := strings.Cut(rest, "```")
	check := &clusterv1.MachineHealthCheck{}
	if err := yaml.UnmarshalStrict([]byte(manifest), check); err != nil || !found || check.Kind != "MachineHealthCheck" {
		t.Fatalf("The manifest in the documentation is %v:\n%s", err, manifest)
	}
	return check
}

// freePort is a port on which nobody listens now.
func freePort(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer listener.Close()
	_, port, err := net.SplitHostPort(listener.Addr().String())
	must(t, err)
	return port
}

// TestMissingDomainIsRemediated has somebody remove the domain of a machine. Cluster API's own controllers, with the
// MachineHealthCheck of docs/how-to/remediation.md, replace the machine. They would meddle with other tests, so those
// that are parallel come later.
func TestMissingDomainIsRemediated(t *testing.T) {
	s := newScene(t)
	s.readyHost("kvm1", testDriver(t))
	green := s.createCluster("green", "10.20.0.0/27")
	runClusterAPI(s)
	s.expectReady(green)

	parts := s.machineParts("green", "green")
	s.create(parts.secret)
	template := &infrav1.LibvirtMachineTemplate{ObjectMeta: s.meta("green", "green")}
	template.Spec.Template.Spec = parts.libvirtMachine.Spec
	s.create(template)
	labels := map[string]string{
		clusterv1.WatchLabel: s.watchFilter, clusterv1.ClusterNameLabel: "green", "set": "green",
		// Other machines aren't looked after before the control plane is there.
		clusterv1.MachineControlPlaneLabel: "",
	}
	parts.machine.Spec.InfrastructureRef.Kind = "LibvirtMachineTemplate"
	s.create(&clusterv1.MachineSet{
		ObjectMeta: s.meta("green", "green"),
		Spec: clusterv1.MachineSetSpec{
			ClusterName: "green", Replicas: ptr.To[int32](1),
			Selector: metav1.LabelSelector{MatchLabels: map[string]string{"set": "green"}},
			Template: clusterv1.MachineTemplateSpec{ObjectMeta: clusterv1.ObjectMeta{Labels: labels}, Spec: parts.machine.Spec},
		},
	})
	check := documentedHealthCheck(t)
	check.ObjectMeta = s.meta("green", "green")
	check.Spec.ClusterName, check.Spec.Selector.MatchLabels[clusterv1.ClusterNameLabel] = "green", "green"
	// One of one is more than the share of the machines that it takes for a mishap.
	check.Spec.Remediation = clusterv1.MachineHealthCheckRemediation{}
	for i := range check.Spec.Checks.UnhealthyMachineConditions {
		check.Spec.Checks.UnhealthyMachineConditions[i].TimeoutSeconds = ptr.To[int32](5)
	}
	s.create(check)
	only := func() (*infrav1.LibvirtMachine, *clusterv1.Machine, error) {
		var list infrav1.LibvirtMachineList
		if err := api.List(t.Context(), &list, client.InNamespace(s.namespace)); err != nil {
			return nil, nil, err
		}
		if len(list.Items) != 1 {
			return nil, nil, fmt.Errorf("there are %d LibvirtMachines", len(list.Items))
		}
		m := s.machine(list.Items[0].Name)
		return &list.Items[0], m, api.Get(t.Context(), client.ObjectKeyFromObject(m), m)
	}
	var first *infrav1.LibvirtMachine
	awaitMachine := func(what string, check func(*infrav1.LibvirtMachine, *clusterv1.Machine) error) {
		t.Helper()
		if err := within(3*time.Minute, func() error {
			libvirtMachine, machine, err := only()
			if err != nil {
				return err
			}
			return check(libvirtMachine, machine)
		}); err != nil {
			t.Fatalf("Not in time: %s: %v", what, err)
		}
	}
	awaitMachine("the machine is there", func(libvirtMachine *infrav1.LibvirtMachine, machine *clusterv1.Machine) error {
		first = libvirtMachine
		if !conditions.IsTrue(machine, clusterv1.MachineInfrastructureReadyCondition) {
			return errors.New(describe(machine))
		}
		return nil
	})

	uuid, gone := uuidOf(first), time.Now()
	must(t, s.kvm("kvm1").DestroyDomain(t.Context(), uuid))
	must(t, s.kvm("kvm1").UndefineDomain(t.Context(), uuid))
	awaitMachine("the Machine says that its domain is missing", func(_ *infrav1.LibvirtMachine, machine *clusterv1.Machine) error {
		ready := conditions.Get(machine, clusterv1.MachineInfrastructureReadyCondition)
		if ready == nil || ready.Status != metav1.ConditionFalse || ready.Reason != infrav1.MachineDomainMissingReason {
			return errors.New(describe(machine))
		}
		return nil
	})
	awaitMachine("another machine takes its place", func(libvirtMachine *infrav1.LibvirtMachine, machine *clusterv1.Machine) error {
		if libvirtMachine.Name == first.Name || !conditions.IsTrue(machine, clusterv1.MachineInfrastructureReadyCondition) {
			return fmt.Errorf("%s: %s", machine.Name, describe(machine))
		}
		return nil
	})
	t.Logf("Another machine was there %s after the domain was removed", time.Since(gone).Round(time.Second))
	s.expectNoTraces(green, "kvm1", uuid)
}
