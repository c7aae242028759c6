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
	"fmt"
	"time"

	"github.com/go-logr/logr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// eventSource is where the kernel tells of one kind of things.
type eventSource struct {
	what   string
	family int
	group  uint32
}

var (
	hostEvents = []eventSource{
		{"rules", unix.NETLINK_NETFILTER, unix.NFNLGRP_NFTABLES},
		{"addresses", unix.NETLINK_ROUTE, unix.RTNLGRP_IPV4_IFADDR},
	}
	linkEvents = []eventSource{
		{"interfaces", unix.NETLINK_ROUTE, unix.RTNLGRP_LINK},
		{"routes", unix.NETLINK_ROUTE, unix.RTNLGRP_IPV4_ROUTE},
	}
)

// watch tells, until ctx ends, that something of the host has changed, without saying what.
func watch(ctx context.Context, log logr.Logger, sources ...eventSource) (<-chan struct{}, error) {
	changes := make(chan struct{}, 1)
	for _, source := range sources {
		conn, err := netlink.Dial(source.family, nil)
		if err != nil {
			return nil, fmt.Errorf("watching the host's %s: %w", source.what, err)
		}
		context.AfterFunc(ctx, func() { _ = conn.Close() })
		if err := conn.JoinGroup(source.group); err != nil {
			return nil, fmt.Errorf("watching the host's %s: %w", source.what, err)
		}
		go func() {
			for ctx.Err() == nil {
				if _, err := conn.Receive(); err != nil && ctx.Err() == nil {
					// More changed than the socket can hold: which doesn't matter.
					log.V(1).Info("Missed changes", "of", source.what, "reason", err.Error())
					pause(ctx, settle)
				}
				wake(changes)
			}
		}()
	}
	return changes, nil
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
