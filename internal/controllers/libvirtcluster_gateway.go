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

package controllers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"sigs.k8s.io/cluster-api/util/conditions"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/gateway"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/host"
)

// DefaultAgentSilence is five times what an agent takes to renew its status.
const DefaultAgentSilence = 5 * gateway.RenewInterval

// reconcileGateway tells what has become, on the hosts that have the network, of what is wanted of their agents, and offers
// a kubeconfig for outside.
func (r *LibvirtClusterReconciler) reconcileGateway(ctx context.Context, s *clusterScope) error {
	if len(s.up) == 0 {
		return &waiting{
			reason: infrav1.NotYetReason, message: "Waits for " + infrav1.ClusterNetworkReadyCondition, unknown: true, keep: true,
		}
	}
	var mu sync.Mutex
	var seen []gatewayOnHost
	var failures []error
	for i, err := range onEach(ctx, s.up, func(ctx context.Context, h *infrav1.LibvirtHost) error {
		agent, err := r.agent(ctx, h)
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, gatewayOnHost{name: h.Name, wanted: *s.definition(h).Gateway, agent: agent})
		return nil
	}) {
		if err != nil {
			failures = append(failures, wrapHost(s.up[i].Name, err))
		}
	}
	if err := r.reconcileKubeconfig(ctx, s); err != nil {
		failures = append(failures, err)
	}
	troubles, after := judgeGateways(seen, s.libvirtCluster.Spec.Network.UUID, time.Now(), r.AgentSilence)
	if len(troubles)+len(failures) == 0 {
		if stillSilent(s.libvirtCluster, infrav1.ClusterGatewayReadyCondition, seen) {
			return &waiting{reason: infrav1.ClusterGatewayAgentSilentReason, keep: true, after: after}
		}
		return &waiting{reason: infrav1.ClusterGatewayAppliedReason, done: true, after: after}
	}
	all := make([]error, 0, len(troubles)+len(failures))
	for _, trouble := range troubles {
		trouble.after = after
		all = append(all, trouble)
	}
	return together(append(all, failures...))
}

// stillSilent tells that an agent that was silent before a start of the manager has yet to show that it isn't any more.
func stillSilent(libvirtCluster *infrav1.LibvirtCluster, condition string, seen []gatewayOnHost) bool {
	return conditions.GetReason(libvirtCluster, condition) == infrav1.ClusterGatewayAgentSilentReason &&
		slices.ContainsFunc(seen, func(g gatewayOnHost) bool { return !g.agent.alive })
}

// agentSighting is what the agent of a host told when it was last looked at.
type agentSighting struct {
	// status is what it told, zero when nothing is there.
	status gateway.Status
	// unreadable is why what is there isn't its status.
	unreadable string
	// looked is when that was read, changed when it was first read like this.
	looked, changed time.Time
	// alive tells that it was seen to change.
	alive bool
}

// agent returns what the agent of a host tells. That is believed until the host says that it has changed, or the agent
// should have renewed it.
func (r *LibvirtClusterReconciler) agent(ctx context.Context, h *infrav1.LibvirtHost) (agentSighting, error) {
	kvm, err := connected(r.Hosts, h.Namespace, h.Name)
	if err != nil {
		return agentSighting{}, err
	}
	key := hostKey(h.Namespace, h.Name)
	epoch, now := r.Events.epoch(key, gateway.StatusNetworkUUID), time.Now()
	before, ok := r.agents.get(key, epoch)
	if ok && now.Sub(before.looked) < r.AgentSilence {
		return before, nil
	}
	agent := agentSighting{looked: now, changed: now}
	document, err := kvm.NetworkXML(ctx, gateway.StatusNetworkUUID)
	switch {
	case errors.Is(err, host.ErrNotFound):
	case err != nil:
		return agentSighting{}, fmt.Errorf("looking up the host agent's status: %w", err)
	default:
		if agent.status, err = gateway.ReadStatus(document); err != nil {
			agent.unreadable = err.Error()
		}
	}
	if !before.looked.IsZero() {
		renewed := !agent.status.Renewed.Equal(before.status.Renewed)
		if agent.alive = before.alive || renewed; !renewed {
			agent.changed = before.changed
		}
	}
	r.agents.set(key, epoch, agent)
	return agent, nil
}

// gatewayOnHost is what is known of the gateway of a cluster's network on one host.
type gatewayOnHost struct {
	// name of the host.
	name   string
	wanted gateway.Wanted
	agent  agentSighting
}

// gatewayReasons are the reasons for which a gateway isn't ready. What a person has to see to comes before what passes.
var gatewayReasons = []string{
	infrav1.ClusterGatewayAgentNotSeenReason, infrav1.ClusterGatewayAgentSilentReason, infrav1.ClusterGatewayRefusedReason,
	infrav1.ClusterGatewayFailedReason, infrav1.ClusterGatewayClashReason, infrav1.ClusterGatewayBlockedReason,
	infrav1.ClusterGatewayAddressMissingReason, infrav1.ClusterGatewayNotAppliedReason,
}

// judgeGateways says what keeps the gateways of a network from working, the most serious first, and when to look again at
// the latest.
func judgeGateways(seen []gatewayOnHost, networkUUID string, now time.Time, silence time.Duration) ([]*waiting, time.Duration) {
	slices.SortFunc(seen, func(a, b gatewayOnHost) int { return strings.Compare(a.name, b.name) })
	var troubles []*waiting
	after := silence
	for _, g := range seen {
		trouble := g.trouble(networkUUID, now, silence)
		if trouble != nil {
			trouble.message = g.name + ": " + shortened(trouble.message)
			troubles = append(troubles, trouble)
		}
		if left := silence - now.Sub(g.agent.changed); left > 0 {
			after = min(after, left)
		}
	}
	if missing := missingAddresses(seen, networkUUID); len(missing) > 0 {
		troubles = append(troubles, &waiting{reason: infrav1.ClusterGatewayAddressMissingReason, message: fmt.Sprintf(
			"no host of the cluster has the external address %s: add it to an interface of a host, or correct spec.network",
			strings.Join(missing, ", "))})
	}
	slices.SortStableFunc(troubles, func(a, b *waiting) int {
		return cmp.Compare(slices.Index(gatewayReasons, a.reason), slices.Index(gatewayReasons, b.reason))
	})
	return troubles, after
}

// trouble says what keeps the gateway of one host from working, nil when nothing does. Whether an external address is
// missing is decided over all hosts.
func (g gatewayOnHost) trouble(networkUUID string, now time.Time, silence time.Duration) *waiting {
	status := g.agent.status
	switch {
	case g.agent.unreadable != "":
		return gatewayTrouble(infrav1.ClusterGatewayAgentNotSeenReason, "what network %s says isn't the status of a host agent (%s): run host-agent install on the host",
			gateway.StatusNetworkName, g.agent.unreadable)
	case status.Renewed.IsZero():
		return gatewayTrouble(infrav1.ClusterGatewayAgentNotSeenReason, "no host agent has reported: run host-agent install on the host")
	case now.Sub(g.agent.changed) >= silence:
		return gatewayTrouble(infrav1.ClusterGatewayAgentSilentReason,
			"the host agent hasn't reported since %s by the host's clock: see systemctl status cluster-api-host-agent on the host", status.Renewed.Format(time.RFC3339))
	}
	if problem, ok := problemOf(status, networkUUID, gateway.ProblemRefused); ok {
		return gatewayTrouble(infrav1.ClusterGatewayRefusedReason, "%s", problem)
	}
	if problem, ok := problemOf(status, networkUUID, gateway.ProblemFailed); ok {
		return gatewayTrouble(infrav1.ClusterGatewayFailedReason, "%s", problem)
	}
	// Of what clashes nothing is applied, so that the generation is another, too.
	if problem, ok := problemOf(status, networkUUID, gateway.ProblemClash); ok {
		return gatewayTrouble(infrav1.ClusterGatewayClashReason, "%s", problem)
	}
	if generation := g.applied(networkUUID); generation != g.wanted.Generation() {
		return gatewayTrouble(infrav1.ClusterGatewayNotAppliedReason, "the host agent has applied generation %q and %q is wanted: wait",
			generation, g.wanted.Generation())
	}
	if len(status.Blocking) > 0 {
		return gatewayTrouble(infrav1.ClusterGatewayBlockedReason, "%s", strings.Join(status.Blocking, "; "))
	}
	return nil
}

// maxTrouble is how much of what an agent says of one host is told, so that all hosts have room in a condition.
const maxTrouble = 1000

func shortened(message string) string {
	if runes := []rune(message); len(runes) > maxTrouble {
		return string(runes[:maxTrouble]) + "…"
	}
	return message
}

func gatewayTrouble(reason, format string, args ...any) *waiting {
	return &waiting{reason: reason, message: fmt.Sprintf(format, args...)}
}

// applied is the generation that a host's rules have.
func (g gatewayOnHost) applied(networkUUID string) string {
	for _, n := range g.agent.status.Networks {
		if n.UUID == networkUUID {
			return n.Generation
		}
	}
	return ""
}

// problemOf is what an agent says of the problems of one kind with a network.
func problemOf(status gateway.Status, networkUUID string, kind gateway.ProblemKind) (string, bool) {
	var messages []string
	for _, n := range status.Networks {
		for _, p := range n.Problems {
			if n.UUID == networkUUID && p.Kind == kind {
				messages = append(messages, p.Message)
			}
		}
	}
	return strings.Join(messages, "; "), len(messages) > 0
}

// missingAddresses are the external addresses that no host has. A host that hasn't told counts as one that has them: what
// is the matter there is said already.
func missingAddresses(seen []gatewayOnHost, networkUUID string) []string {
	had, missing := map[string]bool{}, map[string]bool{}
	for _, g := range seen {
		lacks := map[string]bool{}
		for _, n := range g.agent.status.Networks {
			for _, p := range n.Problems {
				if n.UUID == networkUUID && p.Kind == gateway.ProblemAddress {
					lacks[p.External] = true
				}
			}
		}
		for _, f := range g.wanted.Forwards {
			if external := f.External.String(); lacks[external] {
				missing[external] = true
			} else {
				had[external] = true
			}
		}
	}
	var found []string
	for external := range missing {
		if !had[external] {
			found = append(found, external)
		}
	}
	slices.Sort(found)
	return found
}
