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

package hostagent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"libvirt.org/go/libvirtxml"

	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/gateway"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/host"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/hosttest"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/lab/privatehost"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/owner"
)

// asAgent has this program be the agent instead of its tests: it can then be run in a host's namespace, and killed.
const asAgent = "HOST_AGENT_TEST"

func TestMain(m *testing.M) {
	if os.Getenv(asAgent) == "" {
		os.Exit(m.Run())
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	if err := NewCommand("test").ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "Error:", err)
		os.Exit(1)
	}
	stop()
}

// patiently is how long anything may take to come about on a busy machine. What is promised to users is five seconds,
// which the test of faults measures.
const patiently = 30 * time.Second

// site is a KVM host with a libvirtd of its own, on the internet.
type site struct {
	t       *testing.T
	host    *privatehost.Host
	libvirt *host.Host
	// internet is the host's neighbour outside, with clients in several networks.
	internet *space
	log      *lockedBuffer
	// state is the directory with the host's keys, and run what the agent has as /run.
	state, run string
	agent      *exec.Cmd
}

// Addresses of the site.
const (
	hostAddress    = "203.0.113.1"
	ingressOutside = "203.0.113.10"
	apiOutside     = "203.0.113.11"
	client         = "203.0.113.100"
	admin          = "198.51.100.7"
	stranger       = "192.0.2.9"
)

// The networks of two clusters, and those that they have on another host.
const (
	webUUID    = "0b5c7c8e-6f3b-4c1b-9b7e-2d1c7a4e9a10"
	appUUID    = "1c5c7c8e-6f3b-4c1b-9b7e-2d1c7a4e9a11"
	farWebUUID = "2d5c7c8e-6f3b-4c1b-9b7e-2d1c7a4e9a12"
	farAppUUID = "3e5c7c8e-6f3b-4c1b-9b7e-2d1c7a4e9a13"
)

var (
	clusters   = map[string]string{webUUID: "web", appUUID: "app", farWebUUID: "web", farAppUUID: "app"}
	thirdBytes = map[string]string{webUUID: "100", appUUID: "101", farWebUUID: "110", farAppUUID: "111"}
)

func newSite(t *testing.T) *site {
	t.Helper()
	s := newHost(t)
	s.internet = newSpace(t)
	s.internet.plug(s.host.Netns(), "internet", client+"/24", admin+"/32", stranger+"/32")
	script(t, s.host.Netns(), `
		ip addr add 203.0.113.1/24 dev internet
		ip addr add 203.0.113.10/32 dev internet
		ip addr add 203.0.113.11/32 dev internet
		ip route add 198.51.100.0/24 via 203.0.113.100 dev internet
		ip route add 192.0.2.0/24 via 203.0.113.100 dev internet`)
	// A neighbour that takes the host for its router gets no further than others.
	s.internet.run("ip", "route", "add", "10.0.0.0/8", "via", hostAddress)
	return s
}

// newHost is a host that isn't connected to anything yet.
func newHost(t *testing.T) *site {
	t.Helper()
	s := &site{t: t, host: hosttest.Libvirtd(t), log: &lockedBuffer{}, state: filepath.Join(t.TempDir(), "state"), run: t.TempDir()}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("The agent's log:\n%s", s.log)
			t.Logf("The rules:\n%s", script(t, s.host.Netns(), "nft list ruleset"))
		}
	})
	script(t, s.host.Netns(), `
		echo 1 >/proc/sys/net/ipv4/ip_forward
		nf=/proc/sys/net/bridge/bridge-nf-call-iptables; [ ! -e $nf ] || echo 0 >$nf`)

	pool := host.NewPool(logr.Discard())
	ctx, cancel := context.WithCancel(context.Background())
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		_ = pool.Start(ctx)
	}()
	t.Cleanup(func() { cancel(); <-stopped })
	pool.Set("it", host.Config{URI: s.host.URI()})
	eventually(t, "a connection to libvirt", func() error {
		var err error
		s.libvirt, err = pool.Get("it")
		return err
	})
	return s
}

// start runs the agent as systemd would, with no more capabilities than its unit gives, and a /run of the host's own.
func (s *site) start() {
	s.t.Helper()
	s.agent = s.host.Command(context.Background(), "unshare", "--mount", "sh", "-ec", `mount --bind "$0" /run; exec "$@"`, s.run, "setpriv", "--no-new-privs", "--bounding-set=-all,+net_admin,+net_raw", "--inh-caps=-all",
		program(), "run", "--uri", s.host.URI(), "--state-dir", s.state, "--log-level", "debug")
	s.agent.Env = append(s.agent.Env, asAgent+"=1")
	s.agent.Stdout, s.agent.Stderr = s.log, s.log
	if err := s.agent.Start(); err != nil {
		s.t.Fatal(err)
	}
	agent := s.agent
	s.t.Cleanup(func() {
		if agent.ProcessState == nil {
			_ = agent.Process.Kill()
			_ = agent.Wait()
		}
	})
}

// stop ends the agent with a signal.
func (s *site) stop(sig syscall.Signal) {
	s.t.Helper()
	if err := s.agent.Process.Signal(sig); err != nil {
		s.t.Fatal(err)
	}
	_ = s.agent.Wait()
}

// definition is a cluster's network: 10.100.0.0/24 halved, for the UUID of web.
func definition(t *testing.T, uuid, metadata string) string {
	t.Helper()
	name, third := clusters[uuid], thirdBytes[uuid]
	mark := owner.Owner{Kind: "LibvirtCluster", Namespace: "default", Name: name, Cluster: name}
	net := libvirtxml.Network{
		UUID: uuid, Name: "default." + name,
		Metadata: &libvirtxml.NetworkMetadata{XML: mark.Render() + metadata},
		Forward:  &libvirtxml.NetworkForward{Mode: "open"},
		Bridge:   &libvirtxml.NetworkBridge{Name: gateway.TableName(uuid), STP: "off", Delay: "0"},
		IPs: []libvirtxml.NetworkIP{
			{Address: "10." + third + ".0.1", Prefix: 25, DHCP: &libvirtxml.NetworkDHCP{}},
			{Address: "10." + third + ".0.129", Prefix: 25},
		},
	}
	text, err := net.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// wants is the metadata of a network that wants forwards.
func wants(t *testing.T, forwards ...gateway.Forward) string {
	t.Helper()
	return rendered(t, gateway.Wanted{Forwards: forwards})
}

func rendered(t *testing.T, wanted gateway.Wanted) string {
	t.Helper()
	element, err := wanted.Render()
	if err != nil {
		t.Fatal(err)
	}
	return element
}

// define has a cluster's network with something in its metadata.
func (s *site) define(uuid, metadata string) {
	s.t.Helper()
	document := definition(s.t, uuid, metadata)
	eventually(s.t, "the network to be defined", func() error {
		ctx, cancel := context.WithTimeout(context.Background(), patiently)
		defer cancel()
		return s.libvirt.EnsureNetwork(ctx, document)
	})
}

// undefine removes a cluster's network.
func (s *site) undefine(uuid string) {
	s.t.Helper()
	eventually(s.t, "the network to be removed", func() error {
		ctx, cancel := context.WithTimeout(context.Background(), patiently)
		defer cancel()
		err := s.libvirt.DeleteNetwork(ctx, uuid)
		if errors.Is(err, host.ErrNotFound) {
			return nil
		}
		return err
	})
}

// status is what the agent tells.
func (s *site) status() (gateway.Status, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patiently)
	defer cancel()
	network, err := s.libvirt.Network(ctx, gateway.StatusNetworkUUID)
	if err != nil {
		return gateway.Status{}, err
	}
	return gateway.ReadStatus(network.XML)
}

// told waits until what the agent tells of a network is right.
func (s *site) told(uuid, what string, right func(gateway.NetworkStatus) bool) gateway.NetworkStatus {
	s.t.Helper()
	var found gateway.NetworkStatus
	eventually(s.t, what, func() error {
		status, err := s.status()
		if err != nil {
			return err
		}
		for _, n := range status.Networks {
			if n.UUID == uuid && right(n) {
				found = n
				return nil
			}
		}
		return fmt.Errorf("the agent tells %+v", status)
	})
	return found
}

// applied waits until a network's forwards are told to be applied without a problem.
func (s *site) applied(uuid string, forwards ...gateway.Forward) {
	s.t.Helper()
	s.appliedAll(uuid, gateway.Wanted{Forwards: forwards})
}

func (s *site) appliedAll(uuid string, wanted gateway.Wanted) {
	s.t.Helper()
	s.told(uuid, "what is wanted to be applied", func(n gateway.NetworkStatus) bool {
		return n.Generation == wanted.Generation() && len(n.Problems) == 0
	})
}

// table is a network's table without counters and handles, empty when there is none.
func (s *site) table(uuid string) string {
	out, err := s.host.Command(context.Background(), "nft", "-s", "list", "table", "inet", gateway.TableName(uuid)).Output()
	if err != nil {
		return ""
	}
	return string(out)
}

// others are all rules but those of our tables.
func (s *site) others() string {
	s.t.Helper()
	var b strings.Builder
	for line := range strings.Lines(script(s.t, s.host.Netns(), "nft list tables")) {
		if table := strings.TrimSpace(line); !strings.HasPrefix(table, "table inet capl-") {
			b.WriteString(script(s.t, s.host.Netns(), "nft -s -a list "+table))
		}
	}
	return b.String()
}

// guest is a machine in a cluster's network, with all addresses that clusters have somewhere.
func (s *site) guest(uuid, name, gatewayAddress string, addresses ...string) *space {
	s.t.Helper()
	g := newSpace(s.t)
	g.plug(s.host.Netns(), name, addresses...)
	command(s.t, s.host.Netns(), "ip", "link", "set", name, "master", gateway.TableName(uuid))
	g.run("ip", "route", "add", "default", "via", gatewayAddress)
	return g
}

// forward is one of cluster web.
func forward(name, external string, port uint16, target string, sources ...string) gateway.Forward {
	f := gateway.Forward{
		Name: name, Protocol: gateway.TCP, External: netip.MustParseAddr(external), Port: port,
		Target: netip.MustParseAddr(target), TargetPort: port,
	}
	for _, source := range sources {
		f.Sources = append(f.Sources, netip.MustParsePrefix(source))
	}
	return f
}

// eventually waits until something is so.
func eventually(t *testing.T, what string, check func() error) {
	t.Helper()
	err := errors.New("not tried")
	for deadline := time.Now().Add(patiently); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if err = check(); err == nil {
			return
		}
	}
	t.Fatalf("Waited in vain for %s: %v", what, err)
}

// lockedBuffer is a log that may be read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
