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
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/lab/privatehost"
)

// siteHost is the only host of a site, and the agent on it.
type siteHost struct {
	name    string
	router  netip.Prefix
	address netip.Addr

	host  *privatehost.Host
	agent *exec.Cmd
}

// sites are in two networks of the internet, and have nothing else in common.
var sites = [2]*siteHost{
	{name: "kvm1", router: netip.MustParsePrefix("203.0.113.1/24"), address: netip.MustParseAddr("203.0.113.10")},
	{name: "kvm2", router: netip.MustParsePrefix("198.51.100.1/24"), address: netip.MustParseAddr("198.51.100.20")},
}

// internet is what lies between the sites.
var internet *privatehost.Internet

// firstSiteWorkers is the number of workers on the first site; the second has one. Each costs minutes where machines are
// emulated.
func firstSiteWorkers() int {
	GinkgoHelper()
	text := os.Getenv("FIRST_SITE_WORKERS")
	if text == "" {
		return 0
	}
	count, err := strconv.Atoi(text)
	Expect(err).NotTo(HaveOccurred(), "FIRST_SITE_WORKERS")
	return count
}

// connectSites plugs the hosts into an internet and starts their agents.
func connectSites(ctx context.Context, hosts []*privatehost.Host) error {
	GinkgoHelper()
	for i, site := range sites {
		site.host = hosts[i]
		if i == 0 {
			var err error
			internet, err = privatehost.ConnectInternet(ctx, site.host, site.uplink())
			if err != nil {
				return err
			}
			DeferCleanup(func() { Expect(internet.Close()).To(Succeed()) })
		} else if err := internet.PlugIn(ctx, site.host, site.uplink()); err != nil {
			return err
		}
		site.guard(ctx)
		site.startAgent()
		DeferCleanup(site.stopAgent)
	}
	return nil
}

// declareSite says where the others reach a host.
func declareSite(host *infrav1.LibvirtHost) {
	for _, site := range sites {
		if site.name == host.Name {
			host.Spec.WireGuard = &infrav1.HostWireGuard{Address: site.address.String()}
		}
	}
}

func (s *siteHost) uplink() privatehost.InternetOptions {
	return privatehost.InternetOptions{Router: s.router, Public: []netip.Addr{s.address}}
}

// machine is one on the site: of the first site that of the control plane.
func (s *siteHost) machine(ctx context.Context) *infrav1.LibvirtMachine {
	GinkgoHelper()
	controlPlane, workers := machinesByHost(ctx)
	found := slices.Concat(controlPlane[s.name], workers[s.name])
	Expect(found).NotTo(BeEmpty(), s.name)
	return &found[0]
}

// guard lets nothing in from the internet but what the link needs, as the how-to has it.
func (s *siteHost) guard(ctx context.Context) {
	GinkgoHelper()
	command := s.host.Command(ctx, "nft", "-f", "-")
	command.Stdin = strings.NewReader(`table inet host {
  chain input {
    type filter hook input priority filter
    iifname "wan0" udp dport 51820 accept
    iifname "wan0" ct state new drop
  }
}
`)
	output, err := command.CombinedOutput()
	Expect(err).NotTo(HaveOccurred(), "%s", output)
}

// command is one of the agent's program, which has the /run of its host, where the socket of its WireGuard is.
func (s *siteHost) command(ctx context.Context, args ...string) *exec.Cmd {
	return s.host.Command(ctx, "unshare", append([]string{"--mount", "sh", "-ec", `mount --bind "$0" /run; exec "$@"`,
		filepath.Join(s.host.Dir(), "run"), agentProgram()}, append(args, "--state-dir", filepath.Join(s.host.Dir(), "agent"))...)...)
}

// startAgent runs the agent as the host's service manager would.
func (s *siteHost) startAgent() {
	GinkgoHelper()
	s.agent = s.command(context.Background(), "run", "--uri", s.host.URI())
	s.agent.Stdout, s.agent.Stderr = GinkgoWriter, GinkgoWriter
	Expect(s.agent.Start()).To(Succeed())
}

func (s *siteHost) stopAgent() {
	GinkgoHelper()
	if s.agent == nil {
		return
	}
	agent := s.agent
	s.agent = nil
	// It is gone already when its host was stopped.
	_ = agent.Process.Signal(syscall.SIGTERM)
	ended := make(chan error, 1)
	go func() { ended <- agent.Wait() }()
	Eventually(ended).WithTimeout(20 * time.Second).Should(Receive())
}

// removeAgent ends the agent and removes what it leaves on the host.
func (s *siteHost) removeAgent(ctx context.Context) {
	GinkgoHelper()
	s.stopAgent()
	// Below a directory of its own, so that an agent of the machine itself stays installed.
	output, err := s.command(ctx, "uninstall", "--uri", s.host.URI(), "--root", GinkgoT().TempDir()).CombinedOutput()
	Expect(err).NotTo(HaveOccurred(), "%s", output)
}

// stop pulls the plug of the host.
func (s *siteHost) stop(ctx context.Context) {
	GinkgoHelper()
	Expect(s.host.Stop(ctx)).To(Succeed())
	s.stopAgent()
}

// start boots the host: its libvirt, its network, its agent. Libvirt starts the machines.
func (s *siteHost) start(ctx context.Context) {
	GinkgoHelper()
	host, err := privatehost.Start(ctx, privatehost.Options{Name: s.name, Dir: s.host.Dir()})
	Expect(err).NotTo(HaveOccurred())
	s.host = host
	Expect(internet.PlugIn(ctx, host, s.uplink())).To(Succeed())
	s.guard(ctx)
	s.startAgent()
}
