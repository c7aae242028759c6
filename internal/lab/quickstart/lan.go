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

package quickstart

import (
	"context"
	"fmt"
	"net/netip"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/lab/privatehost"
)

const (
	// lan is the bridge that ties several private hosts together.
	lan = "lan0"
	// site is the value of the label by which the flavor bridge selects its hosts.
	site, siteLabel = "lab", "infrastructure.cluster.x-k8s.io/site"
	// hostLabel has the host's name, by which other flavors select.
	hostLabel = "infrastructure.cluster.x-k8s.io/host"
)

// lanGateway is the first host in the LAN: from there the management plane reaches the machines.
var lanGateway = netip.MustParsePrefix("10.100.0.1/25")

// several tells whether the cluster is to run on several private hosts.
func (q *Quickstart) several() bool { return len(q.hosts) > 1 }

// onLAN tells whether several private hosts share a LAN.
func (q *Quickstart) onLAN() bool { return q.several() && q.options.Connect == nil }

// joinHosts connects several private hosts: it plugs them into one LAN, unless the options know better.
func (q *Quickstart) joinHosts(ctx context.Context) error {
	if !q.several() {
		return nil
	}
	if !q.onLAN() {
		return q.options.Connect(ctx, q.hosts)
	}
	for _, other := range q.hosts[1:] {
		if err := privatehost.Join(ctx, q.host, other, lan); err != nil {
			return err
		}
	}
	return q.host.SetAddress(ctx, lan, lanGateway)
}

// declareHosts creates a LibvirtHost for each of several private hosts. The default template brings one of its own.
func (q *Quickstart) declareHosts(ctx context.Context) error {
	if !q.several() {
		return nil
	}
	for _, host := range q.hosts {
		labels := map[string]string{siteLabel: site, hostLabel: host.Name()}
		declared := &infrav1.LibvirtHost{
			ObjectMeta: metav1.ObjectMeta{Namespace: q.options.Namespace, Name: host.Name(), Labels: labels},
			Spec:       infrav1.LibvirtHostSpec{URI: host.URI()},
		}
		if q.options.Declare != nil {
			q.options.Declare(declared)
		}
		if err := q.client.Create(ctx, declared); err != nil && !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("creating LibvirtHost %s: %w", host.Name(), err)
		}
	}
	return nil
}

// lanVariables are those of the flavor bridge.
func lanVariables() map[string]string {
	return map[string]string{
		"LIBVIRT_SITE":        site,
		"LIBVIRT_BRIDGE":      lan,
		"LIBVIRT_NODE_CIDR":   lanGateway.Masked().String(),
		"LIBVIRT_NODE_RANGE":  "10.100.0.10-10.100.0.126",
		"LIBVIRT_GATEWAY":     lanGateway.Addr().String(),
		"LIBVIRT_NAMESERVERS": lanGateway.Addr().String(),
	}
}
