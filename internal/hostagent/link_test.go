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
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/gateway"
)

// The MTU of the links: that of the internet, 1500, less what WireGuard needs.
const linkMTU = 1500 - gateway.LinkOverhead

const linkPort = 51820

// pair is two hosts with an internet between them, and what their networks want of each other.
type pair struct {
	t        *testing.T
	internet *space
	near     *site
	far      *site
	// wants is by the UUID of a network.
	wants map[string]gateway.Wanted
}

// The public addresses of the hosts of a pair.
var (
	nearAddress = netip.MustParseAddr("203.0.113.1")
	farAddress  = netip.MustParseAddr("198.51.100.1")
)

func newPair(t *testing.T) *pair {
	t.Helper()
	p := &pair{t: t, internet: newSpace(t), near: newHost(t), far: newHost(t), wants: map[string]gateway.Wanted{}}
	command(t, p.internet.netns, "sh", "-ec", "echo 1 >/proc/sys/net/ipv4/ip_forward")
	for s, address := range map[*site]netip.Addr{p.near: nearAddress, p.far: farAddress} {
		network, _ := address.Prefix(24)
		router := network.Addr().Next().Next()
		cable := "to-" + network.Addr().String()
		command(t, s.host.Netns(), "ip", "link", "add", "internet", "type", "veth", "peer", "name", cable, "netns", strconv.Itoa(p.internet.pid))
		script(t, s.host.Netns(), fmt.Sprintf("ip addr add %s/24 dev internet; ip link set internet up", address))
		p.internet.run("ip", "addr", "add", router.String()+"/24", "dev", cable)
		p.internet.run("ip", "link", "set", cable, "up")
		script(t, s.host.Netns(), "ip route add default via "+router.String())
		s.internet = p.internet
	}
	return p
}

// siteOf is the host that has a network.
func (p *pair) siteOf(uuid string) *site {
	if uuid == farWebUUID || uuid == farAppUUID {
		return p.far
	}
	return p.near
}

// want has a network want something, and waits until it is applied.
func (p *pair) want(uuid string, wanted gateway.Wanted) {
	p.t.Helper()
	p.wants[uuid] = wanted
	p.siteOf(uuid).define(uuid, rendered(p.t, wanted))
	p.siteOf(uuid).appliedAll(uuid, wanted)
}

// ranges are those of a cluster's network.
func ranges(uuid string) []netip.Prefix {
	return []netip.Prefix{
		netip.MustParsePrefix("10." + thirdBytes[uuid] + ".0.0/25"), netip.MustParsePrefix("10." + thirdBytes[uuid] + ".0.128/25"),
	}
}

// link links two networks of a cluster, as the controller does once both hosts have told their keys.
func (p *pair) link(near, far string) {
	p.t.Helper()
	for _, uuid := range []string{near, far} {
		p.want(uuid, gateway.Wanted{Link: &gateway.Link{Port: linkPort, MTU: linkMTU}})
	}
	nearKey, farKey := p.near.key(), p.far.key()
	p.want(near, linked(gateway.Peer{Name: "far", Key: farKey, Endpoint: netip.AddrPortFrom(farAddress, linkPort), Ranges: ranges(far)}))
	p.want(far, linked(gateway.Peer{Name: "near", Key: nearKey, Endpoint: netip.AddrPortFrom(nearAddress, linkPort), Ranges: ranges(near)}))
	p.near.connected(true)
	p.far.connected(true)
}

func linked(peers ...gateway.Peer) gateway.Wanted {
	return gateway.Wanted{Link: &gateway.Link{Port: linkPort, MTU: linkMTU, Peers: peers}}
}

// linkStatus waits until what the agent tells of its link is right.
func (s *site) linkStatus(what string, right func(gateway.LinkStatus) bool) gateway.LinkStatus {
	s.t.Helper()
	var found gateway.LinkStatus
	eventually(s.t, what, func() error {
		status, err := s.status()
		if err == nil && (status.Link == nil || !right(*status.Link)) {
			err = fmt.Errorf("the agent tells %+v", status.Link)
		}
		if err == nil {
			found = *status.Link
		}
		return err
	})
	return found
}

// key is the one that the host tells.
func (s *site) key() wgtypes.Key {
	s.t.Helper()
	return s.linkStatus("a key", func(gateway.LinkStatus) bool { return true }).Key
}

// connected waits until all peers of the host are told to be connected, or none.
func (s *site) connected(want bool) {
	s.t.Helper()
	s.linkStatus(fmt.Sprintf("connected to be %t", want), func(l gateway.LinkStatus) bool {
		for _, p := range l.Peers {
			if p.Connected != want {
				return false
			}
		}
		return len(l.Peers) > 0
	})
}

// echoUDP answers each packet to an address with itself.
func (s *space) echoUDP(address string) {
	s.t.Helper()
	conn, err := inside(s.netns, func() (net.PacketConn, error) { return net.ListenPacket("udp4", address) })
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { conn.Close() })
	go func() {
		buffer := make([]byte, 65536)
		for {
			n, from, err := conn.ReadFrom(buffer)
			if err != nil {
				return
			}
			_, _ = conn.WriteTo(buffer[:n], from)
		}
	}()
}

// whole sends a packet of a length, headers included, that mustn't be cut, and waits for it to come back. It tries as often
// as it takes to know for sure: an error of the kernel's, or the packet.
func (s *space) whole(to string, length int) error {
	s.t.Helper()
	conn, err := s.connect("udp4", "", to)
	if err != nil {
		return err
	}
	defer conn.Close()
	raw, err := conn.(*net.UDPConn).SyscallConn()
	if err != nil {
		return err
	}
	var setErr error
	err = raw.Control(func(fd uintptr) {
		setErr = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO)
	})
	if err != nil || setErr != nil {
		return fmt.Errorf("%w, %w", err, setErr)
	}
	const headers = 28
	packet := make([]byte, length-headers)
	for range 5 {
		if _, err := conn.Write(packet); err != nil {
			return err
		}
		_ = conn.SetReadDeadline(time.Now().Add(dialTimeout))
		if n, err := conn.Read(make([]byte, 65536)); err == nil && n == len(packet) {
			return nil
		}
	}
	return fmt.Errorf("no answer to %d bytes", length)
}

// Nodes of two sites reach each other by their own addresses.
func TestLink(t *testing.T) {
	p := newPair(t)
	p.near.start()
	p.far.start()
	p.link(webUUID, farWebUUID)
	near := p.near.guest(webUUID, "web0", "10.100.0.1", "10.100.0.10/25", "10.100.0.130/25")
	far := p.far.guest(farWebUUID, "web0", "10.110.0.1", "10.110.0.10/25")
	for s, address := range map[*space]string{near: "10.100.0.10", far: "10.110.0.10"} {
		s.serve(address + ":80")
		s.echoUDP(address + ":7")
	}
	near.serve("10.100.0.130:80")

	for what, c := range map[string]struct{ from, to, want string }{
		"a node":            {near.netns, "10.110.0.10:80", "10.100.0.10"},
		"a node back":       {far.netns, "10.100.0.10:80", "10.110.0.10"},
		"to an ingress":     {far.netns, "10.100.0.130:80", "10.110.0.10"},
		"the host":          {p.near.host.Netns(), "10.110.0.10:80", "10.100.0.1"},
		"the other host":    {p.far.host.Netns(), "10.100.0.10:80", "10.110.0.1"},
		"host to its nodes": {p.near.host.Netns(), "10.100.0.10:80", "10.100.0.1"},
	} {
		eventually(t, what, func() error {
			got, err := ask(c.from, "tcp4", "", c.to)
			if err == nil && got != c.want {
				t.Errorf("%s: the server saw %s instead of %s", what, got, c.want)
			}
			return err
		})
	}

	t.Run("long packets", func(t *testing.T) {
		// Both ends think that 1500 bytes fit. A segment has 40 bytes less than a packet, with options more.
		if size, err := near.segment("10.110.0.10:80"); err != nil || size > linkMTU-40 || size < linkMTU-60 {
			t.Errorf("a segment of TCP has %d bytes, %v", size, err)
		}
		if err := near.whole("10.110.0.10:7", linkMTU); err != nil {
			t.Errorf("a packet of the MTU: %v", err)
		}
		// The node's own interface takes more than the link, so the host tells the node.
		if err := near.whole("10.110.0.10:7", linkMTU+1); !isTooLong(err) {
			t.Errorf("a packet of a byte more: %v", err)
		}
		far.run("ip", "link", "set", "eth0", "mtu", strconv.Itoa(linkMTU))
		if err := far.whole("10.100.0.10:7", linkMTU); err != nil {
			t.Errorf("a packet of the MTU: %v", err)
		}
		if err := far.whole("10.100.0.10:7", linkMTU+1); !isTooLong(err) {
			t.Errorf("a packet of a byte more: %v", err)
		}
	})

	t.Run("much", func(t *testing.T) {
		for what, c := range map[string]struct {
			from *space
			to   string
		}{"there": {near, "10.110.0.10:80"}, "back": {far, "10.100.0.10:80"}} {
			start := time.Now()
			if err := c.from.exchange(c.to, 10<<20); err != nil {
				t.Errorf("%s: %v", what, err)
			}
			t.Logf("10 MB each way, begun from %s: %s", what, time.Since(start).Round(time.Millisecond))
		}
	})

	t.Run("apart", func(t *testing.T) { p.apart(near) })
	t.Run("the key", func(t *testing.T) {
		for _, s := range []*site{p.near, p.far} {
			s.keepsKey()
		}
	})
	for _, s := range []*site{p.near, p.far} {
		if log := s.log.String(); strings.Contains(log, "level=ERROR") {
			t.Error("an agent complained")
		}
	}
}

// apart has a second cluster on both hosts, and a peer that isn't what it should be.
func (p *pair) apart(near *space) {
	t := p.t
	t.Helper()
	p.want(farAppUUID, gateway.Wanted{})
	p.want(appUUID, gateway.Wanted{})
	app := p.near.guest(appUUID, "app0", "10.101.0.1", "10.101.0.10/25")
	farApp := p.far.guest(farAppUUID, "app0", "10.111.0.1", "10.111.0.10/25")
	app.serve("10.101.0.10:80")
	farApp.serve("10.111.0.10:80")
	// closed is asked all at once, as each takes as long as a client waits.
	closed := func(ways ...[4]string) {
		t.Helper()
		var asked sync.WaitGroup
		for _, way := range ways {
			asked.Go(func() {
				if got, err := ask(way[1], "tcp4", way[2], way[3]); err == nil {
					t.Errorf("%s: the server saw %s", way[0], got)
				}
			})
		}
		asked.Wait()
	}
	opened := func(what, from, source, to string) {
		t.Helper()
		eventually(t, what, func() error { _, err := ask(from, "tcp4", source, to); return err })
	}
	closed([4]string{"a cluster without a link", app.netns, "", "10.110.0.10:80"})

	evil := newEvil(p.internet)
	p.wants[webUUID].Link.Peers = append(p.wants[webUUID].Link.Peers, gateway.Peer{Name: "evil", Key: evil.key, Ranges: evilRanges})
	p.want(webUUID, p.wants[webUUID])
	evil.connect(p.internet, p.near.key(), "10.100.0.0/24", "10.101.0.0/24", "10.110.0.0/24")
	opened("the peer, as it should", p.internet.netns, "10.120.0.5", "10.100.0.10:80")
	closed(
		[4]string{"a peer by an address that isn't its", p.internet.netns, "10.99.0.1", "10.100.0.10:80"},
		[4]string{"a peer by another's address", p.internet.netns, "10.110.0.66", "10.100.0.10:80"},
		[4]string{"a peer to another cluster", p.internet.netns, "10.120.0.5", "10.101.0.10:80"},
		[4]string{"a peer by way of the host to another peer", p.internet.netns, "10.120.0.5", "10.110.0.10:80"},
	)

	// What a link can't be is refused, and of two clusters the first has what it has.
	app1 := gateway.Peer{Name: "far", Key: p.far.key(), Endpoint: netip.AddrPortFrom(farAddress, linkPort), Ranges: ranges(farAppUUID)}
	near1 := gateway.Peer{Name: "near", Key: p.near.key(), Endpoint: netip.AddrPortFrom(nearAddress, linkPort), Ranges: ranges(appUUID)}
	taken := app1
	taken.Ranges = ranges(farWebUUID)
	p.near.define(appUUID, rendered(t, linked(taken)))
	p.near.told(appUUID, "a clash", func(n gateway.NetworkStatus) bool {
		return len(n.Problems) == 1 && n.Problems[0].Kind == gateway.ProblemClash && strings.Contains(n.Problems[0].Message, "default.web")
	})
	p.want(appUUID, linked(app1))
	p.want(farAppUUID, linked(near1))
	opened("the second cluster, by a link of its own", app.netns, "", "10.111.0.10:80")
	opened("the first cluster", near.netns, "", "10.110.0.10:80")
	closed(
		[4]string{"a node of the first to the second", near.netns, "", "10.111.0.10:80"},
		[4]string{"a node of the second to the first", app.netns, "", "10.110.0.10:80"},
		[4]string{"a peer of the first to the second", p.internet.netns, "10.120.0.5", "10.101.0.10:80"},
	)
}

// keepsKey checks that nothing but its file has the host's private key.
func (s *site) keepsKey() {
	s.t.Helper()
	info, err := os.Stat(s.state)
	if err != nil || info.Mode().Perm() != 0o700 {
		s.t.Errorf("the directory of the keys: %v, %v", info, err)
	}
	files := keyFiles{s.state}
	own, err := files.read()
	if err != nil || own.current.PublicKey() != s.key() {
		s.t.Fatalf("the keys: %v", err)
	}
	texts := map[string]string{
		"the log":     s.log.String(),
		"the dry run": s.output("run", "--dry-run", "--state-dir", s.state),
	}
	ctx, cancel := context.WithTimeout(context.Background(), patiently)
	defer cancel()
	networks, err := s.libvirt.Networks(ctx)
	if err != nil || len(networks) == 0 {
		s.t.Fatal(err)
	}
	for _, n := range networks {
		texts["network "+n.Name] = n.XML
	}
	if dry := texts["the dry run"]; !strings.Contains(dry, "# interface capl-wg: UDP port 51820, MTU 1420, key "+s.key().String()) ||
		!strings.Contains(dry, "# ip route add ") {
		s.t.Errorf("the dry run says %s", dry)
	}
	for what, text := range texts {
		if strings.Contains(text, own.current.String()) || strings.Contains(text, hex.EncodeToString(own.current[:])) {
			s.t.Errorf("%s has the private key", what)
		}
	}
}

// segment is the length of the longest segment of a connection to an address, before any packet was too long.
func (s *space) segment(to string) (int, error) {
	conn, err := s.connect("tcp4", "", to)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		return 0, err
	}
	var size int
	var getErr error
	err = raw.Control(func(fd uintptr) { size, getErr = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_MAXSEG) })
	return size, errors.Join(err, getErr)
}

func isTooLong(err error) bool {
	var sys syscall.Errno
	return errors.As(err, &sys) && sys == syscall.EMSGSIZE
}

// exchange sends so many bytes to serve's server and receives them back.
func (s *space) exchange(to string, size int64) error {
	conn, err := s.connect("tcp4", "", to)
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patiently))
	sent := make(chan error, 1)
	go func() {
		_, err := io.Copy(conn, io.LimitReader(zeros{}, size))
		sent <- err
	}()
	if n, err := io.Copy(io.Discard, io.LimitReader(conn, size)); err != nil || n != size {
		return fmt.Errorf("%d of %d bytes came back: %w", n, size, err)
	}
	return <-sent
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
