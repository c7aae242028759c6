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
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// scanBatch is how many ports are tried at the same time.
const scanBatch = 4096

// Scan tries all TCP ports of an address as one of the clients, and returns
// those that are open. A port that hasn't answered after the given time, which
// is more than a round trip takes, counts as closed.
func (i *Internet) Scan(ctx context.Context, client, target netip.Addr, patience time.Duration) ([]uint16, error) {
	var open []uint16
	for first := 1; first <= 65535; first += scanBatch {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("scanning %s: %w", target, err)
		}
		found, err := inNetns(i.Netns(), func() ([]uint16, error) {
			return scan(client, target, first, min(first+scanBatch, 65536), patience)
		})
		if err != nil {
			return nil, fmt.Errorf("scanning %s: %w", target, err)
		}
		open = append(open, found...)
	}
	return open, nil
}

// scan tries the ports from first to before end, all at the same time.
func scan(client, target netip.Addr, first, end int, patience time.Duration) (open []uint16, err error) {
	var waiting []unix.PollFd
	ports := map[int32]uint16{}
	defer func() {
		for fd := range ports {
			_ = unix.Close(int(fd))
		}
	}()
	for port := first; port < end; port++ {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return nil, fmt.Errorf("making a socket: %w", err)
		}
		ports[int32(fd)] = uint16(port)
		if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: client.As4()}); err != nil {
			return nil, fmt.Errorf("binding to %s: %w", client, err)
		}
		switch err := unix.Connect(fd, &unix.SockaddrInet4{Port: port, Addr: target.As4()}); {
		case err == nil:
			open = append(open, uint16(port))
		case errors.Is(err, unix.EINPROGRESS):
			waiting = append(waiting, unix.PollFd{Fd: int32(fd), Events: unix.POLLOUT})
		}
	}
	for deadline := time.Now().Add(patience); len(waiting) > 0 && time.Now().Before(deadline); {
		_, err := unix.Poll(waiting, int(time.Until(deadline).Milliseconds())+1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return nil, fmt.Errorf("waiting for answers: %w", err)
		}
		silent := waiting[:0]
		for _, w := range waiting {
			if w.Revents == 0 {
				silent = append(silent, w)
				continue
			}
			if code, err := unix.GetsockoptInt(int(w.Fd), unix.SOL_SOCKET, unix.SO_ERROR); err == nil && code == 0 {
				open = append(open, ports[w.Fd])
			}
		}
		waiting = silent
	}
	return open, nil
}
