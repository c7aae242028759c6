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
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/gateway"
)

// stream is a constant one of packets that are sent back.
type stream struct {
	conn net.Conn
	done chan struct{}
	// answers counts those that came.
	answers atomic.Int64
	// at is when each of the answers came.
	at []time.Time
}

// streamInterval is the time between two packets of a stream.
const streamInterval = 20 * time.Millisecond

// stream begins to send packets to echoUDP's server.
func (s *space) stream(to string) *stream {
	s.t.Helper()
	conn, err := s.connect("udp4", "", to)
	if err != nil {
		s.t.Fatal(err)
	}
	f := &stream{conn: conn, done: make(chan struct{})}
	go func() {
		for number := uint32(0); ; number++ {
			if _, err := conn.Write(binary.BigEndian.AppendUint32(nil, number)); errors.Is(err, net.ErrClosed) {
				return
			}
			time.Sleep(streamInterval)
		}
	}()
	go func() {
		defer close(f.done)
		for buffer := make([]byte, 100); ; {
			_, err := conn.Read(buffer)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				f.at = append(f.at, time.Now())
				f.answers.Add(1)
			}
		}
	}()
	return f
}

// flows waits until answers come.
func (f *stream) flows(t *testing.T) {
	t.Helper()
	before := f.answers.Load()
	eventually(t, "answers", func() error {
		if now := f.answers.Load(); now < before+5 {
			return fmt.Errorf("there are %d", now)
		}
		return nil
	})
}

// end ends a stream and returns the longest time without an answer, and how many there were.
func (f *stream) end() (time.Duration, int) {
	last := time.Now()
	f.conn.Close()
	<-f.done
	longest := time.Duration(0)
	for i, at := range f.at {
		if i > 0 {
			longest = max(longest, at.Sub(f.at[i-1]))
		}
	}
	if len(f.at) > 0 {
		longest = max(longest, last.Sub(f.at[len(f.at)-1]))
	}
	return longest, len(f.at)
}

// rotate has the agent's host go over to another key, with the controller's part played.
func (p *pair) rotate(s *site, uuid, other string) {
	t := p.t
	t.Helper()
	old := s.key()
	cmd := exec.Command(self, "rotate-key", "--state-dir", s.state)
	cmd.Env = append(os.Environ(), asAgent+"=1")
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), old.String()) {
		t.Fatalf("%v: %s", err, out)
	}
	next := s.linkStatus("a next key", func(l gateway.LinkStatus) bool { return l.Next != (wgtypes.Key{}) }).Next

	wants := p.wants[other]
	wants.Link.Peers[0].Next = next
	p.want(other, wants)
	p.siteOf(other).linkStatus("the next key to be set up", func(l gateway.LinkStatus) bool { return len(l.Peers[0].Keys) == 2 && l.Peers[0].Keys[0] == old })
	own := p.wants[uuid]
	own.Link.SwitchTo = next
	p.want(uuid, own)
	s.linkStatus("the switch", func(l gateway.LinkStatus) bool { return l.Key == next && l.Next == (wgtypes.Key{}) })
	p.siteOf(other).linkStatus("the peer to use its next key", func(l gateway.LinkStatus) bool { return l.Peers[0].Keys[0] == next && l.Peers[0].Connected })
	wants.Link.Peers[0].Key, wants.Link.Peers[0].Next = next, wgtypes.Key{}
	p.want(other, wants)
	own.Link.SwitchTo = wgtypes.Key{}
	p.want(uuid, own)
	p.siteOf(other).linkStatus("one key", func(l gateway.LinkStatus) bool { return len(l.Peers[0].Keys) == 1 && l.Peers[0].Keys[0] == next })
	if _, err := os.Stat(filepath.Join(s.state, "wireguard-next.key")); !os.IsNotExist(err) {
		t.Errorf("the file of the next key is still there: %v", err)
	}
}

// The link goes on while its keys change, comes back whatever becomes of it, and goes when nobody wants it.
func TestLinkSurvives(t *testing.T) {
	p := newPair(t)
	p.near.start()
	p.far.start()
	p.link(webUUID, farWebUUID)
	near := p.near.guest(webUUID, "web0", "10.100.0.1", "10.100.0.10/25")
	far := p.far.guest(farWebUUID, "web0", "10.110.0.1", "10.110.0.10/25")
	near.echoUDP("10.100.0.10:7")
	far.echoUDP("10.110.0.10:7")
	passes := func() error { return near.whole("10.110.0.10:7", 100) }
	eventually(t, "the first packet", passes)

	t.Run("new keys", func(t *testing.T) {
		// A busy machine stands still for a while now and then: how long is seen before, and beside the link.
		calm, beside := near.stream("10.110.0.10:7"), far.stream("10.110.0.10:7")
		time.Sleep(2 * time.Second)
		stall, _ := calm.end()
		there, back := near.stream("10.110.0.10:7"), far.stream("10.100.0.10:7")
		there.flows(t)
		back.flows(t)
		p.rotate(p.far, farWebUUID, webUUID)
		p.rotate(p.near, webUUID, farWebUUID)
		still, _ := beside.end()
		stall = max(stall, still)
		for what, f := range map[string]*stream{"there": there, "back": back} {
			longest, answers := f.end()
			t.Logf("%s: %d answers, and at most %s without one; without a change of keys, at most %s", what, answers, longest.Round(time.Millisecond), stall.Round(time.Millisecond))
			if longest >= time.Second+stall || answers < 50 {
				t.Errorf("%s: %d answers, and %s without one", what, answers, longest)
			}
		}
	})

	state := func() string {
		return script(t, p.near.host.Netns(), "ip -o link show capl-wg | sed 's/^[0-9]*//; s/state.*//'; ip route show proto 203 | sort")
	}
	good := state()
	t.Logf("It is\n%s", good)
	repaired := func(what string) time.Duration {
		t.Helper()
		start := time.Now()
		eventually(t, "the link after "+what, func() error {
			out, err := p.near.host.Command(context.Background(), "ip", "route", "show", "proto", "203").Output()
			if err != nil || !strings.Contains(string(out), "10.110.0.0/25 dev capl-wg") {
				return fmt.Errorf("the routes are %s, %w", out, err)
			}
			if now := state(); now != good {
				return fmt.Errorf("it is\n%s", now)
			}
			return passes()
		})
		return time.Since(start).Round(time.Millisecond)
	}
	farKey := p.far.key()
	for what, damage := range map[string]func(){
		"the interface's removal": func() { script(t, p.near.host.Netns(), "ip link del capl-wg") },
		"its end":                 func() { script(t, p.near.host.Netns(), "ip link set capl-wg down") },
		"another MTU":             func() { script(t, p.near.host.Netns(), "ip link set capl-wg mtu 1300") },
		"a route's removal":       func() { script(t, p.near.host.Netns(), "ip route del 10.110.0.0/25") },
		"all routes' removal":     func() { script(t, p.near.host.Netns(), "ip route flush proto 203") },
		"another route": func() {
			script(t, p.near.host.Netns(), "ip route replace 10.110.0.0/25 dev capl-wg mtu 1000 proto 203")
		},
		"a route too many":      func() { script(t, p.near.host.Netns(), "ip route add 10.99.0.0/16 dev capl-wg proto 203") },
		"a peer's removal":      func() { p.near.setLink("public_key="+hexOf(farKey), "remove=true") },
		"a peer without ranges": func() { p.near.setLink("public_key="+hexOf(farKey), "replace_allowed_ips=true") },
		"a peer too many":       func() { p.near.setLink("public_key="+hexOf(keyOf(77)), "allowed_ip=10.110.0.0/25") },
		"a flush":               func() { script(t, p.near.host.Netns(), "nft flush ruleset") },
	} {
		damage()
		t.Logf("Repaired after %s: %s", what, repaired(what))
	}

	t.Run("a restart", func(t *testing.T) {
		f := near.stream("10.110.0.10:7")
		f.flows(t)
		p.near.stop(syscall.SIGKILL)
		left := packetsOf(t, p.internet, "203.0.113.0")
		time.Sleep(10 * streamInterval) // the nodes go on meanwhile
		if now := packetsOf(t, p.internet, "203.0.113.0"); now > left+5 {
			t.Errorf("%d packets for the peer went to the internet as they are", now-left)
		}
		p.near.start()
		took := repaired("a restart")
		f.flows(t)
		longest, _ := f.end()
		t.Logf("Without the second that systemd waits: nothing for %s; right after %s", longest.Round(time.Millisecond), took)
		p.near.connected(true)
	})
	t.Run("a route of another's", func(t *testing.T) {
		// The agent is told to give its own up first.
		alone := gateway.Wanted{Link: &gateway.Link{Port: linkPort, MTU: linkMTU}}
		wants := p.wants[webUUID]
		p.want(webUUID, alone)
		eventually(t, "the routes to go", func() error {
			if out := script(t, p.near.host.Netns(), "ip route show proto 203"); out != "" {
				return fmt.Errorf("there is %s", out)
			}
			return nil
		})
		script(t, p.near.host.Netns(), "ip route add 10.110.0.0/25 via 203.0.113.2")
		p.near.define(webUUID, rendered(t, wants))
		p.near.told(webUUID, "the route to be in the way", func(n gateway.NetworkStatus) bool {
			return len(n.Problems) == 1 && n.Problems[0].Kind == gateway.ProblemFailed && strings.Contains(n.Problems[0].Message, "another route to 10.110.0.0/25") &&
				n.Generation == alone.Generation()
		})
		script(t, p.near.host.Netns(), "ip route del 10.110.0.0/25 via 203.0.113.2")
		p.want(webUUID, wants)
		repaired("the route's end")
	})
	t.Run("nobody wants it", func(t *testing.T) {
		key := p.near.key()
		p.want(webUUID, gateway.Wanted{})
		eventually(t, "the interface to go", func() error {
			if out, err := p.near.host.Command(context.Background(), "ip", "link", "show", "capl-wg").Output(); err == nil {
				return fmt.Errorf("there is %s", out)
			}
			status, err := p.near.status()
			if err == nil && status.Link != nil {
				err = fmt.Errorf("the agent tells %+v", status.Link)
			}
			return err
		})
		if out := script(t, p.near.host.Netns(), "ip route show proto 203"); out != "" {
			t.Errorf("there are the routes %s", out)
		}
		p.near.stop(syscall.SIGTERM)
		if out := p.near.output("uninstall", "--root", t.TempDir(), "--state-dir", p.near.state); !strings.Contains(out, "Kept "+p.near.state) {
			t.Errorf("uninstall said %s", out)
		}
		if own, err := (keyFiles{p.near.state}).read(); err != nil || own.current.PublicKey() != key {
			t.Errorf("the key is another one, %v", err)
		}
	})
}

// packetsOf are those that came from a host of a pair, by the network that its cable has.
func packetsOf(t *testing.T, internet *space, network string) int {
	t.Helper()
	count, err := strconv.Atoi(strings.TrimSpace(command(t, internet.netns, "awk", "/to-"+network+":/ { print $3 }", "/proc/net/dev")))
	if err != nil {
		t.Fatal(err)
	}
	return count
}

func hexOf(key wgtypes.Key) string { return hex.EncodeToString(key[:]) }

// setLink does to the interface what its administrator could.
func (s *site) setLink(lines ...string) {
	s.t.Helper()
	conn, err := net.Dial("unix", filepath.Join(s.run, "wireguard", gateway.LinkInterface+".sock"))
	if err != nil {
		s.t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patiently))
	fmt.Fprintf(conn, "set=1\n%s\n\n", strings.Join(lines, "\n"))
	answer := make([]byte, 100)
	if n, err := conn.Read(answer); err != nil || strings.TrimSpace(string(answer[:n])) != "errno=0" {
		s.t.Fatalf("%v: %s", err, answer[:n])
	}
}

// rotate-key says what it does, and does it once.
func TestRotateKey(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	run := func() (string, error) {
		var out strings.Builder
		cmd := NewCommand("test")
		cmd.SetArgs([]string{"rotate-key", "--state-dir", dir})
		cmd.SetOut(&out)
		err := cmd.Execute()
		return out.String(), err
	}
	if _, err := run(); err == nil || !strings.Contains(err.Error(), "has no key yet") {
		t.Errorf("without a key: %v", err)
	}
	files := keyFiles{dir}
	first, err := files.need()
	if err != nil {
		t.Fatal(err)
	}
	said, err := run()
	both, readErr := files.read()
	if err != nil || readErr != nil || both.current != first.current || both.next == (wgtypes.Key{}) || !strings.Contains(said, both.next.PublicKey().String()) {
		t.Errorf("said %s, %v, %v", said, err, readErr)
	}
	if again, err := run(); err != nil || !strings.Contains(again, "already on its way") || !strings.Contains(again, both.next.PublicKey().String()) {
		t.Errorf("the second time it said %s, %v", again, err)
	}
	if err := files.promote(); err != nil {
		t.Fatal(err)
	}
	if after, err := files.read(); err != nil || after != (keys{current: both.next}) {
		t.Errorf("after going over: %v", err)
	}
	if info, err := os.Stat(files.current()); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file is %v, %v", info, err)
	}
	if err := os.Chmod(files.current(), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := files.read(); err == nil || !strings.Contains(err.Error(), "others than root may read") {
		t.Errorf("a key that others may read: %v", err)
	}
	if err := os.WriteFile(files.current(), []byte("junk"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(files.current(), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := files.need(); err == nil || strings.Contains(err.Error(), "junk") {
		t.Errorf("a file without a key: %v", err)
	}
}
