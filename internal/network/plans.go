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

package network

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
)

// Plans are the address plans of a cluster's hosts.
type Plans struct {
	// Main is the plan of cidr: of all hosts but those whose failure domain has a subnet of its own. The control-plane
	// endpoint and the ingress range are in it.
	Main Plan
	// subnets are the plans of the others, by failure domain.
	subnets map[string]Plan
}

// NewPlans plans the node network of a cluster. The error is a *FieldError.
func NewPlans(spec infrav1.ClusterNetwork) (Plans, error) {
	if Existing(spec) {
		plan, err := newExistingPlan(spec)
		return Plans{Main: plan}, err
	}
	plan, err := NewPlan(spec.CIDR, spec.IngressCIDR)
	if err != nil {
		return Plans{}, err
	}
	plans := Plans{Main: plan, subnets: map[string]Plan{}}
	for i, subnet := range spec.Subnets {
		field := fmt.Sprintf("subnets[%d].cidr", i)
		prefix, err := parsePrefix(field, subnet.CIDR, minBits)
		if err != nil {
			return Plans{}, err
		}
		overlaps := func(what string, other netip.Prefix) error {
			return &FieldError{field, subnet.CIDR, fmt.Sprintf(
				"overlaps %s %s: choose a range beside it, so that the networks can be routed to each other", what, other)}
		}
		if prefix.Overlaps(plan.Prefix) {
			return Plans{}, overlaps("cidr", plan.Prefix)
		}
		if plan.Ingress.IsValid() && prefix.Overlaps(plan.Ingress) {
			return Plans{}, overlaps("ingressCIDR", plan.Ingress)
		}
		for _, other := range spec.Subnets[:i] {
			if prefix.Overlaps(plans.subnets[other.FailureDomain].Prefix) {
				return Plans{}, overlaps("the subnet of failure domain "+other.FailureDomain, plans.subnets[other.FailureDomain].Prefix)
			}
		}
		plans.subnets[subnet.FailureDomain] = divide(prefix)
	}
	return plans, nil
}

// For is the plan of the hosts in a failure domain.
func (p Plans) For(failureDomain string) Plan {
	if plan, ok := p.subnets[failureDomain]; ok {
		return plan
	}
	return p.Main
}

// Prefixes are the ranges of all plans, that of ingress among them.
func (p Plans) Prefixes() []netip.Prefix {
	found := []netip.Prefix{p.Main.Prefix}
	if p.Main.Ingress.IsValid() {
		found = append(found, p.Main.Ingress)
	}
	for _, failureDomain := range slices.Sorted(maps.Keys(p.subnets)) {
		found = append(found, p.subnets[failureDomain].Prefix)
	}
	return found
}

// Existing tells whether a node network is there already, for the provider to use and never to change.
func Existing(spec infrav1.ClusterNetwork) bool {
	return spec.ManagementPolicy == infrav1.NetworkExisting
}

// CheckNodeRangeChange refuses a nodeRange that leaves out addresses of the earlier one, which machines may have. The
// error is a *FieldError.
func CheckNodeRangeChange(before, after infrav1.ClusterNetwork) error {
	from, err := parseRange(before.NodeRange)
	to, err2 := parseRange(after.NodeRange)
	if err != nil || err2 != nil || to.Contains(from.First) && to.Contains(from.Last) {
		return nil //nolint:nilerr // What isn't a range is refused elsewhere.
	}
	return &FieldError{"nodeRange", after.NodeRange, fmt.Sprintf(
		"leaves out addresses of %s, which machines may have: widen the range only", from)}
}
