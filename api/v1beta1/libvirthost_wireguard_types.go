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

// DefaultWireGuardPort is what an unset spec.wireGuard.port means.
const DefaultWireGuardPort = 51820

// HostWireGuard says how other hosts reach one over WireGuard.
type HostWireGuard struct {
	// address is the IP address at which the other hosts reach this one, for example 203.0.113.20. When unset they don't,
	// as behind NAT: then this host connects to the others by itself, and of every two hosts one needs an address.
	// +optional
	// +kubebuilder:validation:MinLength=2
	// +kubebuilder:validation:MaxLength=45
	Address string `json:"address,omitempty"`

	// port is the UDP port on which the host waits for the others. 51820 when unset. Every firewall on the way, that of
	// the host among them, has to let it in.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	Port int32 `json:"port,omitempty"`
}

// HostWireGuardStatus is what a host's agent told of its end of the links to other sites.
// +kubebuilder:validation:MinProperties=1
type HostWireGuardStatus struct {
	// publicKey is the key by which the other hosts know this one. The private one never leaves the host.
	// +optional
	// +kubebuilder:validation:MinLength=44
	// +kubebuilder:validation:MaxLength=44
	PublicKey string `json:"publicKey,omitempty"`

	// nextPublicKey is the key that the host goes over to once all others know it. Unset when it doesn't: host-agent
	// rotate-key on the host makes one.
	// +optional
	// +kubebuilder:validation:MinLength=44
	// +kubebuilder:validation:MaxLength=44
	NextPublicKey string `json:"nextPublicKey,omitempty"`
}
