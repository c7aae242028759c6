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
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/utils/ptr"
	"libvirt.org/go/libvirtxml"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/cluster-api/util/conditions"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/gateway"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/host"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/lab/privatehost"
)

// letsIn has a cluster let in the web and kubectl.
func letsIn(c *infrav1.LibvirtCluster) {
	c.Spec.Network.IngressCIDR = "10.20.0.128/25"
	c.Spec.Network.Ingress = infrav1.Ingress{ExternalAddress: "203.0.113.10", Ports: []infrav1.IngressPort{{Port: 80}, {Port: 443}}}
	c.Spec.Network.APIServerAccess = infrav1.APIServerAccess{ExternalAddress: "203.0.113.11", AllowedCIDRs: []string{"198.51.100.0/24"}}
}

// agentSays writes what the agent of a host tells of itself, by the hypervisor's own client as another program than the
// controller.
func agentSays(t *testing.T, lab *privatehost.Host, status gateway.Status) {
	t.Helper()
	document, err := gateway.RenderStatusNetwork(status)
	must(t, err)
	defineInside(t, lab, document)
}

// defineInside defines a network without starting it.
func defineInside(t *testing.T, lab *privatehost.Host, document string) {
	t.Helper()
	command := lab.Inside(t.Context(), "virsh", "net-define", "/dev/stdin")
	command.Stdin = strings.NewReader(document)
	if output, err := command.CombinedOutput(); err != nil {
		t.Fatalf("Defining a network: %v: %s\n%s", err, output, document)
	}
}

// tells is the status of an agent, renewed now, that has applied a generation of a cluster's network.
func tells(libvirtCluster *infrav1.LibvirtCluster, generation string, problems ...gateway.Problem) gateway.Status {
	return gateway.Status{
		Agent: "v0.0.0-test", Reads: gateway.Version, Renewed: time.Now().Truncate(time.Second),
		Networks: []gateway.NetworkStatus{{UUID: libvirtCluster.Spec.Network.UUID, Generation: generation, Problems: problems}},
	}
}

// wantedOn is what the metadata of a cluster's network on a host says.
func (s *scene) wantedOn(hostName string, libvirtCluster *infrav1.LibvirtCluster) (gateway.Wanted, error) {
	document, err := s.kvm(hostName).NetworkXML(s.t.Context(), libvirtCluster.Spec.Network.UUID)
	if err != nil {
		return gateway.Wanted{}, err
	}
	return gateway.Read(document)
}

// TestGatewayOfACluster has agents on two real hosts tell everything that an agent can tell.
func TestGatewayOfACluster(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	labs := map[string]*privatehost.Host{"kvm1": newLab(t), "kvm2": newLab(t)}
	for name, lab := range labs {
		s.readyHost(name, lab.URI())
	}
	green := s.createCluster("green", "10.20.0.0/25", letsIn)
	expect := func(status metav1.ConditionStatus, reason string, texts ...string) {
		t.Helper()
		s.expectCondition(green, infrav1.ClusterGatewayReadyCondition, status, reason, texts...)
		want := reason
		if status == metav1.ConditionTrue {
			want = infrav1.ReadyReason
		}
		if ready := conditions.Get(green, infrav1.ReadyCondition); ready.Status != status || ready.Reason != want {
			t.Errorf("Ready doesn't say so: %s", describe(green))
		}
	}
	refused := func(reason string, texts ...string) {
		t.Helper()
		expect(metav1.ConditionFalse, reason, texts...)
	}
	refused(infrav1.ClusterGatewayAgentNotSeenReason, "kvm1: no host agent has reported: run host-agent install", "kvm2: ")
	// Machines needn't wait for agents.
	eventually(t, "it is provisioned", func() error {
		if s.refresh(green); !ptr.Deref(green.Status.Initialization.Provisioned, false) || green.Spec.Network.Forwarding != infrav1.ForwardingHostAgent {
			return fmt.Errorf("forwarding is %q\n%s", green.Spec.Network.Forwarding, describe(green))
		}
		return nil
	})
	var generation string
	for name := range labs {
		wanted, err := s.wantedOn(name, green)
		must(t, err)
		generation = wanted.Generation()
		document, err := s.kvm(name).NetworkXML(t.Context(), green.Spec.Network.UUID)
		must(t, err)
		if net := parse[libvirtxml.Network](t, document); net.Forward.Mode != "open" || len(wanted.Forwards) != 3 {
			t.Errorf("%s has a network with the forward mode %s and lets in %v", name, net.Forward.Mode, wanted.Forwards)
		}
	}

	say := func(hostName string, status gateway.Status) { agentSays(t, labs[hostName], status) }
	lacks := func(external string) gateway.Problem {
		return gateway.Problem{Kind: gateway.ProblemAddress, External: external, Message: "the host doesn't have " + external}
	}
	say("kvm1", tells(green, generation))
	refused(infrav1.ClusterGatewayAgentNotSeenReason, "kvm2: no host agent has reported")
	say("kvm2", tells(green, ""))
	refused(infrav1.ClusterGatewayNotAppliedReason, `kvm2: the host agent has applied generation "" and "`+generation+`" is wanted`)
	say("kvm1", tells(green, generation, lacks("203.0.113.10")))
	say("kvm2", tells(green, generation, lacks("203.0.113.10"), lacks("203.0.113.11")))
	refused(infrav1.ClusterGatewayAddressMissingReason, "no host of the cluster has the external address 203.0.113.10: add it to an interface of a host")
	// One host with each address is enough.
	say("kvm1", tells(green, generation, lacks("203.0.113.11")))
	say("kvm2", tells(green, generation, lacks("203.0.113.10")))
	expect(metav1.ConditionTrue, infrav1.ClusterGatewayAppliedReason)

	for reason, problem := range map[string]gateway.Problem{
		infrav1.ClusterGatewayRefusedReason: {Kind: gateway.ProblemRefused, Message: "the gateway in the network's metadata is of another version"},
		infrav1.ClusterGatewayFailedReason:  {Kind: gateway.ProblemFailed, Message: "nft: no memory"},
		infrav1.ClusterGatewayClashReason:   {Kind: gateway.ProblemClash, Message: "203.0.113.10:80/tcp belongs to network home.white"},
	} {
		say("kvm2", tells(green, "", problem)) // nothing of it is applied
		refused(reason, "kvm2: "+problem.Message)
		if message := conditions.GetMessage(green, infrav1.ClusterGatewayReadyCondition); strings.Contains(message, "kvm1") {
			t.Errorf("kvm1 is named in %q", message)
		}
	}
	blocked := tells(green, generation)
	blocked.Blocking = []string{"net.ipv4.ip_forward is 0", "table ip filter, chain FORWARD: stops connections"}
	say("kvm2", blocked)
	refused(infrav1.ClusterGatewayBlockedReason, "kvm2: net.ipv4.ip_forward is 0; table ip filter, chain FORWARD: stops connections")
	defineInside(t, labs["kvm2"], fmt.Sprintf("<network><name>%s</name><uuid>%s</uuid><forward mode='hostdev'/></network>", gateway.StatusNetworkName, gateway.StatusNetworkUUID))
	refused(infrav1.ClusterGatewayAgentNotSeenReason, "kvm2: what network cluster-api-host-agent says isn't the status of a host agent")
	say("kvm2", tells(green, generation))
	expect(metav1.ConditionTrue, infrav1.ClusterGatewayAppliedReason)

	// What is wanted changes, and so does what was applied.
	change(s, green, func(c *infrav1.LibvirtCluster) { c.Spec.Network.Ingress.Ports = []infrav1.IngressPort{{Port: 443}} })
	refused(infrav1.ClusterGatewayNotAppliedReason, "kvm1: ", "kvm2: ")
	wanted, err := s.wantedOn("kvm1", green)
	must(t, err)
	if len(wanted.Forwards) != 2 || wanted.Generation() == generation {
		t.Errorf("The metadata wants %v", wanted)
	}
	say("kvm1", tells(green, wanted.Generation()))
	say("kvm2", tells(green, wanted.Generation()))
	expect(metav1.ConditionTrue, infrav1.ClusterGatewayAppliedReason)

	// The agents' own networks are nobody's business when the cluster goes, and neither are the agents.
	s.delete(green)
	s.expectGone(green)
	for name := range labs {
		if _, err := s.kvm(name).NetworkXML(t.Context(), gateway.StatusNetworkUUID); err != nil {
			t.Errorf("%s has lost the status of its agent: %v", name, err)
		}
	}
}

// TestMetadataIsKept has somebody change what the metadata of a cluster's network says, on a real host with a machine. It
// is put right long before anything but an event has the reconciler look again, which is after DefaultAgentSilence.
func TestMetadataIsKept(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	lab := newLab(t)
	s.readyHost("kvm1", lab.URI())
	green := s.createCluster("green", "10.20.0.0/25", letsIn)
	s.expectCondition(green, infrav1.ClusterNetworkReadyCondition, metav1.ConditionTrue, infrav1.ClusterNetworkReadyReason)
	s.setInfrastructureProvisioned("green")
	m := s.readyMachine("green", "green-a", emulated)
	uuid, reserved := green.Spec.Network.UUID, s.reservations(green, "kvm1")
	if len(reserved) != 1 || internalIP(m) == "" {
		t.Fatalf("The network reserves %v, the machine has %q", reserved, internalIP(m))
	}
	wanted, err := s.wantedOn("kvm1", green)
	must(t, err)
	bridge := strings.TrimSpace(inside(t, lab, "virsh net-info "+uuid+" | sed -n 's/^Bridge: *//p'"))
	link := func() string {
		number, _, _ := strings.Cut(inside(t, lab, "ip -o link show "+bridge), ":")
		return number
	}
	since := link()
	agentSays(t, lab, tells(green, wanted.Generation()))
	s.expectReady(green)

	kept := func(what string) {
		t.Helper()
		began := time.Now()
		eventually(t, "the metadata is as wanted after "+what, func() error {
			document, err := s.kvm("kvm1").NetworkXML(t.Context(), uuid)
			must(t, err)
			found, err := gateway.Read(document)
			if mode := parse[libvirtxml.Network](t, document).Forward.Mode; err != nil || found.Generation() != wanted.Generation() || mode != "open" {
				return fmt.Errorf("it says %v, %s, %w", found, mode, err)
			}
			return nil
		})
		t.Logf("After %s it took %s", what, time.Since(began).Round(time.Millisecond))
		if found := s.reservations(green, "kvm1"); !maps.Equal(found, reserved) {
			t.Errorf("After %s the network reserves %v", what, found)
		}
		if now := link(); now != since {
			t.Errorf("After %s the bridge is another: it was %s and is %s", what, since, now)
		}
	}
	document, err := s.kvm("kvm1").NetworkXML(t.Context(), uuid)
	must(t, err)
	begin, end := strings.Index(document, "<capl:gateway"), strings.Index(document, "</capl:gateway>")+len("</capl:gateway>")
	for what, changed := range map[string]string{
		"another address":      strings.ReplaceAll(document, "203.0.113.10", "203.0.113.99"),
		"another version":      strings.ReplaceAll(document, gateway.Namespace, strings.TrimSuffix(gateway.Namespace, gateway.Version)+"v7"),
		"junk":                 strings.ReplaceAll(document, "capl:forward", "capl:junk"),
		"another forward mode": strings.ReplaceAll(document, "mode='open'", "mode='nat'"),
		"no gateway at all":    document[:begin] + document[end:],
	} {
		if changed == document {
			t.Fatalf("%s changes nothing in\n%s", what, document)
		}
		defineInside(t, lab, changed)
		kept(what)
	}

	// A change is a rewrite, too.
	change(s, green, func(c *infrav1.LibvirtCluster) {
		c.Spec.Network.APIServerAccess.AllowedCIDRs = []string{"192.0.2.0/24"}
	})
	api := wanted.Forwards[len(wanted.Forwards)-1]
	api.Sources = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	wanted = gateway.Wanted{Forwards: append(wanted.Forwards[:len(wanted.Forwards)-1:len(wanted.Forwards)-1], api)}
	kept("a change of the cluster")
	agentSays(t, lab, tells(green, wanted.Generation()))
	s.expectReady(green)

	// While nothing happens, nobody is asked.
	kvm := s.kvm("kvm1")
	before := settledCalls(t, kvm)
	for range 5 {
		touch(s, green)
		touch(s, m)
		time.Sleep(1200 * time.Millisecond)
	}
	if made := difference(before, withoutPings(kvm.Calls())); len(made) > 0 {
		t.Errorf("Reconciling caused %v", made)
	}
	// An agent that renews its status costs one call.
	before = settledCalls(t, kvm)
	agentSays(t, lab, tells(green, wanted.Generation()))
	if made := difference(before, settledCalls(t, kvm)); len(made) != 1 {
		t.Errorf("A renewal caused %v", made)
	}
}

// TestSilentAgent has an agent end, and come back.
func TestSilentAgent(t *testing.T) {
	t.Parallel()
	const silence = 6 * time.Second
	s := newOwnScene(t)
	start := func() (end func()) {
		s.hosts = host.NewPool(ctrl.Log.WithName("host"), host.WithUpload(uploaded.keep))
		ctx, cancel := context.WithCancel(context.Background())
		ended, err := startManager(ctx, s.hosts, s.watchFilter, s.namespace, nil, func(o *Options) { o.AgentSilence = silence })
		if err != nil {
			cancel()
			t.Fatal(err)
		}
		end = sync.OnceFunc(func() {
			cancel()
			if err := <-ended; err != nil {
				t.Errorf("The manager ended: %v", err)
			}
		})
		t.Cleanup(end)
		return end
	}
	end := start()
	lab := newLab(t)
	s.readyHost("kvm1", lab.URI())
	green := s.createCluster("green", "10.20.0.0/25", func(c *infrav1.LibvirtCluster) { c.Spec.Network.Forwarding = infrav1.ForwardingHostAgent })
	s.expectCondition(green, infrav1.ClusterGatewayReadyCondition, metav1.ConditionFalse, infrav1.ClusterGatewayAgentNotSeenReason)
	status := tells(green, gateway.Wanted{}.Generation())
	agentSays(t, lab, status)
	told := time.Now()
	s.expectReady(green)
	s.expectCondition(green, infrav1.ClusterGatewayReadyCondition, metav1.ConditionFalse, infrav1.ClusterGatewayAgentSilentReason,
		"kvm1: the host agent hasn't reported since "+status.Renewed.UTC().Format(time.RFC3339))
	if took := time.Since(told); took < silence {
		t.Errorf("It was called silent after %s", took)
	}
	// Another manager doesn't know for how long it has been.
	end()
	start()
	staysSo(t, "the agent is called silent", func() error {
		if s.refresh(green); conditions.GetReason(green, infrav1.ClusterGatewayReadyCondition) != infrav1.ClusterGatewayAgentSilentReason {
			return errors.New(describe(green))
		}
		return nil
	})
	agentSays(t, lab, tells(green, gateway.Wanted{}.Generation()))
	s.expectReady(green)
}

func TestJudgeGateways(t *testing.T) {
	const uuid, silence = "3e2c9f80-5b5d-4bb0-8f43-5b0e0a2f7c11", 5 * time.Minute
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	forward := func(external string) gateway.Forward {
		return gateway.Forward{
			Name: "ingress", Protocol: gateway.TCP, External: netip.MustParseAddr(external), Port: 80,
			Target: netip.MustParseAddr("10.20.0.130"), TargetPort: 80,
		}
	}
	wanted := gateway.Wanted{Forwards: []gateway.Forward{forward("203.0.113.10"), forward("203.0.113.11")}}
	on := func(name string, age time.Duration, edit func(*gatewayOnHost)) gatewayOnHost {
		g := gatewayOnHost{name: name, wanted: wanted, agent: agentSighting{
			looked: now, changed: now.Add(-age), status: gateway.Status{
				Renewed: now.Add(-age), Networks: []gateway.NetworkStatus{{UUID: "another"}, {UUID: uuid, Generation: wanted.Generation()}},
			},
		}}
		if edit != nil {
			edit(&g)
		}
		return g
	}
	lacks := func(addresses ...string) func(*gatewayOnHost) {
		return func(g *gatewayOnHost) {
			for _, external := range addresses {
				g.agent.status.Networks[1].Problems = append(g.agent.status.Networks[1].Problems, gateway.Problem{Kind: gateway.ProblemAddress, External: external})
			}
		}
	}
	for _, tt := range []struct {
		name  string
		seen  []gatewayOnHost
		want  []string
		after time.Duration
	}{
		{"applied", []gatewayOnHost{on("b", time.Minute, nil), on("a", 0, nil)}, nil, 4 * time.Minute},
		{"silent", []gatewayOnHost{on("b", silence, nil), on("a", 4*time.Minute, nil)}, []string{
			"AgentSilent b: the host agent hasn't reported since 2026-01-02T02:59:05Z by the host's clock: see systemctl status cluster-api-host-agent on the host",
		}, time.Minute},
		{"each has an address", []gatewayOnHost{on("a", 0, lacks("203.0.113.10")), on("b", 0, lacks("203.0.113.11"))}, nil, silence},
		{"nobody has one", []gatewayOnHost{on("a", 0, lacks("203.0.113.10", "203.0.113.11")), on("b", 0, lacks("203.0.113.11"))}, []string{
			"AddressMissing no host of the cluster has the external address 203.0.113.11: add it to an interface of a host, or correct spec.network",
		}, silence},
		{"an address that isn't wanted any more", []gatewayOnHost{on("a", 0, lacks("203.0.113.99"))}, nil, silence},
		{"a host that has no part in it", []gatewayOnHost{on("a", 0, lacks("203.0.113.10")), on("b", 0, func(g *gatewayOnHost) {
			g.wanted = gateway.Wanted{}
			g.agent.status.Networks[1].Generation = g.wanted.Generation()
		})}, []string{
			"AddressMissing no host of the cluster has the external address 203.0.113.10: add it to an interface of a host, or correct spec.network",
		}, silence},
		{"problems of another network", []gatewayOnHost{on("a", 0, func(g *gatewayOnHost) {
			g.agent.status.Networks[0].Problems = []gateway.Problem{{Kind: gateway.ProblemRefused, Message: "junk"}}
		})}, nil, silence},
		{"the most serious first", []gatewayOnHost{
			on("a", 0, func(g *gatewayOnHost) { g.agent.status.Networks = nil }),
			on("b", 0, func(g *gatewayOnHost) {
				g.agent.status.Networks[1].Generation = ""
				g.agent.status.Networks[1].Problems = []gateway.Problem{{Kind: gateway.ProblemClash, Message: "one"}, {Kind: gateway.ProblemClash, Message: "two"}}
			}),
			on("c", 0, func(g *gatewayOnHost) { g.agent = agentSighting{looked: now, changed: now} }),
		}, []string{
			"AgentNotSeen c: no host agent has reported: run host-agent install on the host",
			"Clash b: one; two",
			`NotApplied a: the host agent has applied generation "" and "` + wanted.Generation() + `" is wanted: wait`,
		}, silence},
	} {
		t.Run(tt.name, func(t *testing.T) {
			troubles, after := judgeGateways(tt.seen, uuid, now, silence)
			var got []string
			for _, trouble := range troubles {
				got = append(got, trouble.reason+" "+trouble.message)
			}
			if strings.Join(got, "\n") != strings.Join(tt.want, "\n") || after != tt.after {
				t.Errorf("got\n%s\nafter %s, want\n%s\nafter %s", strings.Join(got, "\n"), after, strings.Join(tt.want, "\n"), tt.after)
			}
		})
	}
}

// kubeconfigOf is a kubeconfig as Cluster API writes it.
func kubeconfigOf(t *testing.T, key string) []byte {
	t.Helper()
	config := clientcmdapi.NewConfig()
	config.Clusters["green"] = &clientcmdapi.Cluster{Server: "https://10.20.0.2:6443", CertificateAuthorityData: []byte("authority")}
	config.AuthInfos["green-admin"] = &clientcmdapi.AuthInfo{ClientKeyData: []byte(key)}
	config.Contexts["green-admin@green"] = &clientcmdapi.Context{Cluster: "green", AuthInfo: "green-admin"}
	config.CurrentContext = "green-admin@green"
	data, err := clientcmd.Write(*config)
	must(t, err)
	return data
}

func TestKubeconfigForOutside(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	lab := newLab(t)
	s.readyHost("kvm1", lab.URI())
	green := s.createCluster("green", "10.20.0.0/25", letsIn)
	s.expectCondition(green, infrav1.ClusterNetworkReadyCondition, metav1.ConditionTrue, infrav1.ClusterNetworkReadyReason)

	outside := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: "green-kubeconfig-external"}}
	expect := func(what, key, server string) {
		t.Helper()
		eventually(t, what, func() error {
			if err := api.Get(t.Context(), client.ObjectKeyFromObject(outside), outside); err != nil {
				return err
			}
			config, err := clientcmd.Load(outside.Data["value"])
			if err != nil {
				return err
			}
			if got := config.Clusters["green"].Server; got != server || string(config.AuthInfos["green-admin"].ClientKeyData) != key || string(config.Clusters["green"].CertificateAuthorityData) != "authority" {
				return fmt.Errorf("it is\n%s", outside.Data["value"])
			}
			return nil
		})
	}
	source := &corev1.Secret{ObjectMeta: s.meta("green-kubeconfig", "green"), Type: clusterv1.ClusterSecretType, Data: map[string][]byte{"value": kubeconfigOf(t, "first")}}
	s.create(source)
	// The control plane is there, which wakes the reconciler.
	changeStatus(s, s.cluster("green"), func(c *clusterv1.Cluster) {
		conditions.Set(c, metav1.Condition{Type: clusterv1.ClusterControlPlaneInitializedCondition, Status: metav1.ConditionTrue, Reason: "Initialized"})
	})
	expect("there is a kubeconfig for outside", "first", "https://203.0.113.11:6443")
	if outside.Type != clusterv1.ClusterSecretType || outside.Labels[clusterv1.ClusterNameLabel] != "green" || !metav1.IsControlledBy(outside, green) {
		t.Errorf("The Secret is %s %v of %v", outside.Type, outside.Labels, outside.OwnerReferences)
	}

	change(s, source, func(s *corev1.Secret) { s.Data["value"] = kubeconfigOf(t, "second") })
	touch(s, green)
	expect("it is renewed with its source", "second", "https://203.0.113.11:6443")
	change(s, green, func(c *infrav1.LibvirtCluster) { c.Spec.Network.APIServerAccess.Port = 443 })
	expect("it has the other port", "second", "https://203.0.113.11:443")

	gone := func() error {
		err := api.Get(t.Context(), client.ObjectKeyFromObject(outside), outside)
		if apierrors.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("it is there, %w", err)
	}
	change(s, green, func(c *infrav1.LibvirtCluster) { c.Spec.Network.APIServerAccess = infrav1.APIServerAccess{} })
	eventually(t, "it goes with its reason", gone)

	// Somebody else's Secret in its place stays.
	foreign := &corev1.Secret{ObjectMeta: s.meta("green-kubeconfig-external", ""), Data: map[string][]byte{"value": []byte("mine")}}
	s.create(foreign)
	touch(s, green)
	change(s, green, letsIn)
	var wanted gateway.Wanted
	eventually(t, "the metadata wants kubectl again", func() error {
		var err error
		if wanted, err = s.wantedOn("kvm1", green); err != nil || len(wanted.Forwards) != 3 {
			return fmt.Errorf("it wants %v, %w", wanted, err)
		}
		return nil
	})
	agentSays(t, lab, tells(green, wanted.Generation()))
	s.expectCondition(green, infrav1.ClusterGatewayReadyCondition, metav1.ConditionFalse, infrav1.ClusterKubeconfigConflictReason,
		"Secret green-kubeconfig-external is in the place of the kubeconfig for outside", "delete it, or rename it")
	must(t, api.Get(t.Context(), client.ObjectKeyFromObject(foreign), foreign))
	if string(foreign.Data["value"]) != "mine" {
		t.Errorf("It has become %q", foreign.Data["value"])
	}
	must(t, api.Delete(t.Context(), foreign))
	touch(s, green)
	s.expectReady(green)
	expect("it is there again", "second", "https://203.0.113.11:6443")
	if _, err := withServer([]byte("no kubeconfig"), "https://203.0.113.11:6443"); err == nil {
		t.Error("What isn't a kubeconfig is taken for one")
	}
}
