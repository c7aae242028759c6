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
	"errors"
	"fmt"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/gateway"
)

// routeProtocol marks the routes of ours in the kernel.
const routeProtocol = 203

// ensureRoutes makes the routes of ours those of the link. It returns what went wrong, by the UUID of the network that wants
// the route, and how many routes it changed.
func ensureRoutes(index int, routes []route) (map[string]error, int, error) {
	found, err := netlink.RouteListFiltered(unix.AF_INET, &netlink.Route{Protocol: routeProtocol}, netlink.RT_FILTER_PROTOCOL)
	if err != nil {
		return nil, 0, fmt.Errorf("listing routes: %w", err)
	}
	ours := map[netip.Prefix]netlink.Route{}
	for _, r := range found {
		if r.Dst != nil {
			if to, err := netip.ParsePrefix(r.Dst.String()); err == nil {
				ours[to] = r
			}
		}
	}
	failed, changed := map[string]error{}, 0
	for _, r := range routes {
		if r.own.IsValid() {
			failed[r.network] = fmt.Errorf("the range %s of a peer has the host's own address %s in it: have the cluster use another range", r.to, r.own)
			continue
		}
		was, there := ours[r.to]
		delete(ours, r.to)
		if there && r.is(was, index) {
			continue
		}
		set := netlink.RouteAdd
		if there {
			set = netlink.RouteReplace
		}
		changed++
		wanted := netlink.Route{
			LinkIndex: index, Dst: ipNet(r.to), Src: r.from.AsSlice(), MTU: r.mtu, Protocol: routeProtocol, Scope: netlink.SCOPE_LINK,
		}
		switch err := set(&wanted); {
		case errors.Is(err, os.ErrExist):
			failed[r.network] = fmt.Errorf("the host has another route to %s: remove it, or have the cluster use another range", r.to)
		case err != nil:
			failed[r.network] = fmt.Errorf("writing the route to %s by %s: %w", r.to, gateway.LinkInterface, err)
		}
	}
	for to, r := range ours {
		changed++
		if err := netlink.RouteDel(&r); err != nil && !errors.Is(err, unix.ESRCH) {
			return failed, changed, fmt.Errorf("removing the route to %s: %w", to, err)
		}
	}
	return failed, changed, nil
}

// is tells whether a route of the kernel is this one.
func (r route) is(found netlink.Route, index int) bool {
	from, _ := netip.AddrFromSlice(found.Src)
	return found.LinkIndex == index && from.Unmap() == r.from && found.MTU == r.mtu && found.Gw == nil && found.Type == unix.RTN_UNICAST
}
