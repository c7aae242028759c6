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

package hosttest

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"k8s.io/utils/ptr"
	"libvirt.org/go/libvirtxml"
)

// Node is a host of the test driver.
type Node struct {
	memoryKiB uint64
	cpus      int
	pools     []*pool
	bridges   []string
	devices   []libvirtxml.NodeDevice
}

// NodeOption changes a Node.
type NodeOption func(*Node)

// Memory sets the host's memory, in GiB. It is 32 by default.
func Memory(gib uint64) NodeOption { return func(n *Node) { n.memoryKiB = gib << 20 } }

// CPUs sets the number of the host's CPUs. It is 8 by default.
func CPUs(count int) NodeOption { return func(n *Node) { n.cpus = count } }

// Bridge adds a bridge of the host's own.
func Bridge(name string) NodeOption { return func(n *Node) { n.bridges = append(n.bridges, name) } }

// Pool adds a started pool of 100 GiB. There is one called default already.
func Pool(name string) NodeOption {
	return func(n *Node) { n.pool(name) }
}

// Volume adds a volume, for instance an image: its pool, name, format (raw,
// qcow2) and capacity in bytes. The pool is added if need be.
func Volume(pool, name, format string, capacity uint64) NodeOption {
	return func(n *Node) {
		p := n.pool(pool)
		p.Volumes = append(p.Volumes, libvirtxml.StorageVolume{
			Type:     "file",
			Name:     name,
			Capacity: &libvirtxml.StorageVolumeSize{Unit: "bytes", Value: capacity},
			Target: &libvirtxml.StorageVolumeTarget{
				Path:   filepath.Join(p.Target.Path, name),
				Format: &libvirtxml.StorageVolumeTargetFormat{Type: format},
			},
		})
	}
}

// PCIDevice adds a PCI device of bus 1: its slot, vendor and device.
func PCIDevice(slot uint, vendor, device string) NodeOption {
	return func(n *Node) {
		n.devices = append(n.devices, libvirtxml.NodeDevice{
			Name:   fmt.Sprintf("pci_0000_01_%02x_0", slot),
			Parent: "computer",
			Capability: libvirtxml.NodeDeviceCapability{PCI: &libvirtxml.NodeDevicePCICapability{
				Domain: new(uint), Bus: ptr.To[uint](1), Slot: &slot, Function: new(uint),
				Vendor: libvirtxml.NodeDeviceIDName{ID: "0x" + vendor}, Product: libvirtxml.NodeDeviceIDName{ID: "0x" + device},
			}},
		})
	}
}

// TestDriver writes a host file for libvirt's test driver and returns its URI.
// The host has a started pool called default and nothing else, unless asked.
func TestDriver(t testing.TB, opts ...NodeOption) string {
	t.Helper()
	node := &Node{memoryKiB: 32 << 20, cpus: 8}
	node.pool("default")
	for _, opt := range opts {
		opt(node)
	}
	doc, err := node.render()
	if err != nil {
		t.Fatalf("Rendering the test driver's host: %v", err)
	}
	file := filepath.Join(t.TempDir(), "host.xml")
	if err := os.WriteFile(file, doc, 0o600); err != nil {
		t.Fatalf("Writing the test driver's host: %v", err)
	}
	return "test://" + file
}
