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

package domain

import (
	"testing"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/xmltest"
)

func TestRenderInterfaces(t *testing.T) {
	for name, d := range map[string]Definition{
		"interfaces.xml": definition(func(d *Definition) {
			d.MTU = 1420
			d.Spec.VCPUs = 8
			d.Spec.Interfaces = []infrav1.Interface{
				{Name: "nodes", Source: infrav1.InterfaceSourceCluster},
				{Name: "storage", Source: infrav1.InterfaceSourceNetwork, Network: infrav1.InterfaceNetwork{Name: "storage"}, MTU: 9000, Queues: 8},
				{Name: "office", Source: infrav1.InterfaceSourceNetwork, Network: infrav1.InterfaceNetwork{Name: "trunk", PortGroup: "office"}, Queues: 1},
				{Name: "lan", Source: infrav1.InterfaceSourceBridge, Bridge: infrav1.InterfaceBridge{Name: "br0"}, MACAddress: "52:54:00:12:34:56"},
				{Name: "dmz", Source: infrav1.InterfaceSourceBridge, Bridge: infrav1.InterfaceBridge{Name: "ovs0", Type: infrav1.BridgeTypeOpenVSwitch, VLAN: 42}},
			}
		}),
		"interfaces-bridge.xml": definition(func(d *Definition) {
			d.NetworkName, d.Bridge = "", "br0"
			d.Spec.Interfaces = []infrav1.Interface{
				{Name: "dmz", Source: infrav1.InterfaceSourceBridge, Bridge: infrav1.InterfaceBridge{Name: "ovs0", Type: infrav1.BridgeTypeOpenVSwitch}},
				{Name: "nodes", Source: infrav1.InterfaceSourceCluster, Queues: 2},
			}
		}),
	} {
		t.Run(name, func(t *testing.T) {
			document, err := Render(d)
			if err != nil {
				t.Fatal(err)
			}
			xmltest.Golden(t, name, document)
			xmltest.Accepts(t, document, "define", "--validate")
		})
	}
}
