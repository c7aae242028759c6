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
	"net/netip"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/gateway"
)

// Clash is an address that two clusters would both use: one of an existing network that machines of both could get, or one
// of a host's with a port at which both let connections in. Or it is a range that one has where the other's links lead.
type Clash struct {
	// With is the other cluster.
	With *infrav1.LibvirtCluster
	// Field is a path within the spec of ours, Value its value.
	Field, Value string
	// Detail says what is the matter with the value and the remedy. A cluster of another namespace isn't named.
	Detail string
	// remedy follows the name of the other cluster in Detail.
	remedy string
}

// FindClash looks among other clusters for one that has a host in common with ours and either could give its machines an
// address of the same existing network that ours could give too, or lets connections in at an external address and port
// where ours does, or has a range of ours while one of the two links its hosts. It returns nil when there is none. Hosts are those of all namespaces: two LibvirtHosts with the same URI
// are one host.
func FindClash(ours *infrav1.LibvirtCluster, others []infrav1.LibvirtCluster, hosts []infrav1.LibvirtHost) *Clash {
	for i := range others {
		other := &others[i]
		if other.Namespace == ours.Namespace && other.Name == ours.Name {
			continue
		}
		clash := clashing(ours.Spec, other.Spec)
		if clash == nil {
			clash = clashingOutside(ours.Spec.Network, other.Spec.Network)
		}
		if clash == nil {
			clash = clashingLinked(ours.Spec.Network, other.Spec.Network)
		}
		if clash == nil || !shareHost(ours, other, hosts) {
			continue
		}
		name := "LibvirtCluster " + other.Name
		if other.Namespace != ours.Namespace {
			name = "a LibvirtCluster of another namespace"
		}
		clash.With = other
		clash.Detail += " " + name + clash.remedy
		return clash
	}
	return nil
}

// clashing compares the addresses of two clusters on one existing network.
func clashing(ours, theirs infrav1.LibvirtClusterSpec) *Clash {
	if !Existing(ours.Network) || !Existing(theirs.Network) ||
		ours.Network.Name != theirs.Network.Name || ours.Network.Bridge != theirs.Network.Bridge {
		return nil
	}
	here, err := parseRange(ours.Network.NodeRange)
	there, err2 := parseRange(theirs.Network.NodeRange)
	if err != nil || err2 != nil {
		return nil
	}
	found := func(field, value, detail string) *Clash {
		return &Clash{Field: field, Value: value, Detail: detail, remedy: ", which uses the same network: choose another"}
	}
	endpoint, endpointErr := netip.ParseAddr(ours.ControlPlaneEndpoint.Host)
	other, otherErr := netip.ParseAddr(theirs.ControlPlaneEndpoint.Host)
	switch {
	case here.Overlaps(there):
		return found("network.nodeRange", here.String(), fmt.Sprintf("overlaps the nodeRange %s of", there))
	case otherErr == nil && here.Contains(other):
		return found("network.nodeRange", here.String(), fmt.Sprintf("contains the control-plane endpoint %s of", other))
	case endpointErr == nil && there.Contains(endpoint):
		return found("controlPlaneEndpoint.host", endpoint.String(), fmt.Sprintf("lies in the nodeRange %s of", there))
	case endpointErr == nil && otherErr == nil && endpoint == other:
		return found("controlPlaneEndpoint.host", endpoint.String(), "is also that of")
	}
	return nil
}

// clashingOutside compares the external addresses and ports of two clusters.
func clashingOutside(ours, theirs infrav1.ClusterNetwork) *Clash {
	there := ways(theirs)
	for _, way := range ways(ours) {
		if slices.ContainsFunc(there, way.Overlaps) {
			return &Clash{
				Field: "network." + way.Name, Value: fmt.Sprintf("%s/%s", netip.AddrPortFrom(way.External, way.Port), way.Protocol),
				Detail: "is also a way into", remedy: ", on a host that both may use: choose another port, or another externalAddress",
			}
		}
	}
	return nil
}

// clashingLinked compares the ranges of two clusters of which one links its hosts. Then a host leads packets to all ranges of
// the cluster, also to those that it hasn't itself.
func clashingLinked(ours, theirs infrav1.ClusterNetwork) *Clash {
	if Existing(ours) || Existing(theirs) || !HasSiteLink(ours) && !HasSiteLink(theirs) {
		return nil
	}
	here, err := NewPlans(ours)
	there, err2 := NewPlans(theirs)
	if err != nil || err2 != nil {
		return nil
	}
	for _, own := range here.Prefixes() {
		for _, other := range there.Prefixes() {
			if !own.Overlaps(other) {
				continue
			}
			field := "network.subnets"
			switch own {
			case here.Main.Prefix:
				field = "network.cidr"
			case here.Main.Ingress:
				field = "network.ingressCIDR"
			}
			return &Clash{
				Field: field, Value: own.String(), Detail: fmt.Sprintf("overlaps the range %s of", other),
				remedy: ", on a host that both may use, and one of the two has a siteLink that leads there: choose another range",
			}
		}
	}
	return nil
}

// ways are the outer ends of the forwards of a cluster, without those that can't be used.
func ways(spec infrav1.ClusterNetwork) []gateway.Forward {
	var found []gateway.Forward
	if external, err := netip.ParseAddr(spec.Ingress.ExternalAddress); err == nil {
		for _, p := range spec.Ingress.Ports {
			found = append(found, ingressForward(p, external))
		}
	}
	if external, err := netip.ParseAddr(spec.APIServerAccess.ExternalAddress); err == nil {
		found = append(found, apiServerWay(spec.APIServerAccess, external))
	}
	return found
}

// shareHost tells whether two clusters may use the same host.
func shareHost(a, b *infrav1.LibvirtCluster, hosts []infrav1.LibvirtHost) bool {
	uris := map[string]bool{}
	for i := range hosts {
		if selects(a, &hosts[i]) {
			uris[hosts[i].Spec.URI] = true
		}
	}
	for i := range hosts {
		if selects(b, &hosts[i]) && uris[hosts[i].Spec.URI] {
			return true
		}
	}
	return false
}

func selects(cluster *infrav1.LibvirtCluster, host *infrav1.LibvirtHost) bool {
	selector, err := metav1.LabelSelectorAsSelector(&cluster.Spec.HostSelector)
	return err == nil && cluster.Namespace == host.Namespace && selector.Matches(labels.Set(host.Labels))
}
