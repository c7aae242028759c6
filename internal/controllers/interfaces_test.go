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
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"libvirt.org/go/libvirtxml"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/domain"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/host"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/hosttest"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/lab/privatehost"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/network"
)

// interfaces gives a machine interfaces beside that in the node network.
func interfaces(others ...infrav1.Interface) func(*machineParts) {
	return func(p *machineParts) {
		p.libvirtMachine.Spec.Interfaces = append([]infrav1.Interface{{Name: "nodes", Source: infrav1.InterfaceSourceCluster}}, others...)
	}
}

func inNetwork(name string) infrav1.Interface {
	return infrav1.Interface{Name: name, Source: infrav1.InterfaceSourceNetwork, Network: infrav1.InterfaceNetwork{Name: name}}
}

func onBridge(name string) infrav1.Interface {
	return infrav1.Interface{
		Name: name, Source: infrav1.InterfaceSourceBridge, Bridge: infrav1.InterfaceBridge{Name: name}, Addressing: infrav1.InterfaceAddressingNone,
	}
}

// storageNetwork is a network that somebody made on a host, with a DHCP server.
func storageNetwork(name, uuid string, subnet int) string {
	return fmt.Sprintf(`<network><name>%s</name><uuid>%s</uuid><bridge name='%s'/><ip address='10.77.%d.1' prefix='24'>`+
		`<dhcp><range start='10.77.%d.100' end='10.77.%d.199'/></dhcp></ip></network>`, name, uuid, name, subnet, subnet, subnet)
}

// nics are the interfaces of a machine's domain.
func (s *scene) nics(libvirtMachine *infrav1.LibvirtMachine) []libvirtxml.DomainInterface {
	s.t.Helper()
	document, err := s.kvm(libvirtMachine.Spec.HostName).DomainXML(s.t.Context(), uuidOf(libvirtMachine))
	must(s.t, err)
	return parse[libvirtxml.Domain](s.t, document).Devices.Interfaces
}

// internalIPs are the addresses that a machine reports.
func internalIPs(libvirtMachine *infrav1.LibvirtMachine) []string {
	var ips []string
	for _, address := range libvirtMachine.Status.Addresses {
		if address.Type == clusterv1.MachineInternalIP {
			ips = append(ips, address.Address)
		}
	}
	return ips
}

func TestSeveralInterfaces(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.readyHost("kvm1", testDriver(t))
	s.readyHost("kvm2", testDriver(t, hosttest.Bridge("br9")))
	green := s.readyCluster("green", "10.20.0.0/27")

	// Neither host has all that the machine is to be plugged into.
	m := s.createMachine("green", "green-a", interfaces(inNetwork("storage"), onBridge("br9")))
	s.expectCondition(m, infrav1.MachinePlacedCondition, metav1.ConditionFalse, infrav1.MachineNoHostFitsReason,
		"kvm1: has no libvirt network storage, and has no bridge br9; kvm2: has no libvirt network storage")
	// It is placed as soon as one has, though the other has more room.
	s.readyMachine("green", "other", func(p *machineParts) { p.libvirtMachine.Spec.HostName = "kvm2" })
	must(t, s.kvm("kvm2").EnsureNetwork(t.Context(), storageNetwork("storage", foreignUUID, 0)))
	s.expectReady(m)
	if m.Spec.HostName != "kvm2" {
		t.Errorf("It is on %s", m.Spec.HostName)
	}

	nics := s.nics(m)
	var found []string
	for k, nic := range nics {
		source := ""
		switch {
		case nic.Source.Network != nil:
			source = "network " + nic.Source.Network.Network
		case nic.Source.Bridge != nil:
			source = "bridge " + nic.Source.Bridge.Bridge
		}
		found = append(found, source+" as "+nic.Alias.Name)
		if want := network.InterfaceMAC(uuidOf(m), m.Spec.Interfaces[k]); nic.MAC.Address != want {
			t.Errorf("%s has the MAC address %s, want %s", source, nic.MAC.Address, want)
		}
	}
	if want := []string{"network " + s.namespace + ".green as ua-nodes", "network storage as ua-storage", "bridge br9 as ua-br9"}; !slices.Equal(found, want) {
		t.Errorf("Its interfaces are %q, want %q", found, want)
	}
	seed := uploaded.of(domain.SeedVolumeName(uuidOf(m)))
	for _, text := range []string{
		`addresses: ["` + internalIP(m) + `/27"]`, "via: 10.20.0.1\n", `"storage":`, `"br9":`, "use-routes: false", "local-ipv4: " + internalIP(m) + "\n",
	} {
		if !strings.Contains(seed, text) {
			t.Errorf("The bootstrap data lacks %q", text)
		}
	}
	s.expectAllThere(green, m)

	// What the guest got by DHCP is found without waiting for anything else, and stays while nobody knows.
	eventually(t, "the address in the network storage is reported", func() error {
		s.refresh(m)
		if ips := internalIPs(m); len(ips) != 2 || ips[0] != m.Spec.Address || !strings.HasPrefix(ips[1], "10.77.0.") {
			return fmt.Errorf("it has %v", ips)
		}
		return nil
	})
	reported := m.Status.Addresses
	touch(s, m)
	staysSo(t, "the addresses are reported", func() error {
		if s.refresh(m); !slices.Equal(m.Status.Addresses, reported) {
			return fmt.Errorf("it has %v", m.Status.Addresses)
		}
		return nil
	})

	s.delete(m)
	s.expectGone(m)
	s.expectNoTraces(green, "kvm2", uuidOf(m))
	if _, err := s.kvm("kvm2").Network(t.Context(), foreignUUID); err != nil {
		t.Errorf("The network storage: %v", err)
	}
}

// TestNetworkGoesBeforeTheMachine takes away what a machine that is placed already is to be plugged into.
func TestNetworkGoesBeforeTheMachine(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.readyHost("kvm1", testDriver(t))
	must(t, s.kvm("kvm1").EnsureNetwork(t.Context(), storageNetwork("storage", foreignUUID, 0)))
	green := s.readyCluster("green", "10.20.0.0/27")
	m := s.createMachine("green", "green-a", interfaces(inNetwork("storage")), func(p *machineParts) {
		p.machine.Spec.Bootstrap.DataSecretName = nil
		p.machine.Spec.Bootstrap.ConfigRef = clusterv1.ContractVersionedObjectReference{APIGroup: "bootstrap.cluster.x-k8s.io", Kind: "KubeadmConfig", Name: "green-a"}
	})
	s.expectCondition(m, infrav1.MachineBootstrapDataReadyCondition, metav1.ConditionFalse, infrav1.MachineWaitingForBootstrapDataReason)
	must(t, s.kvm("kvm1").DeleteNetwork(t.Context(), foreignUUID))
	change(s, s.machine("green-a"), func(m *clusterv1.Machine) {
		name := "green-a"
		m.Spec.Bootstrap.DataSecretName = &name
	})
	s.expectCondition(m, infrav1.MachineDomainReadyCondition, metav1.ConditionFalse, infrav1.MachineNetworkNotFoundReason,
		"spec.interfaces[storage]: host kvm1 has no libvirt network storage: define it there, or delete the Machine to have it placed elsewhere")
	s.expectNoTraces(green, "kvm1", uuidOf(m))
	must(t, s.kvm("kvm1").EnsureNetwork(t.Context(), storageNetwork("storage", foreignUUID, 0)))
	s.expectReady(m)
}

// TestNetworkOfAnotherNamespace tries to join the network of somebody else's cluster, by its name.
func TestNetworkOfAnotherNamespace(t *testing.T) {
	t.Parallel()
	lab := newLab(t)
	theirs, s := newScene(t), newScene(t)
	theirs.readyHost("kvm1", lab.URI())
	s.readyHost("kvm1", lab.URI())
	theirs.readyCluster("blue", "10.30.0.0/27")
	s.readyCluster("green", "10.20.0.0/27")
	s.readyCluster("olive", "10.40.0.0/27")
	spy := s.createMachine("green", "spy", emulated, interfaces(inNetwork(theirs.namespace+".blue")), func(p *machineParts) {
		p.libvirtMachine.Spec.Interfaces[1].Name = "blue"
	})
	s.expectCondition(spy, infrav1.MachinePlacedCondition, metav1.ConditionFalse, infrav1.MachineNoHostFitsReason,
		"kvm1: has the libvirt network "+theirs.namespace+".blue for a cluster of another namespace")
	s.readyMachine("green", "neighbour", emulated, interfaces(inNetwork(s.namespace+".olive")), func(p *machineParts) {
		p.libvirtMachine.Spec.Interfaces[1].Name = "olive"
	})
}

// TestBridgeOnARealHost plugs a machine into a bridge that comes late.
func TestBridgeOnARealHost(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	lab := newLab(t)
	s.readyHost("kvm1", lab.URI())
	s.readyCluster("green", "10.20.0.0/27")
	m := s.createMachine("green", "green-a", emulated, interfaces(onBridge("br9")))
	s.expectCondition(m, infrav1.MachinePlacedCondition, metav1.ConditionFalse, infrav1.MachineNoHostFitsReason, "kvm1: has no bridge br9")
	if _, err := s.kvm("kvm1").Domain(string(m.UID)); !errors.Is(err, host.ErrNotFound) {
		t.Errorf("There is a domain already: %v", err)
	}
	addBridge(t, lab, "br9")
	touch(s, m)
	s.expectReady(m)
	output, err := lab.Inside(t.Context(), "ip", "-oneline", "link", "show", "master", "br9").CombinedOutput()
	if err != nil || strings.Count(string(output), "\n") != 1 {
		t.Errorf("On the bridge are %q, %v", output, err)
	}
}

func addBridge(t *testing.T, lab *privatehost.Host, name string) {
	t.Helper()
	for _, arguments := range [][]string{{"link", "add", name, "type", "bridge"}, {"link", "set", name, "up"}} {
		if output, err := lab.Inside(t.Context(), "ip", arguments...).CombinedOutput(); err != nil {
			t.Fatalf("Making a bridge: ip %v: %v: %s", arguments, err, output)
		}
	}
}
