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
	"fmt"
	"strconv"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
)

// The settings of Calico 3.7: IPIP adds 20 bytes, and nobody asked whether the link carries that.
const (
	trapMTU   = 1440
	ipipBytes = 20
)

// trap is what those settings come to between two nodes: on each a pod, which is a network namespace, and a tunnel.
type trap struct {
	nodes [2]*infrav1.LibvirtMachine
}

// makeTrap sets up both ends. What answers in the second pod is netcheck, as in the cluster's own pods.
func makeTrap(ctx context.Context) trap {
	GinkgoHelper()
	var t trap
	for i, site := range sites {
		t.nodes[i] = site.machine(ctx)
	}
	for i, node := range t.nodes {
		inGuest(ctx, node, fmt.Sprintf(`set -e
cp /proc/$(pidof -s netcheck)/exe /root/netcheck
modprobe ipip
ip link add trap type ipip local %[1]s remote %[2]s
ip link set trap mtu %[5]d up
ip netns add trap
ip link add trap-pod type veth peer name eth0 netns trap
ip link set trap-pod mtu %[5]d up
ip address add 10.99.%[3]d.1/24 dev trap-pod
ip -n trap link set eth0 mtu %[5]d up
ip -n trap link set lo up
ip -n trap address add 10.99.%[3]d.2/24 dev eth0
ip -n trap route add default via 10.99.%[3]d.1
ip route add 10.99.%[4]d.0/24 dev trap
echo 1 >/proc/sys/net/ipv4/ip_forward
setsid ip netns exec trap /root/netcheck serve </dev/null >/dev/null 2>&1 &`,
			node.Spec.Address, t.nodes[1-i].Spec.Address, i+1, 2-i, trapMTU))
	}
	return t
}

// remove takes the trap away again.
func (t trap) remove(ctx context.Context) {
	GinkgoHelper()
	for _, node := range t.nodes {
		inGuest(ctx, node, "ip netns pids trap | xargs -r kill; ip netns delete trap; ip link delete trap; rm /root/netcheck; modprobe -r ipip || true")
	}
}

// setMTU sets that of the pods and of the tunnel.
func (t trap) setMTU(ctx context.Context, mtu int) {
	GinkgoHelper()
	for _, node := range t.nodes {
		inGuest(ctx, node, fmt.Sprintf("set -e; ip link set trap mtu %[1]d; ip link set trap-pod mtu %[1]d; ip -n trap link set eth0 mtu %[1]d", mtu))
	}
}

// fromPod has the pod on the first node run a command of netcheck, with nothing learned about the way to the other one.
func (t trap) fromPod(ctx context.Context, command string) (output string, status int) {
	GinkgoHelper()
	return tryInGuest(ctx, t.nodes[0], "ip netns exec trap ip route flush cache; ip netns exec trap /root/netcheck "+command)
}

// sent is what became of a transfer.
type sent struct {
	Status    int
	Node, Pod counters
}

// send sends 10 MB by TCP, and counts on the node and in the pod.
func (t trap) send(ctx context.Context, what string, seconds int) sent {
	GinkgoHelper()
	By(what)
	count := func() (node, pod counters) {
		return countInGuest(ctx, t.nodes[0], "cat /proc/net/snmp"), countInGuest(ctx, t.nodes[0], "ip netns exec trap cat /proc/net/snmp")
	}
	node, pod := count()
	output, status := t.fromPod(ctx, fmt.Sprintf("put -timeout %ds -bytes %d http://10.99.2.2:8080/bytes", seconds, transfer))
	nodeNow, podNow := count()
	s := sent{status, nodeNow.since(node), podNow.since(pod)}
	GinkgoWriter.Printf("%s: on the node %v, in the pod %v\n%s", what, s.Node, s.Pod, output)
	return s
}

// The kernel counts on the node what it drops for its length, and in the pod what the pod was told and what TCP sent again.
var (
	dropped = HaveField("Node", HaveKeyWithValue("IpFragFails", BeNumerically(">", 0)))
	fits    = SatisfyAll(HaveField("Status", 0), HaveField("Node", HaveKeyWithValue("IpFragFails", BeZero())), HaveField("Pod", HaveKeyWithValue("IcmpInDestUnreachs", BeZero())))
)

// expectTrap shows what the settings of 2019 do on a link of 1420 bytes, and what is to blame.
func expectTrap(ctx context.Context) {
	GinkgoHelper()
	t := makeTrap(ctx)
	defer t.remove(ctx)
	for _, node := range t.nodes {
		setOffloads(ctx, node, "on", "eth0")
	}
	largest := linkMTU - ipipBytes

	By("a ping, which is one packet: it is told")
	output, status := t.fromPod(ctx, "ping -size "+strconv.Itoa(largest-pingHeaders)+" 10.99.2.2")
	Expect(status).To(BeZero(), output)
	output, status = t.fromPod(ctx, "ping -size "+strconv.Itoa(trapMTU-pingHeaders)+" 10.99.2.2")
	Expect(status).NotTo(BeZero())
	Expect(output).To(ContainSubstring("the MTU is %d", largest))
	Expect(output).To(ContainSubstring("message too long"))

	// TCP hands the kernel many segments at once. They are cut apart behind the tunnel, found too long there and dropped,
	// and the node tells itself.
	s := t.send(ctx, "10 MB with offloads", 120)
	Expect(s).To(dropped)
	told := s.Pod["IcmpInDestUnreachs"]
	Expect(told).To(BeNumerically("<", s.Node["IpFragFails"]), "TCP was told of what was dropped")
	Expect(s.Node["IcmpInDestUnreachs"]).To(BeNumerically(">=", s.Node["IpFragFails"]), "the node doesn't tell itself")
	Expect(s.Pod["TcpRetransSegs"]).To(BeNumerically(">", 0))

	// Offloads of the node's network card have nothing to do with it.
	setOffloads(ctx, t.nodes[0], "off", "eth0")
	Expect(t.send(ctx, "10 MB without offloads of the network card", 120)).To(dropped)
	setOffloads(ctx, t.nodes[0], "on", "eth0")

	// Those of the tunnel have: segments are cut apart before it, each one that is too long is answered.
	setOffloads(ctx, t.nodes[0], "off", "trap")
	s = t.send(ctx, "10 MB without offloads of the tunnel", 120)
	Expect(s).To(SatisfyAll(HaveField("Status", 0), Not(dropped)))
	Expect(s.Pod["IcmpInDestUnreachs"]).To(BeNumerically(">", 0))
	setOffloads(ctx, t.nodes[0], "on", "trap")

	// What saves TCP in the end is that it sends single segments again, which are answered. Without the answers it hangs.
	inGuest(ctx, t.nodes[0], "iptables -I OUTPUT -p icmp --icmp-type fragmentation-needed -j DROP")
	s = t.send(ctx, "10 MB where ICMP is filtered", 30)
	Expect(s).To(dropped)
	Expect(s.Status).NotTo(BeZero())
	inGuest(ctx, t.nodes[0], "iptables -D OUTPUT -p icmp --icmp-type fragmentation-needed -j DROP")

	t.setMTU(ctx, largest)
	Expect(t.send(ctx, fmt.Sprintf("10 MB with an MTU of %d", largest), 120)).To(fits)
}
