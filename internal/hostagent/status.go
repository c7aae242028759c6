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
	"net"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/gateway"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/host"
)

// hostAddresses are the IPv4 addresses of the host.
func hostAddresses() ([]netip.Addr, error) {
	found, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("reading the host's addresses: %w", err)
	}
	var addresses []netip.Addr
	for _, a := range found {
		if prefix, err := netip.ParsePrefix(a.String()); err == nil && prefix.Addr().Is4() {
			addresses = append(addresses, prefix.Addr())
		}
	}
	return addresses, nil
}

// report is what the agent has to tell, but for the time.
func report(version string, networks []network, applied map[string]gateway.Wanted, p plan, addresses []netip.Addr,
	failed map[string]error, blocking []string) gateway.Status {
	status := gateway.Status{Agent: version, Reads: gateway.Version, Blocking: blocking}
	for _, n := range networks {
		told := gateway.NetworkStatus{UUID: n.UUID}
		if lets, ok := applied[n.UUID]; ok {
			told.Generation, told.Applied = lets.Generation(), &lets
			told.Problems = missing(lets, addresses)
		}
		if problem, ok := p.problems[n.UUID]; ok {
			told.Problems = append(told.Problems, problem)
		}
		if err := failed[n.UUID]; err != nil {
			told.Problems = append(told.Problems, gateway.Problem{Kind: gateway.ProblemFailed, Message: err.Error()})
		}
		for i, problem := range told.Problems {
			told.Problems[i].Message = shorten(problem.Message)
		}
		status.Networks = append(status.Networks, told)
	}
	return status
}

// shorten bounds a message, which may quote what strangers wrote.
func shorten(message string) string {
	const most = 500
	if len(message) <= most {
		return message
	}
	return strings.ToValidUTF8(message[:most], "") + "…"
}

// missing are the problems of forwards from addresses that the host doesn't have.
func missing(lets gateway.Wanted, addresses []netip.Addr) []gateway.Problem {
	var problems []gateway.Problem
	for i, f := range lets.Forwards {
		same := func(other gateway.Forward) bool { return other.External == f.External }
		if slices.Contains(addresses, f.External) || slices.ContainsFunc(lets.Forwards[:i], same) {
			continue
		}
		problems = append(problems, gateway.Problem{
			Kind:     gateway.ProblemAddress,
			External: f.External.String(),
			Message:  fmt.Sprintf("the host doesn't have the address %s: give it to one of the host's interfaces", f.External),
		})
	}
	return problems
}

// tell writes the status if it is news, or the last is to be renewed.
func (a *Agent) tell(ctx context.Context, libvirt *host.Host, status gateway.Status) error {
	now := time.Now().UTC().Truncate(time.Second)
	status.Renewed = a.told.Renewed
	news := !reflect.DeepEqual(status, a.told)
	// A tick of the clock that makes the rounds may come a little early.
	if !news && now.Sub(a.told.Renewed) < gateway.RenewInterval-5*time.Second {
		return nil
	}
	status.Renewed = now
	document, err := gateway.RenderStatusNetwork(status)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := libvirt.DefineNetwork(ctx, document); err != nil {
		return fmt.Errorf("telling what was done: %w", err)
	}
	a.told = status
	if news {
		a.logProblems(status)
	}
	return nil
}

// logProblems says what is wrong where the host's administrator looks.
func (a *Agent) logProblems(status gateway.Status) {
	for _, line := range status.Blocking {
		a.log.Info("Something is in the way", "what", line)
	}
	for _, n := range status.Networks {
		for _, p := range n.Problems {
			a.log.Info("Not as wanted", "networkUUID", n.UUID, "problem", string(p.Kind), "reason", p.Message)
		}
	}
}
