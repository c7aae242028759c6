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

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
)

// Clash is an address of an existing network that machines of two clusters could get.
type Clash struct {
	// With is the other cluster.
	With *infrav1.LibvirtCluster
	// Field is a path within the spec of ours, Value its value.
	Field, Value string
	// Detail says what is the matter with the value and the remedy. A cluster of another namespace isn't named.
	Detail string
}

// FindClash looks among other clusters for one that uses the same existing network, has a host in common with ours, and
// could give its machines an address that ours could give too. It returns nil when there is none. Hosts are those of all
// namespaces: two LibvirtHosts with the same URI are one host.
func FindClash(ours *infrav1.LibvirtCluster, others []infrav1.LibvirtCluster, hosts []infrav1.LibvirtHost) *Clash {
	for i := range others {
		other := &others[i]
		if other.Namespace == ours.Namespace && other.Name == ours.Name {
			continue
		}
		clash := clashing(ours.Spec, other.Spec)
		if clash == nil || !shareHost(ours, other, hosts) {
			continue
		}
		name := "LibvirtCluster " + other.Name
		if other.Namespace != ours.Namespace {
			name = "a LibvirtCluster of another namespace"
		}
		clash.With = other
		clash.Detail += " " + name + ", which uses the same network: choose another"
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
	endpoint, endpointErr := netip.ParseAddr(ours.ControlPlaneEndpoint.Host)
	other, otherErr := netip.ParseAddr(theirs.ControlPlaneEndpoint.Host)
	switch {
	case here.Overlaps(there):
		return &Clash{Field: "network.nodeRange", Value: here.String(), Detail: fmt.Sprintf("overlaps the nodeRange %s of", there)}
	case otherErr == nil && here.Contains(other):
		return &Clash{Field: "network.nodeRange", Value: here.String(), Detail: fmt.Sprintf("contains the control-plane endpoint %s of", other)}
	case endpointErr == nil && there.Contains(endpoint):
		return &Clash{Field: "controlPlaneEndpoint.host", Value: endpoint.String(), Detail: fmt.Sprintf("lies in the nodeRange %s of", there)}
	case endpointErr == nil && otherErr == nil && endpoint == other:
		return &Clash{Field: "controlPlaneEndpoint.host", Value: endpoint.String(), Detail: "is also that of"}
	}
	return nil
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
