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
	"fmt"
	"slices"

	"k8s.io/utils/ptr"
	"libvirt.org/go/libvirtxml"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/owner"
)

// Definition is what the XML of a machine's domain is made from: its spec and what was resolved for it.
type Definition struct {
	UUID  string
	Name  string
	Owner owner.Owner
	Spec  infrav1.LibvirtMachineSpec
	// RootPath and SeedPath are the paths of the volumes on the host.
	RootPath, SeedPath string
	// Ignition tells that the guest reads its bootstrap data by Ignition, and not by cloud-init.
	Ignition bool
	// Disks are the data disks.
	Disks []Disk
	// BackingPath and BackingFormat are those of the image under the root volume.
	BackingPath, BackingFormat string
	// NetworkName is the libvirt network of the cluster, or Bridge the host's bridge in its place. MAC is the address of
	// the interface in it. The other interfaces follow from Spec.
	NetworkName, Bridge, MAC string
	// MTU of the network in bytes.
	MTU int32
}

// Render is the XML of a machine's domain.
func Render(d Definition) (string, error) {
	hostdevs, err := renderHostdevs(d.Spec.PCIAddresses)
	if err != nil {
		return "", fmt.Errorf("rendering domain %s: spec.pciAddresses: %w", d.Name, err)
	}
	dom := libvirtxml.Domain{
		Type:     libvirtType(d.Spec.DomainType),
		UUID:     d.UUID,
		Name:     d.Name,
		Metadata: &libvirtxml.DomainMetadata{XML: d.Owner.Render()},
		Memory:   &libvirtxml.DomainMemory{Value: uint(d.Spec.Memory.Value() >> 10), Unit: "KiB"},
		VCPU:     &libvirtxml.DomainVCPU{Placement: "static", Value: uint(d.Spec.VCPUs)},
		CPU:      renderCPU(&d.Spec),
		// An iothread of its own keeps the guest's processors out of disk I/O, which etcd waits for.
		IOThreads:     attach(d.Disks).ioThreads,
		OS:            renderOS(d.Spec.Firmware),
		Features:      renderFeatures(d.Spec.Firmware),
		CPUTune:       renderCPUTune(d.Spec.CPUPinning),
		NUMATune:      renderNUMATune(d.Spec.NUMA),
		MemoryBacking: renderMemoryBacking(d.Spec.HugePages),
		Clock:         &libvirtxml.DomainClock{Offset: "utc"},
		OnPoweroff:    "destroy",
		OnReboot:      "restart",
		OnCrash:       "destroy",
		Devices:       renderDevices(d),
	}
	dom.Devices.Hostdevs = hostdevs
	if d.Ignition {
		dom.SysInfo = renderFirmwareSeed(d)
	}
	document, err := dom.Marshal()
	if err != nil {
		return "", fmt.Errorf("rendering domain %s: %w", d.Name, err)
	}
	return document, nil
}

// libvirtType is the domain type in libvirt's words.
func libvirtType(wanted infrav1.DomainType) string {
	if wanted == infrav1.DomainTypeQEMU {
		return "qemu"
	}
	return "kvm"
}

// Types are the domain types that a host serves, given those that it names in libvirt's words. libvirt's test driver
// takes any.
func Types(named []string) []infrav1.DomainType {
	var types []infrav1.DomainType
	if slices.Contains(named, "kvm") || slices.Contains(named, "test") {
		types = append(types, infrav1.DomainTypeKVM)
	}
	if slices.Contains(named, "qemu") || slices.Contains(named, "test") {
		types = append(types, infrav1.DomainTypeQEMU)
	}
	return types
}

func renderDevices(d Definition) *libvirtxml.DomainDeviceList {
	data := attach(d.Disks)
	disks := []libvirtxml.DomainDisk{renderRootDisk(d)}
	if !d.Ignition {
		disks = append(disks, renderSeed(d))
	}
	return &libvirtxml.DomainDeviceList{
		Disks: append(disks, data.disks...),
		// Debian's cloud kernel has no driver for q35's own SATA, so the seed's CD-ROM hangs on virtio-scsi.
		Controllers: append([]libvirtxml.DomainController{
			{Type: "scsi", Index: ptr.To[uint](seedController), Model: "virtio-scsi"},
		}, data.controllers...),
		Interfaces: renderInterfaces(d),
		RNGs: []libvirtxml.DomainRNG{{
			Model:   "virtio",
			Backend: &libvirtxml.DomainRNGBackend{Random: &libvirtxml.DomainRNGBackendRandom{Device: "/dev/urandom"}},
		}},
		Channels: []libvirtxml.DomainChannel{{
			Source: &libvirtxml.DomainChardevSource{UNIX: &libvirtxml.DomainChardevSourceUNIX{Mode: "bind"}},
			Target: &libvirtxml.DomainChannelTarget{
				VirtIO: &libvirtxml.DomainChannelTargetVirtIO{Name: "org.qemu.guest_agent.0"},
			},
		}},
		Serials: []libvirtxml.DomainSerial{renderSerial(d)},
		Consoles: []libvirtxml.DomainConsole{{
			Source: &libvirtxml.DomainChardevSource{Pty: &libvirtxml.DomainChardevSourcePty{}},
			Target: &libvirtxml.DomainConsoleTarget{Type: "serial", Port: ptr.To[uint](0)},
		}},
		TPMs:      renderTPMs(d.Spec.TPM),
		Videos:    renderVideos(),
		Watchdogs: []libvirtxml.DomainWatchdog{renderWatchdog(d.Spec.Watchdog)},
		// The kubelet takes the memory it sees at start for granted.
		MemBalloon: &libvirtxml.DomainMemBalloon{Model: "none"},
	}
}

func renderRootDisk(d Definition) libvirtxml.DomainDisk {
	driver := diskDriver(d.Spec.RootDisk.Cache, d.Spec.RootDisk.Discard)
	driver.IOThread = ptr.To[uint](sharedIOThread)
	return libvirtxml.DomainDisk{
		Device: "disk",
		Driver: driver,
		// By path and not by volume, which AppArmor denies on Debian and Ubuntu. The chain is written out in full, so
		// that nothing in the image can lengthen it.
		Source: fileSource(d.RootPath),
		BackingStore: &libvirtxml.DomainDiskBackingStore{
			Format:       &libvirtxml.DomainDiskFormat{Type: d.BackingFormat},
			Source:       fileSource(d.BackingPath),
			BackingStore: &libvirtxml.DomainDiskBackingStore{},
		},
		Target: &libvirtxml.DomainDiskTarget{Dev: "vda", Bus: "virtio"},
		Serial: "root",
	}
}

func renderSeed(d Definition) libvirtxml.DomainDisk {
	return libvirtxml.DomainDisk{
		Device:       "cdrom",
		Driver:       &libvirtxml.DomainDiskDriver{Name: "qemu", Type: "raw"},
		Source:       fileSource(d.SeedPath),
		BackingStore: &libvirtxml.DomainDiskBackingStore{},
		Target:       &libvirtxml.DomainDiskTarget{Dev: "sda", Bus: "scsi"},
		ReadOnly:     &libvirtxml.DomainDiskReadOnly{},
	}
}

func fileSource(path string) *libvirtxml.DomainDiskSource {
	return &libvirtxml.DomainDiskSource{File: &libvirtxml.DomainDiskSourceFile{File: path}}
}
