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

package v1beta1

// Forwarding says who leads packets between a managed node network and the world.
// +kubebuilder:validation:Enum=NAT;HostAgent
type Forwarding string

const (
	// ForwardingNAT has libvirt do it: nodes reach the outside behind the host's address, and nobody outside reaches them.
	ForwardingNAT Forwarding = "NAT"

	// ForwardingHostAgent has the agent on each host do it: nodes reach the outside behind the host's address, and those
	// outside reach what ingress and apiServerAccess say, and nothing else.
	ForwardingHostAgent Forwarding = "HostAgent"
)

// Ingress lets clients outside reach a LoadBalancer Service of the cluster, as a rule that of an ingress controller. The
// Service sees the clients' own addresses.
type Ingress struct {
	// externalAddress is the IPv4 address that clients use, for example 203.0.113.10. At least one host of the cluster has
	// to have it; the agent of each host that has it lets connections in.
	// +required
	// +kubebuilder:validation:MinLength=7
	// +kubebuilder:validation:MaxLength=15
	ExternalAddress string `json:"externalAddress,omitempty"`

	// address is the address of the LoadBalancer Service, in spec.network.ingressCIDR. When unset it is the second address
	// of that range, for example 10.100.0.130 of 10.100.0.128/25; the first is the host's own.
	// +optional
	// +kubebuilder:validation:MinLength=7
	// +kubebuilder:validation:MaxLength=15
	Address string `json:"address,omitempty"`

	// ports are those of externalAddress that clients may connect to.
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	Ports []IngressPort `json:"ports,omitempty"`
}

// IngressPort is a port that clients outside may connect to.
type IngressPort struct {
	// port of the external address, for example 443.
	// +required
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	Port int32 `json:"port,omitempty"`

	// targetPort is the port of the Service. The same as port when unset.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	TargetPort int32 `json:"targetPort,omitempty"`

	// protocol is TCP or UDP. TCP when unset.
	// +optional
	Protocol IngressProtocol `json:"protocol,omitempty"`
}

// IngressProtocol is what is spoken at a port.
// +kubebuilder:validation:Enum=TCP;UDP
type IngressProtocol string

const (
	// IngressTCP is for connections.
	IngressTCP IngressProtocol = "TCP"

	// IngressUDP is for datagrams.
	IngressUDP IngressProtocol = "UDP"
)

// APIServerAccess lets clients in listed networks reach the API server of the cluster. Others meet a closed port. A
// kubeconfig for such clients is in the Secret <cluster>-kubeconfig-external.
type APIServerAccess struct {
	// externalAddress is the IPv4 address that clients use, for example 203.0.113.11. At least one host of the cluster has
	// to have it. The certificate of the API server has to name it: list it in certSANs of the control plane.
	// +required
	// +kubebuilder:validation:MinLength=7
	// +kubebuilder:validation:MaxLength=15
	ExternalAddress string `json:"externalAddress,omitempty"`

	// port of externalAddress. 6443 when unset.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	Port int32 `json:"port,omitempty"`

	// allowedCIDRs are the IPv4 ranges that clients have to be in, for example 198.51.100.0/24.
	// +required
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=43
	AllowedCIDRs []string `json:"allowedCIDRs,omitempty"`
}

// SiteLinkType says by what the node networks of several sites are linked.
// +kubebuilder:validation:Enum=WireGuard
type SiteLinkType string

const (
	// SiteLinkWireGuard links every two hosts by WireGuard.
	SiteLinkWireGuard SiteLinkType = "WireGuard"
)

// SiteLink leads packets between the node networks of the hosts, as they are and encrypted on their way.
type SiteLink struct {
	// type is WireGuard: the agents of the hosts make keys, which never leave their host, and link every two hosts. Each
	// LibvirtHost says in spec.wireGuard how the others reach it.
	// +required
	Type SiteLinkType `json:"type,omitempty"`

	// pathMTU is the length in bytes of the longest packet that gets from any of the hosts to any other, 1500 when unset.
	// The link carries packets that are 80 bytes shorter. It can be changed later as far as spec.network.mtu stays the same
	// and fits.
	// +optional
	// +kubebuilder:validation:Minimum=1360
	// +kubebuilder:validation:Maximum=9216
	PathMTU int32 `json:"pathMTU,omitempty"`
}
