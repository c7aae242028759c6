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
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/gateway"
)

// Real connections from and to namespaces that play the internet and the nodes of two clusters.
func TestTraffic(t *testing.T) {
	s := newSite(t)
	forwards := []gateway.Forward{
		forward("ingress", ingressOutside, 80, "10.100.0.130"),
		forward("apiServerAccess", apiOutside, 6443, "10.100.0.2", "198.51.100.0/24"),
		{Name: "moved", Protocol: gateway.TCP, External: forward("", ingressOutside, 1, "10.100.0.1").External, Port: 8443,
			Target: forward("", ingressOutside, 1, "10.100.0.130").Target, TargetPort: 443},
		{Name: "udp", Protocol: gateway.UDP, External: forward("", ingressOutside, 1, "10.100.0.1").External, Port: 53,
			Target: forward("", ingressOutside, 1, "10.100.0.130").Target, TargetPort: 53},
	}
	s.define(webUUID, wants(t, forwards...))
	s.define(appUUID, "")
	s.start()
	s.applied(webUUID, forwards...)
	s.told(appUUID, "the other network to be known", func(n gateway.NetworkStatus) bool { return n.Generation == "" && len(n.Problems) == 0 })

	web := s.guest(webUUID, "web0", "10.100.0.1", "10.100.0.10/25", "10.100.0.2/25", "10.100.0.130/25")
	web1 := s.guest(webUUID, "web1", "10.100.0.1", "10.100.0.11/25")
	app := s.guest(appUUID, "app0", "10.101.0.1", "10.101.0.10/25")
	for _, address := range []string{"10.100.0.130:80", "10.100.0.130:443", "10.100.0.130:22", "10.100.0.2:6443", "10.100.0.10:80", "10.100.0.10:10250"} {
		web.serve(address)
	}
	web.serveUDP("10.100.0.130:53")
	app.serve("10.101.0.10:80")
	s.internet.serve(client + ":80")

	// saw asks from a namespace and expects the server to have seen an address, or no connection if that is empty.
	saw := func(what, from, source, to, want string) {
		t.Helper()
		got, err := ask(from, "tcp4", source, to)
		for start := time.Now(); err != nil && want != "" && time.Since(start) < patiently; {
			got, err = ask(from, "tcp4", source, to) // on a busy machine
		}
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%s: the server saw %q, %v; want %q", what, got, err, want)
		}
	}
	here := s.host.Netns()
	saw("a client of the ingress", s.internet.netns, client, ingressOutside+":80", client)
	saw("a client from elsewhere", s.internet.netns, stranger, ingressOutside+":80", stranger)
	saw("another port inside", s.internet.netns, client, ingressOutside+":8443", client)
	saw("an admin", s.internet.netns, admin, apiOutside+":6443", admin)
	saw("a stranger at the API", s.internet.netns, stranger, apiOutside+":6443", "")
	saw("a neighbour at the API", s.internet.netns, client, apiOutside+":6443", "")
	saw("a neighbour that knows the target", s.internet.netns, admin, "10.100.0.2:6443", "")
	saw("a node's way out", web.netns, "10.100.0.10", client+":80", hostAddress)
	saw("the ingress address' way out", web.netns, "10.100.0.130", client+":80", hostAddress)
	saw("the other cluster's way out", app.netns, "", client+":80", hostAddress)
	saw("a node to itself by the ingress", web.netns, "10.100.0.10", ingressOutside+":80", "10.100.0.129")
	saw("a node by the ingress", web1.netns, "", ingressOutside+":80", "10.100.0.129")
	saw("a node at the API from outside", web1.netns, "", apiOutside+":6443", "")
	saw("a node to a node", web1.netns, "", "10.100.0.10:10250", "10.100.0.11")
	saw("the other cluster by the ingress", app.netns, "", ingressOutside+":80", "10.101.0.10")
	saw("the other cluster's node", app.netns, "", "10.100.0.10:80", "")
	saw("a node to the other cluster", web.netns, "", "10.101.0.10:80", "")
	eventually(t, "an answer by UDP", func() error {
		got, err := ask(s.internet.netns, "udp4", client, ingressOutside+":53")
		if err == nil && got != client {
			t.Errorf("by UDP the server saw %q", got)
		}
		return err
	})
	saw("the host to a node", here, "", "10.100.0.10:10250", "10.100.0.1")
	saw("the host to the ingress from outside", here, "", ingressOutside+":80", ingressOutside)
	saw("the host to the API from outside", here, "", apiOutside+":6443", "")

	// Docker has rules see what bridges pass on. The kernel then answers a node across the bridge, without the host's address.
	script(t, here, "nf=/proc/sys/net/bridge/bridge-nf-call-iptables; [ ! -e $nf ] || echo 1 >$nf")
	if got, err := ask(web1.netns, "tcp4", "", ingressOutside+":80"); got == "" {
		t.Errorf("a node by the ingress, on a host with br_netfilter: the server saw %q, %v", got, err)
	}
	saw("a node to a node, on a host with br_netfilter", web1.netns, "", "10.100.0.10:10250", "10.100.0.11")
	saw("a client, on a host with br_netfilter", s.internet.netns, client, ingressOutside+":80", client)
	saw("the other cluster's node, on a host with br_netfilter", app.netns, "", "10.100.0.10:80", "")

	t.Run("closed", func(t *testing.T) {
		few := []int{22, 53, 80, 443, 2379, 2380, 6443, 8080, 10250, 10256, 30000}
		for address, want := range map[string][]int{
			ingressOutside: {80, 8443}, apiOutside: nil, hostAddress: nil,
		} {
			var ports []int
			for port := 1; port <= 1100; port++ {
				ports = append(ports, port)
			}
			for _, port := range s.internet.open(address, append(ports, append(few, 8443)...)) {
				if !slices.Contains(want, port) {
					t.Errorf("at %s port %d is open", address, port)
				}
			}
		}
		for _, address := range []string{"10.100.0.10", "10.100.0.2", "10.100.0.130", "10.101.0.10"} {
			if got := s.internet.open(address, few); len(got) > 0 {
				t.Errorf("at %s the ports %v are open", address, got)
			}
		}
	})

	t.Run("revoked", func(t *testing.T) {
		conn, err := s.internet.connect("tcp4", admin, apiOutside+":6443")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if !echoes(conn, patiently) {
			t.Fatal("no answer before")
		}
		// Rules that are written anew leave connections alone.
		s.define(webUUID, wants(t, forwards[:2]...))
		s.applied(webUUID, forwards[:2]...)
		if !echoes(conn, patiently) {
			t.Error("a connection that is still allowed was cut")
		}
		others := []gateway.Forward{forwards[0], forward("apiServerAccess", apiOutside, 6443, "10.100.0.2", "192.0.2.0/24")}
		s.define(webUUID, wants(t, others...))
		s.applied(webUUID, others...)
		if echoes(conn, 2*dialTimeout) {
			t.Error("a connection from a source that isn't allowed any more goes on")
		}
		saw("who is allowed now", s.internet.netns, stranger, apiOutside+":6443", stranger)
		saw("who was before", s.internet.netns, admin, apiOutside+":6443", "")
	})

	t.Run("gone", func(t *testing.T) {
		others := s.others()
		s.undefine(appUUID)
		eventually(t, "the table to go", func() error {
			if table := s.table(appUUID); table != "" {
				return fmt.Errorf("there is still %s", table)
			}
			return nil
		})
		if now := s.others(); now != others {
			t.Errorf("other rules changed from\n%s to\n%s", others, now)
		}
		saw("the cluster that stays", s.internet.netns, client, ingressOutside+":80", client)
	})
	if log := s.log.String(); strings.Contains(log, "level=ERROR") {
		t.Error("the agent complained")
	}
}
