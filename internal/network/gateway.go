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
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	"libvirt.org/go/libvirtxml"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/gateway"
)

// apiServerPort is where an API server answers when nobody says otherwise.
const apiServerPort = 6443

// Forwarding is who leads packets out of a cluster's node network and into it, nobody of ours if that is there already.
// Where it isn't written down yet, it follows from what is asked for; a network from before there was a choice has NAT.
func Forwarding(spec infrav1.ClusterNetwork) infrav1.Forwarding {
	switch {
	case Existing(spec):
		return ""
	case spec.Forwarding != "":
		return spec.Forwarding
	case spec.UUID == "" && (hasIngress(spec) || hasAPIServerAccess(spec) || HasSiteLink(spec)):
		return infrav1.ForwardingHostAgent
	}
	return infrav1.ForwardingNAT
}

func hasIngress(spec infrav1.ClusterNetwork) bool {
	return spec.Ingress.ExternalAddress != ""
}

func hasAPIServerAccess(spec infrav1.ClusterNetwork) bool {
	return spec.APIServerAccess.ExternalAddress != ""
}

// Forwards are the connections that a cluster lets in from outside, given the plans of its network. Where the control-plane
// endpoint isn't known yet, the way there isn't among them. The error is a *FieldError.
func Forwards(spec infrav1.LibvirtClusterSpec, plans Plans) ([]gateway.Forward, error) {
	if Forwarding(spec.Network) != infrav1.ForwardingHostAgent {
		return nil, nil
	}
	var forwards []gateway.Forward
	if hasIngress(spec.Network) {
		var err error
		if forwards, err = ingressForwards(spec.Network.Ingress, plans); err != nil {
			return nil, err
		}
	}
	if !hasAPIServerAccess(spec.Network) {
		return forwards, nil
	}
	forward, err := apiServerForward(spec, plans)
	if err != nil {
		return nil, err
	}
	if slices.ContainsFunc(forwards, forward.Overlaps) {
		return nil, &FieldError{"apiServerAccess.port", strconv.Itoa(int(forward.Port)),
			"is also a port of ingress at the same externalAddress: choose another port, or another address"}
	}
	if !forward.Target.IsValid() {
		return forwards, nil
	}
	return append(forwards, forward), nil
}

func ingressForwards(spec infrav1.Ingress, plans Plans) ([]gateway.Forward, error) {
	external, err := parseExternal("ingress.externalAddress", spec.ExternalAddress, plans)
	if err != nil {
		return nil, err
	}
	target, err := ingressAddress(spec.Address, plans.Main)
	if err != nil {
		return nil, err
	}
	var forwards []gateway.Forward
	for i, p := range spec.Ports {
		forward := ingressForward(p, external)
		if slices.ContainsFunc(forwards, forward.Overlaps) {
			return nil, &FieldError{fmt.Sprintf("ingress.ports[%d].port", i), strconv.Itoa(int(p.Port)),
				fmt.Sprintf("is listed twice for %s: remove one of the two", cmp.Or(p.Protocol, infrav1.IngressTCP))}
		}
		forward.Target, forward.TargetPort = target, uint16(cmp.Or(p.TargetPort, p.Port))
		forwards = append(forwards, forward)
	}
	return forwards, nil
}

// ingressForward is the outer end of a forward.
func ingressForward(p infrav1.IngressPort, external netip.Addr) gateway.Forward {
	protocol := gateway.TCP
	if p.Protocol == infrav1.IngressUDP {
		protocol = gateway.UDP
	}
	return gateway.Forward{Name: "ingress", Protocol: protocol, External: external, Port: uint16(p.Port)}
}

// ingressAddress is that of the LoadBalancer Service: the first after the host's own, unless it is given.
func ingressAddress(value string, plan Plan) (netip.Addr, error) {
	const field = "ingress.address"
	if !plan.Ingress.IsValid() {
		return netip.Addr{}, &FieldError{field, value, "lies in no ingress range: set ingressCIDR"}
	}
	first := plan.IngressGateway.Next()
	if value == "" {
		return first, nil
	}
	last := broadcast(plan.Ingress)
	addr, err := netip.ParseAddr(value)
	refuse := func(what string) (netip.Addr, error) {
		return netip.Addr{}, &FieldError{field, value, fmt.Sprintf("%s: use one of %s", what, Range{first, last.Prev()})}
	}
	switch {
	case err != nil || !addr.Is4():
		return refuse("is not an IPv4 address")
	case !plan.Ingress.Contains(addr):
		return refuse("is outside ingressCIDR " + plan.Ingress.String())
	case addr == plan.IngressGateway:
		return refuse("is the host's own address in ingressCIDR " + plan.Ingress.String())
	case addr == plan.Ingress.Addr() || addr == last:
		return refuse("is the network's own or its broadcast address")
	}
	return addr, nil
}

func apiServerForward(spec infrav1.LibvirtClusterSpec, plans Plans) (gateway.Forward, error) {
	access := spec.Network.APIServerAccess
	external, err := parseExternal("apiServerAccess.externalAddress", access.ExternalAddress, plans)
	if err != nil {
		return gateway.Forward{}, err
	}
	forward := apiServerWay(access, external)
	for i, value := range access.AllowedCIDRs {
		source, err := parseSource(fmt.Sprintf("apiServerAccess.allowedCIDRs[%d]", i), value)
		if err != nil {
			return gateway.Forward{}, err
		}
		forward.Sources = append(forward.Sources, source)
	}
	if len(forward.Sources) == 0 {
		// Without sources, everybody may come.
		return gateway.Forward{}, &FieldError{"apiServerAccess.allowedCIDRs", "", "is empty: list the ranges that clients are in"}
	}
	if endpoint := spec.ControlPlaneEndpoint; plans.Main.CheckEndpoint(endpoint.Host) == nil {
		forward.Target = netip.MustParseAddr(endpoint.Host)
		forward.TargetPort = uint16(cmp.Or(endpoint.Port, apiServerPort))
	}
	return forward, nil
}

// apiServerWay is the outer end of a forward.
func apiServerWay(access infrav1.APIServerAccess, external netip.Addr) gateway.Forward {
	return gateway.Forward{
		Name: "apiServerAccess", Protocol: gateway.TCP, External: external, Port: uint16(cmp.Or(access.Port, apiServerPort)),
	}
}

// ExternalAPIServer is where clients outside reach the API server, as a URL; empty when they don't.
func ExternalAPIServer(spec infrav1.ClusterNetwork) string {
	external, err := netip.ParseAddr(spec.APIServerAccess.ExternalAddress)
	if err != nil {
		return ""
	}
	return "https://" + netip.AddrPortFrom(external, apiServerWay(spec.APIServerAccess, external).Port).String()
}

// parseExternal reads an address that clients outside use.
func parseExternal(field, value string, plans Plans) (netip.Addr, error) {
	const remedy = ": use one by which hosts of the cluster are reached from outside, like 203.0.113.10"
	addr, err := netip.ParseAddr(value)
	switch {
	case err != nil || !addr.Is4():
		return netip.Addr{}, &FieldError{field, value, "is not an IPv4 address" + remedy}
	case addr.IsUnspecified() || addr.IsLoopback() || addr.IsMulticast() || addr == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return netip.Addr{}, &FieldError{field, value, "is not an address that clients elsewhere can connect to" + remedy}
	}
	for _, own := range plans.Prefixes() {
		if own.Contains(addr) {
			return netip.Addr{}, &FieldError{field, value, fmt.Sprintf("lies in %s, which is a range of the cluster itself", own) + remedy}
		}
	}
	return addr, nil
}

// parseSource reads a range that clients have to be in.
func parseSource(field, value string) (netip.Prefix, error) {
	source, err := netip.ParsePrefix(value)
	if addr, addrErr := netip.ParseAddr(value); addrErr == nil && addr.Is4() {
		return netip.Prefix{}, &FieldError{field, value, fmt.Sprintf("is an address and not a range: use %s/32", addr)}
	}
	if err != nil || !source.Addr().Is4() {
		return netip.Prefix{}, &FieldError{field, value, "is not an IPv4 range: use a form like 198.51.100.0/24"}
	}
	if source != source.Masked() {
		return netip.Prefix{}, &FieldError{field, value, fmt.Sprintf("has host bits set: use %s", source.Masked())}
	}
	return source, nil
}

// WantedOn is what the hosts with one plan of a cluster do for the forwards that lead into their part of its network: all
// but those of hosts with a subnet of their own.
func WantedOn(plan Plan, forwards []gateway.Forward) gateway.Wanted {
	var wanted gateway.Wanted
	for _, f := range forwards {
		if plan.Prefix.Contains(f.Target) || plan.Ingress.IsValid() && plan.Ingress.Contains(f.Target) {
			wanted.Forwards = append(wanted.Forwards, f)
		}
	}
	return wanted
}

// HasGateway tells whether a network, given its persistent XML, leaves forwarding to the host's agent and tells it what a
// definition wants. What somebody else wrote there, or can't be read, is not what is wanted. A network with NAT is left as
// it is.
func HasGateway(document string, d Definition) (bool, error) {
	if d.Gateway == nil {
		return true, nil
	}
	var net libvirtxml.Network
	if err := net.Unmarshal(document); err != nil {
		return false, fmt.Errorf("reading the network: %w", err)
	}
	found, err := gateway.Read(document)
	return err == nil && found.Generation() == d.Gateway.Generation() && net.Forward != nil && net.Forward.Mode == forwardOpen, nil
}
