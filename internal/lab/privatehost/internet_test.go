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
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestInternet(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	h := start(ctx, t, "internet")
	public, one, other := netip.MustParseAddr("203.0.113.10"), netip.MustParseAddr("198.51.100.7"), netip.MustParseAddr("192.0.2.9")
	options := InternetOptions{
		Router: netip.MustParsePrefix("203.0.113.1/24"), Public: []netip.Addr{public}, Clients: []netip.Addr{one, other},
	}
	internet, err := ConnectInternet(ctx, h, options)
	if err != nil {
		t.Fatal(err)
	}
	closed := false
	t.Cleanup(func() {
		if !closed {
			if err := internet.Close(); err != nil {
				t.Error(err)
			}
		}
	})

	server, err := inNetns(h.Netns(), func() (net.Listener, error) { return net.Listen("tcp4", public.String()+":4711") })
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	for _, client := range []netip.Addr{one, other} {
		conn, err := internet.Dial(ctx, client, server.Addr().String())
		if err != nil {
			t.Fatalf("%s: %v", client, err)
		}
		accepted, err := server.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if got := accepted.RemoteAddr().(*net.TCPAddr).AddrPort().Addr(); got != client {
			t.Errorf("%s comes as %s", client, got)
		}
		accepted.Close()
		conn.Close()
	}
	open, err := internet.Scan(ctx, other, public, time.Second)
	if err != nil || !slices.Equal(open, []uint16{4711}) {
		t.Errorf("open are %v, %v", open, err)
	}

	// Programs that choose no address of their own.
	if err := internet.SpeakAs(ctx, one); err != nil {
		t.Fatal(err)
	}
	out, err := run(internet.Command(ctx, "ip", "route", "get", public.String()))
	if err != nil || !strings.Contains(string(out), "src "+one.String()+" ") {
		t.Errorf("the host is asked by %s, %v", out, err)
	}
	// A neighbour that knows of a network behind the host.
	if err := internet.RouteToHost(ctx, netip.MustParsePrefix("10.100.0.0/24"), public); err != nil {
		t.Fatal(err)
	}
	out, err = run(internet.Command(ctx, "ip", "route", "get", "10.100.0.2"))
	if err != nil || !strings.Contains(string(out), "via "+public.String()+" ") {
		t.Errorf("10.100.0.2 is asked by %s, %v", out, err)
	}

	closed = true
	if err := internet.Close(); err != nil {
		t.Fatal(err)
	}
	for h.hasInterface(ctx, internetPort) { // the kernel removes it a little later
		if ctx.Err() != nil {
			t.Fatal("the cable is still there")
		}
		time.Sleep(20 * time.Millisecond)
	}
	again, err := ConnectInternet(ctx, h, options)
	if err != nil {
		t.Fatalf("once it was closed: %v", err)
	}
	if err := h.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	if err := again.Close(); err != nil {
		t.Errorf("once the host is gone: %v", err)
	}
	if _, err := ConnectInternet(ctx, h, options); !errors.Is(err, ErrNotRunning) {
		t.Errorf("connecting a host that is down: %v", err)
	}
}

func TestInternetOfTwoHosts(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	one, other := start(ctx, t, "site-one"), start(ctx, t, "site-other")
	address := netip.MustParseAddr("198.51.100.20")
	behind := InternetOptions{Router: netip.MustParsePrefix("198.51.100.1/24"), Public: []netip.Addr{address}}
	internet, err := ConnectInternet(ctx, one, InternetOptions{
		Router: netip.MustParsePrefix("203.0.113.1/24"), Public: []netip.Addr{netip.MustParseAddr("203.0.113.10")},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := internet.Close(); err != nil {
			t.Error(err)
		}
	})
	// dial connects from one host to the other, within a moment.
	dial := func() error {
		server, err := inNetns(other.Netns(), func() (net.Listener, error) { return net.Listen("tcp4", address.String()+":4711") })
		if err != nil {
			t.Fatal(err)
		}
		defer server.Close()
		short, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		conn, err := dialIn(short, one.Netns(), netip.AddrPort{}, server.Addr().String())
		if err == nil {
			conn.Close()
		}
		return err
	}
	if err := internet.PlugIn(ctx, other, behind); err != nil {
		t.Fatal(err)
	}
	if err := dial(); err != nil {
		t.Error(err)
	}
	if err := internet.Cut(ctx); err != nil {
		t.Fatal(err)
	}
	if err := dial(); !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("while it is cut, dialling says: %v", err)
	}
	if err := internet.Mend(ctx); err != nil {
		t.Fatal(err)
	}
	if err := dial(); err != nil {
		t.Errorf("once it is mended: %v", err)
	}

	if err := other.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	if err := internet.PlugIn(ctx, other, behind); !errors.Is(err, ErrNotRunning) {
		t.Errorf("plugging in a host that is down: %v", err)
	}
	if other, err = Start(ctx, Options{Name: other.Name(), Dir: other.Dir(), EndWithProcess: true}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = other.Remove(context.WithoutCancel(ctx)) })
	if err := internet.PlugIn(ctx, other, behind); err != nil {
		t.Fatal(err)
	}
	if err := dial(); err != nil {
		t.Errorf("once the host has started anew: %v", err)
	}
}
