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

package privatehost

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// TestJoin shows that two hosts are neighbours on one layer 2: each answers
// the other's ARP, and packets arrive from the sender's own hardware address.
func TestJoin(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	a, b, c := start(ctx, t, "join-a"), start(ctx, t, "join-b"), start(ctx, t, "join-c")
	for range 2 { // the second time changes nothing
		if err := errors.Join(Join(ctx, a, b, "lan0"), Join(ctx, b, c, "lan0")); err != nil {
			t.Fatal(err)
		}
	}
	hosts := []*Host{a, b, c}
	for k, host := range hosts {
		for range 2 {
			if err := host.SetAddress(ctx, "lan0", netip.MustParsePrefix(fmt.Sprintf("192.0.2.%d/24", k+1))); err != nil {
				t.Fatal(err)
			}
		}
	}
	for k, from := range hosts {
		for j, to := range hosts {
			if k == j {
				continue
			}
			if err := say(ctx, from, to, fmt.Sprintf("192.0.2.%d", j+1)); err != nil {
				t.Errorf("%s to %s: %v", from.Name(), to.Name(), err)
			}
			neighbour := fmt.Sprintf("192.0.2.%d lladdr %s ", j+1, hardwareAddress(ctx, t, to))
			out, err := run(from.ip(ctx, "neigh", "show", "dev", "lan0"))
			if err != nil || !strings.Contains(string(out), neighbour) {
				t.Errorf("%s has no neighbour %q but\n%s%v", from.Name(), neighbour, out, err)
			}
		}
	}

	if err := b.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	if err := Join(ctx, a, b, "lan0"); !errors.Is(err, ErrNotRunning) {
		t.Errorf("joining a host that is down: %v", err)
	}
	if err := Join(ctx, a, a, "lan0"); err == nil {
		t.Error("a host is joined with itself")
	}
	if err := Join(ctx, a, c, "lan0"); err != nil {
		t.Errorf("once the cable to b is gone: %v", err)
	}
	if err := say(ctx, a, c, "192.0.2.3"); err != nil {
		t.Errorf("without b between them: %v", err)
	}
}

// say sends a packet from one host to an address of another, which answers.
func say(ctx context.Context, from, to *Host, address string) error {
	server, err := inNetns(to.Netns(), func() (net.Conn, error) {
		conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.ParseIP(address)})
		return conn, err
	})
	if err != nil {
		return err
	}
	defer server.Close()
	client, err := inNetns(from.Netns(), func() (net.Conn, error) { return net.Dial("udp4", server.LocalAddr().String()) })
	if err != nil {
		return err
	}
	defer client.Close()
	said := make([]byte, 16)
	var n int
	var sender *net.UDPAddr
	// A packet may get lost while the cable is new: the kernel is still learning who is where.
	for {
		if _, err := client.Write([]byte("hello")); err != nil {
			return err
		}
		if err := server.SetReadDeadline(time.Now().Add(300 * time.Millisecond)); err != nil {
			return err
		}
		if n, sender, err = server.(*net.UDPConn).ReadFromUDP(said); err == nil {
			break
		}
		if ctx.Err() != nil {
			return fmt.Errorf("nothing arrives: %w", err)
		}
	}
	if err := client.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	if _, err := server.(*net.UDPConn).WriteToUDP(said[:n], sender); err != nil {
		return err
	}
	if n, err = client.Read(said); err != nil || string(said[:n]) != "hello" {
		return fmt.Errorf("the answer is %q, %w", said[:n], err)
	}
	return nil
}

func hardwareAddress(ctx context.Context, t *testing.T, h *Host) string {
	t.Helper()
	out, err := run(h.Inside(ctx, "cat", "/sys/class/net/lan0/address"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}
