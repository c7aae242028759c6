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
	"io"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"time"

	"github.com/vishvananda/netns"
)

// dialTimeout bounds one connection attempt, so that a target that drops
// packets doesn't pile up threads.
const dialTimeout = 10 * time.Second

// Forward listens on an address of the machine, such as 127.0.0.1:0, and
// passes every connection on to a TCP address inside the host's network, until
// the context ends. It returns the address it listens on.
func (h *Host) Forward(ctx context.Context, listen, target string) (net.Addr, error) {
	return Forward(ctx, h.Netns(), listen, target)
}

// Forward is (*Host).Forward for a network namespace given by path.
func Forward(ctx context.Context, netnsPath, listen, target string) (net.Addr, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", listen)
	if err != nil {
		return nil, fmt.Errorf("forwarding to %s: %w", target, err)
	}
	context.AfterFunc(ctx, func() { listener.Close() })
	go func() {
		for {
			client, err := listener.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				continue // the client gave up
			}
			go func() {
				defer client.Close()
				server, err := dialIn(ctx, netnsPath, netip.AddrPort{}, target)
				if err != nil {
					return // the client sees its connection closed
				}
				defer server.Close()
				pipe(ctx, client, server)
			}()
		}
	}()
	return listener.Addr(), nil
}

// dialIn dials in a network namespace, from an address if one is given.
func dialIn(ctx context.Context, netnsPath string, local netip.AddrPort, target string) (net.Conn, error) {
	return inNetns(netnsPath, func() (net.Conn, error) {
		// One address, one attempt: a racing dial would leave this thread.
		ctx, cancel := context.WithTimeout(ctx, dialTimeout)
		defer cancel()
		addr, err := net.ResolveTCPAddr("tcp", target)
		if err != nil {
			return nil, err
		}
		var dialer net.Dialer
		if local.IsValid() {
			dialer.LocalAddr = net.TCPAddrFromAddrPort(local)
		}
		return dialer.DialContext(ctx, "tcp", addr.String())
	})
}

// inNetns calls a function in a network namespace. A socket stays in the
// namespace in which it was made, so only what makes it needs a thread there.
// The thread is never unlocked and so ends with its goroutine, whatever went
// wrong.
func inNetns[T any](netnsPath string, f func() (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	go func() {
		runtime.LockOSThread()
		ns, err := netns.GetFromPath(netnsPath)
		if err == nil {
			err = netns.Set(ns)
			_ = ns.Close()
		}
		if err != nil {
			done <- result{err: fmt.Errorf("entering network namespace %s: %w", netnsPath, err)}
			return
		}
		value, err := f()
		done <- result{value, err}
	}()
	r := <-done
	return r.value, r.err
}

// pipe copies both ways until both ends are done or the context ends, passing
// on half-closes.
func pipe(ctx context.Context, a, b net.Conn) {
	stop := context.AfterFunc(ctx, func() { a.Close(); b.Close() })
	defer stop()
	var both sync.WaitGroup
	for _, way := range [][2]net.Conn{{a, b}, {b, a}} {
		both.Go(func() {
			_, _ = io.Copy(way[0], way[1])
			if end, ok := way[0].(*net.TCPConn); ok {
				_ = end.CloseWrite()
			}
		})
	}
	both.Wait()
}
