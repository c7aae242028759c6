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
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"libvirt.org/go/libvirtxml"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/domain"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/hosttest"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/lab/privatehost"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/network"
)

// onLAN puts a cluster on an existing network: a libvirt network called lan unless edits say otherwise.
func onLAN(edits ...func(*infrav1.ClusterNetwork)) func(*infrav1.LibvirtCluster) {
	return func(c *infrav1.LibvirtCluster) {
		c.Spec.Network = infrav1.ClusterNetwork{
			ManagementPolicy: infrav1.NetworkExisting,
			Name:             "lan",
			CIDR:             "192.168.1.0/24",
			NodeRange:        "192.168.1.100-192.168.1.149",
			Gateway:          "192.168.1.1",
			Nameservers:      []string{"192.168.1.1", "192.168.1.3"},
		}
		for _, edit := range edits {
			edit(&c.Spec.Network)
		}
	}
}

func nodeRange(value string) func(*infrav1.ClusterNetwork) {
	return func(n *infrav1.ClusterNetwork) { n.NodeRange = value }
}

// lanNetwork is a network that somebody made on a host.
func lanNetwork(dhcp string) string {
	return fmt.Sprintf(`<network><name>lan</name><uuid>%s</uuid><bridge name='lan0'/><ip address='192.168.1.9' prefix='24'>%s</ip></network>`, foreignUUID, dhcp)
}

func TestClusterOnAnExistingNetwork(t *testing.T) {
	t.Parallel()
	const count = 20
	s := newScene(t)
	before := map[string]string{}
	for _, name := range []string{"kvm1", "kvm2"} {
		s.readyHost(name, testDriver(t, hosttest.Memory(11), hosttest.CPUs(32)))
		must(t, s.kvm(name).EnsureNetwork(t.Context(), lanNetwork("")))
		found, err := s.kvm(name).Network(t.Context(), foreignUUID)
		must(t, err)
		before[name] = found.XML
	}
	green := s.readyCluster("green", "192.168.1.0/24", onLAN())
	if green.Spec.Network.UUID != "" || !slices.Equal(green.Status.Hosts, []string{"kvm1", "kvm2"}) || len(green.Status.FailureDomains) != 2 {
		t.Errorf("It has the network %q on %v, failure domains %v", green.Spec.Network.UUID, green.Status.Hosts, green.Status.FailureDomains)
	}

	var machines []*infrav1.LibvirtMachine
	for k := range count {
		machines = append(machines, s.createMachine("green", fmt.Sprintf("green-%d", k)))
	}
	addresses, perHost := map[string]string{}, map[string]int{}
	for _, m := range machines {
		s.expectReady(m)
		ip := m.Spec.Address
		if other, taken := addresses[ip]; taken || ip == "" || internalIP(m) != ip {
			t.Errorf("%s has the address %q, reports %q; %s has it too", m.Name, ip, internalIP(m), other)
		}
		addresses[ip] = m.Name
		perHost[m.Spec.HostName]++
		document, err := s.kvm(m.Spec.HostName).DomainXML(t.Context(), uuidOf(m))
		must(t, err)
		if nic := parse[libvirtxml.Domain](t, document).Devices.Interfaces[0]; nic.Source.Network == nil || nic.Source.Network.Network != "lan" || nic.MAC.Address != network.MAC(uuidOf(m)) {
			t.Errorf("The interface of %s is %+v", m.Name, nic)
		}
		seed := uploaded.of(domain.SeedVolumeName(uuidOf(m)))
		for _, text := range []string{
			`macaddress: "` + network.MAC(uuidOf(m)) + `"`, `addresses: ["` + ip + `/24"]`, "dhcp4: false", "via: 192.168.1.1\n",
			`addresses: ["192.168.1.1", "192.168.1.3"]`, "local-ipv4: " + ip + "\n",
		} {
			if !strings.Contains(seed, text) {
				t.Errorf("The bootstrap data of %s lacks %q", m.Name, text)
			}
		}
	}
	if perHost["kvm1"] != count/2 || perHost["kvm2"] != count/2 {
		t.Errorf("The hosts have %v machines", perHost)
	}
	for k := range count {
		if ip := fmt.Sprintf("192.168.1.%d", 100+k); addresses[ip] == "" {
			t.Errorf("Nobody has %s", ip)
		}
	}

	for _, m := range machines {
		s.delete(m)
	}
	for _, m := range machines {
		s.expectGone(m)
	}
	s.delete(green)
	s.expectGone(green)
	for name, document := range before {
		if found, err := s.kvm(name).Network(t.Context(), foreignUUID); err != nil || !found.Active || found.XML != document {
			t.Errorf("The network on %s was\n%s\nand is\n%+v\n%v", name, document, found, err)
		}
	}
}

// TestAddressOutlivesStatus loses the status of a machine, as a move does, and makes another machine at that moment.
func TestAddressOutlivesStatus(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	for _, name := range []string{"kvm1", "kvm2"} {
		s.readyHost(name, testDriver(t))
		must(t, s.kvm(name).EnsureNetwork(t.Context(), lanNetwork("")))
	}
	s.readyCluster("green", "192.168.1.0/24", onLAN())
	first := s.readyMachine("green", "first")
	setPaused := func(paused bool) {
		change(s, first, func(m *infrav1.LibvirtMachine) {
			if delete(m.Annotations, clusterv1.PausedAnnotation); paused {
				setAnnotation(m, clusterv1.PausedAnnotation, "")
			}
		})
	}
	setPaused(true)
	s.expectCondition(first, clusterv1.PausedCondition, metav1.ConditionTrue, clusterv1.PausedReason)
	changeStatus(s, first, func(m *infrav1.LibvirtMachine) { m.Status = infrav1.LibvirtMachineStatus{} })
	second := s.readyMachine("green", "second")
	setPaused(false)
	s.expectReady(first)
	if internalIP(first) != "192.168.1.100" || internalIP(second) != "192.168.1.101" {
		t.Errorf("They have %s and %s", internalIP(first), internalIP(second))
	}
	// It goes back once its machine is gone.
	s.delete(first)
	s.expectGone(first)
	if third := s.readyMachine("green", "third"); internalIP(third) != "192.168.1.100" {
		t.Errorf("The third has %s", internalIP(third))
	}
}

func TestMachineAddressMustBeItsOwn(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.readyHost("kvm1", testDriver(t))
	green := s.readyCluster("green", "10.20.0.0/27")
	first := s.readyMachine("green", "first")
	wish := func(ip string) func(*machineParts) {
		return func(p *machineParts) { p.libvirtMachine.Spec.Address = ip }
	}
	second := s.createMachine("green", "second", wish(internalIP(first)))
	s.expectCondition(second, infrav1.MachineDomainReadyCondition, metav1.ConditionFalse, infrav1.MachineAddressConflictReason,
		"spec.address 10.20.0.10 is also that of LibvirtMachine first: delete one of the two Machines")
	virtual := s.createMachine("green", "virtual", wish("10.20.0.3"))
	s.expectCondition(virtual, infrav1.MachineDomainReadyCondition, metav1.ConditionFalse, infrav1.MachineAddressConflictReason,
		"spec.address 10.20.0.3 isn't one of the node addresses on host kvm1, 10.20.0.10-10.20.0.30")
	if wanted := s.readyMachine("green", "wanted", wish("10.20.0.20")); internalIP(wanted) != "10.20.0.20" {
		t.Errorf("It has %s", internalIP(wanted))
	}
	for _, m := range []*infrav1.LibvirtMachine{second, virtual} {
		s.delete(m)
		s.expectGone(m)
		s.expectNoTraces(green, "kvm1", uuidOf(m))
	}
	s.expectAllThere(green, first)
}

func TestExistingNetworkThatIsNotFit(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.readyHost("kvm1", testDriver(t))
	s.readyHost("kvm2", testDriver(t))
	must(t, s.kvm("kvm1").EnsureNetwork(t.Context(), lanNetwork("")))
	green := s.createCluster("green", "192.168.1.0/24", onLAN())
	notFit := func(reason string, texts ...string) {
		t.Helper()
		s.expectCondition(green, infrav1.ClusterNetworkReadyCondition, metav1.ConditionFalse, reason, texts...)
		eventually(t, "it uses the other host", func() error {
			if s.refresh(green); !slices.Equal(green.Status.Hosts, []string{"kvm1"}) {
				return fmt.Errorf("it uses %v", green.Status.Hosts)
			}
			return nil
		})
	}
	notFit(infrav1.ClusterNetworkNotFoundReason, "kvm2: spec.network.name: the host has no libvirt network lan: define it there, or select other hosts")
	// The other host is of use all the same, and nobody asks for the missing network.
	eventually(t, "it is provisioned", func() error {
		if s.refresh(green); !ptr.Deref(green.Status.Initialization.Provisioned, false) {
			return fmt.Errorf("%s", describe(green))
		}
		return nil
	})
	s.setInfrastructureProvisioned("green")
	for k := range 2 {
		if m := s.readyMachine("green", fmt.Sprintf("green-%d", k)); m.Spec.HostName != "kvm1" {
			t.Errorf("%s is on %s", m.Name, m.Spec.HostName)
		}
	}

	// It is noticed by itself when somebody makes the network, badly at first.
	must(t, s.kvm("kvm2").EnsureNetwork(t.Context(), lanNetwork("<dhcp><range start='192.168.1.140' end='192.168.1.200'/></dhcp>")))
	notFit(infrav1.ClusterNetworkConflictReason,
		"kvm2: spec.network.nodeRange 192.168.1.100-192.168.1.149: overlaps 192.168.1.140-192.168.1.200, which DHCP gives out in network lan")
	must(t, s.kvm("kvm2").DeleteNetwork(t.Context(), foreignUUID))
	notFit(infrav1.ClusterNetworkNotFoundReason, "kvm2: ")
	must(t, s.kvm("kvm2").EnsureNetwork(t.Context(), lanNetwork("<dhcp><range start='192.168.1.150' end='192.168.1.200'/></dhcp>")))
	s.expectReady(green)
	// Conditions are written a moment before the rest of the status.
	eventually(t, "it uses both hosts", func() error {
		if s.refresh(green); !slices.Equal(green.Status.Hosts, []string{"kvm1", "kvm2"}) {
			return fmt.Errorf("it uses %v", green.Status.Hosts)
		}
		return nil
	})

	// Where machines are in it, its loss is said, and the host stays in use.
	must(t, s.kvm("kvm1").DeleteNetwork(t.Context(), foreignUUID))
	s.expectCondition(green, infrav1.ClusterNetworkReadyCondition, metav1.ConditionFalse, infrav1.ClusterNetworkNotFoundReason, "kvm1: ")
	if !slices.Equal(green.Status.Hosts, []string{"kvm1", "kvm2"}) {
		t.Errorf("It uses %v", green.Status.Hosts)
	}
}

// TestClustersOnOneExistingNetwork creates two clusters that give out the same addresses; there is no admission here.
func TestClustersOnOneExistingNetwork(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.readyHost("kvm1", testDriver(t))
	must(t, s.kvm("kvm1").EnsureNetwork(t.Context(), lanNetwork("")))
	s.readyCluster("a-green", "192.168.1.0/24", onLAN())
	white := s.createCluster("b-white", "192.168.1.0/24", onLAN(nodeRange("192.168.1.120-192.168.1.130")), func(c *infrav1.LibvirtCluster) {
		c.Spec.ControlPlaneEndpoint = infrav1.APIEndpoint{Host: "192.168.1.20", Port: 6443}
	})
	s.expectCondition(white, infrav1.ClusterNetworkReadyCondition, metav1.ConditionFalse, infrav1.ClusterNetworkConflictReason,
		"spec.network.nodeRange 192.168.1.120-192.168.1.130: overlaps the nodeRange 192.168.1.100-192.168.1.149 of LibvirtCluster a-green, which uses the same network: choose another")
	if white.Status.Initialization.Provisioned != nil {
		t.Error("It is provisioned")
	}
	blue := s.createCluster("c-blue", "192.168.1.0/24", onLAN(nodeRange("192.168.1.150-192.168.1.160")), func(c *infrav1.LibvirtCluster) {
		c.Spec.ControlPlaneEndpoint = infrav1.APIEndpoint{Host: "192.168.1.30", Port: 6443}
	})
	s.expectReady(blue)
}

// TestNodeRangeIsWidened uses a range up and widens it.
func TestNodeRangeIsWidened(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.readyHost("kvm1", testDriver(t))
	must(t, s.kvm("kvm1").EnsureNetwork(t.Context(), lanNetwork("")))
	green := s.readyCluster("green", "192.168.1.0/24", onLAN(nodeRange("192.168.1.100-192.168.1.100")))
	s.readyMachine("green", "first")
	second := s.createMachine("green", "second")
	s.expectCondition(second, infrav1.MachineDomainReadyCondition, metav1.ConditionFalse, infrav1.MachineAddressesExhaustedReason,
		"1 of 1 in 192.168.1.100: delete machines, or widen spec.network.nodeRange")
	s.settles(second)
	change(s, green, func(c *infrav1.LibvirtCluster) { c.Spec.Network.NodeRange = "192.168.1.100-192.168.1.101" })
	s.expectWoken(second)
	if internalIP(second) != "192.168.1.101" {
		t.Errorf("It has %s", internalIP(second))
	}
}

func TestSubnetPerFailureDomain(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	in := func(failureDomain string) func(*infrav1.LibvirtHost) {
		return func(h *infrav1.LibvirtHost) { h.Spec.FailureDomain = failureDomain }
	}
	s.readyHost("kvm1", testDriver(t))
	s.readyHost("kvm2", testDriver(t), in("attic"))
	s.readyHost("kvm3", testDriver(t), in("attic"))
	green := s.readyCluster("green", "10.20.0.0/27", func(c *infrav1.LibvirtCluster) {
		c.Spec.Network.IngressCIDR = "10.20.0.32/27"
		c.Spec.Network.Subnets = []infrav1.Subnet{{FailureDomain: "attic", CIDR: "10.20.1.0/27"}}
	})
	gateways := func(hostName string) string {
		found, err := s.kvm(hostName).Network(t.Context(), green.Spec.Network.UUID)
		if err != nil {
			return err.Error()
		}
		var addresses []string
		for _, ip := range parse[libvirtxml.Network](t, found.XML).IPs {
			addresses = append(addresses, fmt.Sprintf("%s/%d", ip.Address, ip.Prefix))
		}
		return strings.Join(addresses, " ")
	}
	for hostName, want := range map[string]string{"kvm1": "10.20.0.1/27 10.20.0.33/27", "kvm2": "10.20.1.1/27", "kvm3": "10.20.1.1/27"} {
		if got := gateways(hostName); got != want {
			t.Errorf("%s has %s in the network, want %s", hostName, got, want)
		}
	}
	// Two hosts of one failure domain have the same range and never give out the same address.
	pin := func(hostName string) func(*machineParts) {
		return func(p *machineParts) { p.libvirtMachine.Spec.HostName = hostName }
	}
	for _, tt := range []struct{ hostName, want string }{
		{"kvm1", "10.20.0.10"}, {"kvm2", "10.20.1.10"}, {"kvm3", "10.20.1.11"}, {"kvm2", "10.20.1.12"},
	} {
		m := s.readyMachine("green", "on-"+strings.ReplaceAll(tt.want, ".", "-"), pin(tt.hostName))
		if internalIP(m) != tt.want {
			t.Errorf("The machine on %s has %s, want %s", tt.hostName, internalIP(m), tt.want)
		}
		s.expectAllThere(green, m)
	}

	// A host that moves to another failure domain gets the other range, unless machines are in the network.
	kvm3 := &infrav1.LibvirtHost{ObjectMeta: s.meta("kvm3", "")}
	change(s, kvm3, in("cellar"))
	s.expectCondition(green, infrav1.ClusterNetworkReadyCondition, metav1.ConditionFalse, infrav1.ClusterNetworkConflictReason,
		"kvm3: the network isn't the 10.20.0.0/27 that spec.network has for failure domain cellar, and 1 machines are in it, on-10-20-1-11 among them")
	m := &infrav1.LibvirtMachine{ObjectMeta: s.meta("on-10-20-1-11", "green")}
	s.delete(m)
	s.expectGone(m)
	s.expectReady(green)
	if got := gateways("kvm3"); got != "10.20.0.1/27 10.20.0.33/27" {
		t.Errorf("kvm3 has %s in the network", got)
	}
}

// TestMachinesOnABridgeOfTwoHosts puts machines on a bridge that real hosts share.
func TestMachinesOnABridgeOfTwoHosts(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	labs := map[string]*privatehost.Host{"kvm1": newLab(t), "kvm2": newLab(t)}
	must(t, privatehost.Join(t.Context(), labs["kvm1"], labs["kvm2"], "lan0"))
	for name, lab := range labs {
		s.readyHost(name, lab.URI())
	}
	green := s.readyCluster("green", "192.168.1.0/24", onLAN(func(n *infrav1.ClusterNetwork) { n.Name, n.Bridge = "", "lan0" }))
	for k, name := range []string{"kvm1", "kvm2"} {
		m := s.readyMachine("green", "on-"+name, emulated, func(p *machineParts) { p.libvirtMachine.Spec.HostName = name })
		if want := fmt.Sprintf("192.168.1.%d", 100+k); m.Spec.Address != want || internalIP(m) != want {
			t.Errorf("It has %s, reports %s, want %s", m.Spec.Address, internalIP(m), want)
		}
		document, err := s.kvm(name).DomainXML(t.Context(), uuidOf(m))
		must(t, err)
		nic := parse[libvirtxml.Domain](t, document).Devices.Interfaces[0]
		if nic.Source.Bridge == nil || nic.Source.Bridge.Bridge != "lan0" {
			t.Errorf("The interface on %s is %+v", name, nic.Source)
		}
		// libvirt gives the host's end of the interface the guest's MAC address but for the first byte.
		end := "fe" + strings.TrimPrefix(network.MAC(uuidOf(m)), "52")
		ports, err := labs[name].Inside(t.Context(), "ip", "-br", "link", "show", "master", "lan0").CombinedOutput()
		if err != nil || !strings.Contains(string(ports), end) {
			t.Errorf("The bridge on %s has the ports\n%s%v, and not %s", name, ports, err, end)
		}
	}
	for name := range labs {
		m := &infrav1.LibvirtMachine{ObjectMeta: s.meta("on-"+name, "green")}
		s.delete(m)
		s.expectGone(m)
	}
	// Whether a host has the bridge shows when a machine starts.
	must(t, labs["kvm2"].Inside(t.Context(), "ip", "link", "del", "lan0").Run())
	m := s.createMachine("green", "nowhere", emulated, func(p *machineParts) { p.libvirtMachine.Spec.HostName = "kvm2" })
	s.expectCondition(m, infrav1.MachineDomainReadyCondition, metav1.ConditionFalse, infrav1.MachineStartFailedReason, "host kvm2", "'lan0'")
	s.delete(m)
	s.expectGone(m)
	s.delete(green)
	s.expectGone(green)
	if output, err := exec.Command("ip", "link", "show", "lan0").CombinedOutput(); err == nil {
		t.Errorf("The machine itself has a bridge:\n%s", output)
	}
}
