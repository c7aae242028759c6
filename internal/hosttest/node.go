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
	"encoding/xml"

	"libvirt.org/go/libvirtxml"
)

// pool is a pool of the test driver's host file, where volumes are inside it.
type pool struct {
	libvirtxml.StoragePool
	Volumes []libvirtxml.StorageVolume `xml:"volume"`
}

// pool returns the pool of that name and adds it if need be.
func (n *Node) pool(name string) *pool {
	for _, p := range n.pools {
		if p.Name == name {
			return p
		}
	}
	p := &pool{StoragePool: libvirtxml.StoragePool{
		Type:   "dir",
		Name:   name,
		Target: &libvirtxml.StoragePoolTarget{Path: "/pools/" + name},
	}}
	n.pools = append(n.pools, p)
	return p
}

// render writes the host file.
func (n *Node) render() ([]byte, error) {
	type cpu struct {
		MHz     int    `xml:"mhz"`
		Model   string `xml:"model"`
		Active  int    `xml:"active"`
		Nodes   int    `xml:"nodes"`
		Sockets int    `xml:"sockets"`
		Cores   int    `xml:"cores"`
		Threads int    `xml:"threads"`
	}
	type bridge struct {
		Type  string `xml:"type,attr"`
		Name  string `xml:"name,attr"`
		Start struct {
			Mode string `xml:"mode,attr"`
		} `xml:"start"`
		Bridge struct{} `xml:"bridge"`
	}
	bridges := make([]bridge, len(n.bridges))
	for k, name := range n.bridges {
		bridges[k].Type, bridges[k].Name, bridges[k].Start.Mode = "bridge", name, "onboot"
	}
	return xml.MarshalIndent(struct {
		XMLName xml.Name `xml:"node"`
		CPU     cpu      `xml:"cpu"`
		Memory  uint64   `xml:"memory"`
		Bridges []bridge `xml:"interface"`
		Pools   []*pool  `xml:"pool"`
		Devices []libvirtxml.NodeDevice
	}{
		CPU:     cpu{MHz: 2000, Model: "x86_64", Active: n.cpus, Nodes: 1, Sockets: 1, Cores: n.cpus, Threads: 1},
		Memory:  n.memoryKiB,
		Bridges: bridges,
		Pools:   n.pools,
		Devices: n.devices,
	}, "", "  ")
}
