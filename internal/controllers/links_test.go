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
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"libvirt.org/go/libvirtxml"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/gateway"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/lab/privatehost"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/network"
)

// linkSites has a cluster link the hosts of a site with that of another one.
func linkSites(c *infrav1.LibvirtCluster) {
	c.Spec.HostSelector.MatchLabels = map[string]string{"use": "green"}
	c.Spec.Network.IngressCIDR = "10.20.0.128/25"
	c.Spec.Network.Subnets = []infrav1.Subnet{{FailureDomain: "kvm2", CIDR: "10.20.1.0/25"}}
	c.Spec.Network.SiteLink = infrav1.SiteLink{Type: infrav1.SiteLinkWireGuard}
}

// reachable labels a host for the cluster and says how others reach it, if they do.
func reachable(address string) func(*infrav1.LibvirtHost) {
	return func(h *infrav1.LibvirtHost) {
		h.Labels["use"] = "green"
		h.Spec.WireGuard = &infrav1.HostWireGuard{Address: address}
	}
}

// siteAgent answers for the agent of a real host, in libvirt's metadata.
type siteAgent struct {
	s    *scene
	lab  *privatehost.Host
	name string
	// link is what it tells, without its peers.
	link gateway.LinkStatus
	// silentOf are the names of peers that it doesn't hear of.
	silentOf []string
}

// apply tells that what is wanted of a cluster's network by now was done.
func (a *siteAgent) apply(libvirtCluster *infrav1.LibvirtCluster) {
	a.s.t.Helper()
	wanted, err := a.s.wantedOn(a.name, libvirtCluster)
	must(a.s.t, err)
	status := tells(libvirtCluster, wanted.Generation())
	status.Networks[0].Applied = &wanted
	link := a.link
	for _, peer := range wanted.Link.Peers {
		keys := []wgtypes.Key{peer.Key}
		if peer.Next != (wgtypes.Key{}) {
			keys = append(keys, peer.Next)
		}
		link.Peers = append(link.Peers, gateway.PeerStatus{Name: peer.Name, Keys: keys, Connected: !slices.Contains(a.silentOf, peer.Name)})
	}
	status.Link = &link
	agentSays(a.s.t, a.lab, status)
}

// expectLink waits until the metadata of a cluster's network on a host wants a link of which check finds nothing to
// complain. It returns how long that took.
func (s *scene) expectLink(what, hostName string, libvirtCluster *infrav1.LibvirtCluster, check func(gateway.Link) error) time.Duration {
	s.t.Helper()
	began := time.Now()
	eventually(s.t, what, func() error {
		wanted, err := s.wantedOn(hostName, libvirtCluster)
		if err != nil {
			return err
		}
		if wanted.Link == nil {
			return errors.New("it wants no link")
		}
		if err := check(*wanted.Link); err != nil {
			return fmt.Errorf("%w: it wants %+v", err, *wanted.Link)
		}
		return nil
	})
	took := time.Since(began).Round(time.Millisecond)
	s.t.Logf("After %s: %s", took, what)
	return took
}

// hasPeers checks that a link has the peers of these names and keys, of which the second is the next key, and no others.
func hasPeers(want map[string][2]wgtypes.Key) func(gateway.Link) error {
	return func(link gateway.Link) error {
		if len(link.Peers) != len(want) {
			return fmt.Errorf("it has %d peers, not %d", len(link.Peers), len(want))
		}
		for _, peer := range link.Peers {
			if keys, ok := want[peer.Name]; !ok || keys != [2]wgtypes.Key{peer.Key, peer.Next} {
				return fmt.Errorf("its peer %s isn't as it should be", peer.Name)
			}
		}
		return nil
	}
}

func siteKey(n byte) wgtypes.Key { return wgtypes.Key{0: n, 31: n} }

// TestLinkedSites has a cluster on two sites come up, rotate a key, lose a host for a while, and one for good. The hosts are
// real and their agents played.
func TestLinkedSites(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	one := &siteAgent{s: s, lab: newLab(t), name: "kvm1", link: gateway.LinkStatus{Key: siteKey(1)}}
	two := &siteAgent{s: s, lab: newLab(t), name: "kvm2", link: gateway.LinkStatus{Key: siteKey(2)}}
	s.readyHost("kvm1", one.lab.URI(), reachable("203.0.113.10"))
	kvm2 := s.readyHost("kvm2", two.lab.URI(), reachable(""))
	green := s.createCluster("green", "10.20.0.0/25", linkSites)
	expect := func(status metav1.ConditionStatus, reason string, texts ...string) {
		t.Helper()
		s.expectCondition(green, infrav1.ClusterSitesLinkedCondition, status, reason, texts...)
	}
	refused := func(reason string, texts ...string) {
		t.Helper()
		expect(metav1.ConditionFalse, reason, texts...)
	}
	none := hasPeers(nil)

	// Before there is a key there is a link, by which the agents know that they need one.
	refused(infrav1.ClusterGatewayAgentNotSeenReason, "kvm1: no host agent has reported", "kvm2: ")
	s.expectLink("kvm1 is to make a key", "kvm1", green, none)
	s.expectLink("kvm2 is to make a key", "kvm2", green, func(link gateway.Link) error {
		if link.Port != infrav1.DefaultWireGuardPort || link.MTU != 1420 {
			return errors.New("port or MTU are wrong")
		}
		return none(link)
	})
	s.refresh(green)
	document, err := s.kvm("kvm2").NetworkXML(t.Context(), green.Spec.Network.UUID)
	must(t, err)
	if net := parse[libvirtxml.Network](t, document); net.MTU.Size != 1420 || net.Forward.Mode != "open" || net.IPs[0].Address != "10.20.1.1" {
		t.Errorf("The network on kvm2 is\n%s", document)
	}
	s.expectSites(green, map[string]bool{"kvm1": true, "kvm2": false})

	// The key of one makes its way to the other.
	one.apply(green)
	if took := s.expectLink("kvm2 knows kvm1", "kvm2", green, func(link gateway.Link) error {
		if err := hasPeers(map[string][2]wgtypes.Key{"kvm1": {siteKey(1)}})(link); err != nil {
			return err
		}
		want := []netip.Prefix{netip.MustParsePrefix("10.20.0.0/25"), netip.MustParsePrefix("10.20.0.128/25")}
		if peer := link.Peers[0]; peer.Endpoint.String() != "203.0.113.10:51820" || !slices.Equal(peer.Ranges, want) {
			return errors.New("endpoint or ranges are wrong")
		}
		return nil
	}); took > 10*time.Second {
		t.Errorf("It took %s", took)
	}
	kvm1 := &infrav1.LibvirtHost{ObjectMeta: s.meta("kvm1", "")}
	eventually(t, "the key is written down", func() error {
		if s.refresh(kvm1); kvm1.Status.WireGuard.PublicKey != siteKey(1).String() {
			return fmt.Errorf("it is %q", kvm1.Status.WireGuard.PublicKey)
		}
		return nil
	})
	refused(infrav1.ClusterGatewayAgentNotSeenReason, "kvm2: no host agent has reported")
	two.apply(green)
	s.expectLink("kvm1 knows kvm2", "kvm1", green, func(link gateway.Link) error {
		if err := hasPeers(map[string][2]wgtypes.Key{"kvm2": {siteKey(2)}})(link); err != nil {
			return err
		}
		if peer := link.Peers[0]; peer.Endpoint.IsValid() || !slices.Equal(peer.Ranges, []netip.Prefix{netip.MustParsePrefix("10.20.1.0/25")}) {
			return errors.New("endpoint or ranges are wrong")
		}
		return nil
	})
	refused(infrav1.ClusterGatewayNotAppliedReason, "kvm1: the host agent has applied generation")
	one.silentOf = []string{"kvm2"}
	one.apply(green)
	two.apply(green)
	refused(infrav1.ClusterSitesNotConnectedReason, "kvm1 and kvm2 aren't connected, kvm1 hasn't heard of kvm2 lately", "on the way to 203.0.113.10:51820")
	one.silentOf = nil
	one.apply(green)
	expect(metav1.ConditionTrue, infrav1.ClusterSitesLinkedReason)
	s.expectReady(green)

	// While nothing happens, nobody is asked.
	kvm := s.kvm("kvm1")
	before := settledCalls(t, kvm)
	for range 3 {
		touch(s, green)
		time.Sleep(1200 * time.Millisecond)
	}
	if made := difference(before, withoutPings(kvm.Calls())); len(made) > 0 {
		t.Errorf("Reconciling caused %v", made)
	}

	// A worker comes to the second site, and a control-plane machine doesn't.
	s.setInfrastructureProvisioned("green")
	if worker := s.readyMachine("green", "worker", emulated, onHost("kvm2")); !strings.HasPrefix(internalIP(worker), "10.20.1.") {
		t.Errorf("The worker on kvm2 has the address %q", internalIP(worker))
	}
	misplaced := s.createMachine("green", "cp", emulated, onHost("kvm2"), labelled(clusterv1.MachineControlPlaneLabel, ""))
	s.expectCondition(misplaced, infrav1.MachinePlacedCondition, metav1.ConditionFalse, infrav1.MachineNoHostFitsReason,
		"kvm2: is on another site than the control-plane endpoint: control-plane machines need a failure domain without a subnet")

	// Another key.
	one.link.Next = siteKey(9)
	one.apply(green)
	s.expectLink("kvm2 knows the next key of kvm1", "kvm2", green, hasPeers(map[string][2]wgtypes.Key{"kvm1": {siteKey(1), siteKey(9)}}))
	waits := func(link gateway.Link) error {
		if link.SwitchTo != (wgtypes.Key{}) {
			return errors.New("it is to go over")
		}
		return nil
	}
	staysSo(t, "kvm1 waits for kvm2", func() error {
		wanted, err := s.wantedOn("kvm1", green)
		if err != nil {
			return err
		}
		return waits(*wanted.Link)
	})
	two.apply(green)
	s.expectLink("kvm1 is to go over to its next key", "kvm1", green, func(link gateway.Link) error {
		if link.SwitchTo != siteKey(9) {
			return errors.New("it isn't")
		}
		return nil
	})
	one.apply(green)
	expect(metav1.ConditionTrue, infrav1.ClusterSitesLinkedReason, "kvm1: goes over to another key")
	one.link = gateway.LinkStatus{Key: siteKey(9)}
	one.apply(green)
	s.expectLink("kvm2 knows the new key only", "kvm2", green, hasPeers(map[string][2]wgtypes.Key{"kvm1": {siteKey(9)}}))
	s.expectLink("kvm1 has gone over", "kvm1", green, waits)
	one.apply(green)
	two.apply(green)
	expect(metav1.ConditionTrue, infrav1.ClusterSitesLinkedReason)

	// A host is away, and nothing is known of it but what the other one was told: it stays a peer. Meanwhile a host comes
	// that has the range of kvm1.
	must(t, two.lab.StopDaemon(t.Context(), syscall.SIGKILL))
	eventually(t, "kvm2 isn't ready", func() error {
		if s.refresh(kvm2); ptr.Deref(readyStatus(kvm2), "") == metav1.ConditionTrue {
			return errors.New(describe(kvm2))
		}
		return nil
	})
	changeStatus(s, kvm2, func(h *infrav1.LibvirtHost) { h.Status.WireGuard = infrav1.HostWireGuardStatus{} })
	touch(s, green)
	three := &siteAgent{s: s, lab: newLab(t), name: "kvm3"}
	kvm3 := s.readyHost("kvm3", three.lab.URI(), reachable("203.0.113.30"))
	refused(infrav1.ClusterSitesSharedRangeReason, "kvm1 and kvm3 both have the range 10.20.0.0/25", "give kvm3 a spec.failureDomain with a range in spec.network.subnets")
	staysSo(t, "kvm1 keeps kvm2 and doesn't know kvm3", func() error {
		wanted, err := s.wantedOn("kvm1", green)
		if err != nil {
			return err
		}
		return hasPeers(map[string][2]wgtypes.Key{"kvm2": {siteKey(2)}})(*wanted.Link)
	})
	if s.refresh(green); slices.Contains(green.Status.Hosts, "kvm3") {
		t.Errorf("The cluster uses %v", green.Status.Hosts)
	}
	change(s, kvm3, func(h *infrav1.LibvirtHost) { h.Spec.WireGuard, h.Spec.FailureDomain = nil, "kvm3" })
	change(s, green, func(c *infrav1.LibvirtCluster) {
		c.Spec.Network.Subnets = append(c.Spec.Network.Subnets, infrav1.Subnet{FailureDomain: "kvm3", CIDR: "10.20.2.0/25"})
	})
	refused(infrav1.ClusterSitesWireGuardNotSetReason, "kvm3: the LibvirtHost doesn't say how the others reach it")
	change(s, kvm3, func(h *infrav1.LibvirtHost) { delete(h.Labels, "use") })

	// It is back, and leaves.
	must(t, two.lab.StartDaemon(t.Context()))
	s.expectReady(kvm2)
	two.apply(green)
	expect(metav1.ConditionTrue, infrav1.ClusterSitesLinkedReason)
	for _, name := range []string{"worker", "cp"} {
		s.delete(s.machine(name))
		m := &infrav1.LibvirtMachine{ObjectMeta: s.meta(name, "green")}
		s.delete(m)
		s.expectGone(m)
	}
	change(s, kvm2, func(h *infrav1.LibvirtHost) { delete(h.Labels, "use") })
	s.expectLink("kvm1 doesn't know kvm2 any more", "kvm1", green, none)
	one.apply(green)
	expect(metav1.ConditionTrue, infrav1.ClusterSitesLinkedReason)
}

func readyStatus(h *infrav1.LibvirtHost) *metav1.ConditionStatus {
	for _, condition := range h.Status.Conditions {
		if condition.Type == infrav1.ReadyCondition {
			return &condition.Status
		}
	}
	return nil
}

// expectSites waits until a cluster has failure domains that are for control-plane machines or not.
func (s *scene) expectSites(libvirtCluster *infrav1.LibvirtCluster, want map[string]bool) {
	s.t.Helper()
	eventually(s.t, "the cluster has failure domains", func() error {
		s.refresh(libvirtCluster)
		found := libvirtCluster.Status.FailureDomains
		if len(found) != len(want) {
			return fmt.Errorf("got %v", found)
		}
		for _, f := range found {
			if controlPlane, ok := want[f.Name]; !ok || ptr.Deref(f.ControlPlane, false) != controlPlane {
				return fmt.Errorf("got %s, %t", f.Name, ptr.Deref(f.ControlPlane, false))
			}
		}
		return nil
	})
}

// TestJudgeLinks has everything be wrong with links that can be.
func TestJudgeLinks(t *testing.T) {
	const uuid, silence = "3e2c9f80-5b5d-4bb0-8f43-5b0e0a2f7c11", 5 * time.Minute
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	ranges := []netip.Prefix{netip.MustParsePrefix("10.20.0.0/25"), netip.MustParsePrefix("10.20.1.0/25")}
	var wanted gateway.Wanted
	type edit func(*linkView)
	peers := func(silent ...string) []gateway.PeerStatus {
		return []gateway.PeerStatus{
			{Name: "a", Keys: []wgtypes.Key{siteKey(1)}, Connected: !slices.Contains(silent, "a")},
			{Name: "b", Keys: []wgtypes.Key{siteKey(9), siteKey(2)}, Connected: !slices.Contains(silent, "b")},
		}
	}
	view := func(edits []edit) linkView {
		v := linkView{ranges: ranges, networkUUID: uuid, now: now, silence: silence, sites: []network.Site{
			{Name: "a", Address: netip.MustParseAddr("203.0.113.1"), Port: 51820, Key: siteKey(1), Peers: peers()},
			{Name: "b", Address: netip.MustParseAddr("203.0.113.2"), Port: 51821, Key: siteKey(2), Peers: peers()},
		}}
		for _, name := range []string{"a", "b"} {
			v.seen = append(v.seen, gatewayOnHost{name: name, wanted: wanted, agent: agentSighting{
				looked: now, changed: now, status: gateway.Status{
					Renewed: now, Link: &gateway.LinkStatus{}, Networks: []gateway.NetworkStatus{{UUID: uuid, Generation: wanted.Generation()}},
				},
			}})
		}
		for _, edit := range edits {
			edit(&v)
		}
		return v
	}
	away := func(v *linkView) { v.seen, v.sites[1].Peers = v.seen[:1], nil }
	for _, tt := range []struct {
		name  string
		edits []edit
		want  []string
	}{
		{"linked", nil, nil},
		{"one behind NAT", []edit{func(v *linkView) { v.sites[0].Address = netip.Addr{} }}, nil},
		{"one is away", []edit{away}, nil},
		{"one is away and not heard of", []edit{away, func(v *linkView) { v.sites[0].Peers = peers("b") }}, []string{
			"NotConnected a and b aren't connected, a hasn't heard of b lately: let UDP through every firewall on the way to 203.0.113.1:51820 and 203.0.113.2:51821, and see to spec.wireGuard of the two LibvirtHosts",
		}},
		{"the other hears nothing", []edit{func(v *linkView) { v.sites[1].Peers = peers("a"); v.sites[1].Address = netip.Addr{} }}, []string{
			"NotConnected a and b aren't connected, b hasn't heard of a lately: let UDP through every firewall on the way to 203.0.113.1:51820, and see to spec.wireGuard of the two LibvirtHosts",
		}},
		{"one is away and unknown", []edit{away, func(v *linkView) { v.sites[1].Key = wgtypes.Key{} }}, []string{
			"KeyNotTold b: the host isn't connected, and its public key isn't known yet",
		}},
		{"no key yet", []edit{func(v *linkView) { v.seen[0].agent.status.Link = nil; v.sites[0].Key = wgtypes.Key{} }}, []string{
			"KeyNotTold a: the host agent hasn't told its public key: wait, or see journalctl -u cluster-api-host-agent on the host",
		}},
		{"not set up", []edit{func(v *linkView) { v.sites[1].Peers = peers()[1:] }}, []string{
			"NotApplied b: the host agent has yet to set up the link to a: wait",
		}},
		{"an older agent", []edit{func(v *linkView) {
			v.seen[0].agent.status.Link = nil
			v.seen[0].agent.status.Networks[0].Problems = []gateway.Problem{{Kind: gateway.ProblemRefused, Message: "the gateway has an unknown element link"}}
		}}, []string{"Refused a: the gateway has an unknown element link"}},
		{"what hasn't to do with links", []edit{func(v *linkView) { v.seen[0].agent.status.Blocking = []string{"table ip filter"} }}, nil},
		{"neither has an address", []edit{func(v *linkView) { v.sites[0].Address, v.sites[1].Address = netip.Addr{}, netip.Addr{} }}, []string{
			"AddressConflict a and b can't reach each other, because neither LibvirtHost has a spec.wireGuard.address: set that of one of them",
		}},
		{"one address", []edit{func(v *linkView) { v.sites[1].Address = v.sites[0].Address }}, nil},
		{"one address and port", []edit{func(v *linkView) { v.sites[1].Address, v.sites[1].Port = v.sites[0].Address, 51820 }}, []string{
			"AddressConflict a and b both have the spec.wireGuard.address 203.0.113.1 and the port 51820: correct one of the LibvirtHosts",
		}},
		{"an address within", []edit{func(v *linkView) { v.sites[1].Address = netip.MustParseAddr("10.20.1.1") }}, []string{
			"AddressConflict b: spec.wireGuard.address 10.20.1.1 of the LibvirtHost lies in 10.20.1.0/25, which is a range of the cluster itself: use one at which the other hosts reach this one",
		}},
		{"clones", []edit{func(v *linkView) { v.sites[1].Key = v.sites[0].Key }}, []string{
			"KeyConflict a and b have the same public key, as clones of one machine do: remove /var/lib/cluster-api-host-agent on one of them and start its host agent again",
		}},
		{"silent", []edit{func(v *linkView) { v.seen[0].agent.changed = now.Add(-silence); v.sites[0].Peers = nil }}, []string{
			"AgentSilent a: the host agent hasn't reported since 2026-01-02T03:04:05Z by the host's clock: see systemctl status cluster-api-host-agent on the host",
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			for _, trouble := range view(tt.edits).troubles() {
				got = append(got, trouble.reason+" "+trouble.message)
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(tt.want, "\n"))
			}
		})
	}
}
