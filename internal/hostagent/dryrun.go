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
	"io"
	"strings"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/gateway"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/host"
)

// DryRun prints the rules that the agent would write, with what it would tell as comments, and changes nothing.
func (a *Agent) DryRun(ctx context.Context, out io.Writer) error {
	return a.once(ctx, func(*host.Host) error {
		addresses, err := hostAddresses()
		if err != nil {
			return err
		}
		ours, err := a.tables.find(ctx)
		if err != nil {
			return err
		}
		plan := decide(a.networks, a.applied)
		planned := planLink(a.networks, plan.lets, addresses)
		blocking, err := survey(ctx, a.networks, planned, ours)
		if err != nil {
			return err
		}
		lets := map[string]gateway.Wanted{}
		for uuid, wanted := range plan.lets {
			lets[uuid] = *wanted
		}
		status := report(a.version, a.networks, lets, plan, addresses, nil, blocking)
		own, err := a.wire.files.read()
		if err != nil {
			return err
		}
		_, err = io.WriteString(out, describe(a.networks, plan, status)+describeLink(planned, own))
		return err
	})
}

// describe is what DryRun prints, a script for nft.
func describe(networks []network, p plan, status gateway.Status) string {
	var b strings.Builder
	for _, line := range status.Blocking {
		fmt.Fprintf(&b, "# blocking: %s\n", line)
	}
	for i, n := range networks {
		fmt.Fprintf(&b, "# network %s (%s), generation %q\n", n.Name, n.UUID, status.Networks[i].Generation)
		for _, problem := range status.Networks[i].Problems {
			fmt.Fprintf(&b, "# %s: %s\n", problem.Kind, strings.ReplaceAll(problem.Message, "\n", " "))
		}
		if n.broken != nil {
			continue
		}
		var wanted gateway.Wanted
		if lets := p.lets[n.UUID]; lets != nil {
			wanted = *lets
		}
		b.WriteString(gateway.RenderTable(n.Network, rangesOfOthers(n, networks), wanted))
	}
	if len(networks) == 0 {
		b.WriteString("# no network of this host is for the agent\n")
	}
	return b.String()
}

// describeLink is what DryRun prints of the link, as comments.
func describeLink(l *link, own keys) string {
	if l == nil {
		return ""
	}
	var b strings.Builder
	key := "a key that is to be made"
	if own.current != (wgtypes.Key{}) {
		key = "key " + public(own.current).String()
	}
	fmt.Fprintf(&b, "# interface %s: UDP port %d, MTU %d, %s\n", gateway.LinkInterface, l.port, l.mtu, key)
	for _, p := range l.peers {
		where := "connects by itself"
		if p.endpoint.IsValid() {
			where = "at " + p.endpoint.String()
		}
		fmt.Fprintf(&b, "# peer %s, key %s, %s, ranges %s\n", p.name, p.keys, where, p.ranges)
	}
	for _, r := range l.routes {
		fmt.Fprintf(&b, "# ip route add %s dev %s src %s mtu %d proto %d\n", r.to, gateway.LinkInterface, r.from, r.mtu, routeProtocol)
	}
	return b.String()
}
