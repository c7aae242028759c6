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
	"cmp"
	"strings"

	"k8s.io/utils/ptr"
	"libvirt.org/go/libvirtxml"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
)

var cpuModes = map[infrav1.CPUMode]string{
	infrav1.CPUModeHostPassthrough: "host-passthrough",
	infrav1.CPUModeHostModel:       "host-model",
	infrav1.CPUModeMaximum:         "maximum",
	infrav1.CPUModeCustom:          "custom",
}

// renderCPU gives the guest all that the processor has, unless the spec says otherwise. Under emulation that is all that
// QEMU can emulate: old default models lack instructions that today's images need.
func renderCPU(spec *infrav1.LibvirtMachineSpec) *libvirtxml.DomainCPU {
	mode := spec.CPU.Mode
	if mode == "" {
		mode = infrav1.CPUModeHostPassthrough
		if spec.DomainType == infrav1.DomainTypeQEMU {
			mode = infrav1.CPUModeMaximum
		}
	}
	cpu := &libvirtxml.DomainCPU{Mode: cpuModes[mode]}
	switch mode {
	case infrav1.CPUModeHostPassthrough:
		cpu.Migratable = "on"
		for _, feature := range spec.CPU.Features {
			if feature.Name == "invtsc" && required(feature) {
				// A constant clock can't be migrated, and with migratable on libvirt takes it away again.
				cpu.Migratable = "off"
			}
		}
	case infrav1.CPUModeCustom:
		// Not another model in its place: that would be no model to rely on.
		cpu.Match = "exact"
		cpu.Model = &libvirtxml.DomainCPUModel{Fallback: "forbid", Value: spec.CPU.Model}
	}
	if t := spec.CPU.Topology; t != (infrav1.CPUTopology{}) {
		cpu.Topology = &libvirtxml.DomainCPUTopology{
			Sockets: int(cmp.Or(t.Sockets, 1)), Cores: int(cmp.Or(t.Cores, 1)), Threads: int(cmp.Or(t.Threads, 1)),
		}
	}
	for _, feature := range spec.CPU.Features {
		cpu.Features = append(cpu.Features, libvirtxml.DomainCPUFeature{
			Name: feature.Name, Policy: strings.ToLower(string(cmp.Or(feature.Policy, infrav1.CPUFeatureRequire))),
		})
	}
	return cpu
}

func required(feature infrav1.CPUFeature) bool {
	policy := cmp.Or(feature.Policy, infrav1.CPUFeatureRequire)
	return policy == infrav1.CPUFeatureRequire || policy == infrav1.CPUFeatureForce
}

// renderCPUTune ties virtual CPUs, and the rest of the hypervisor, to CPUs of the host. Nil when nothing is tied.
func renderCPUTune(pinning infrav1.CPUPinning) *libvirtxml.DomainCPUTune {
	if len(pinning.VCPUs) == 0 && pinning.Emulator == "" {
		return nil
	}
	tune := &libvirtxml.DomainCPUTune{}
	for _, pin := range pinning.VCPUs {
		tune.VCPUPin = append(tune.VCPUPin, libvirtxml.DomainCPUTuneVCPUPin{
			VCPU: uint(ptr.Deref(pin.VCPU, 0)), CPUSet: pin.HostCPUs,
		})
	}
	if pinning.Emulator != "" {
		tune.EmulatorPin = &libvirtxml.DomainCPUTuneEmulatorPin{CPUSet: pinning.Emulator}
		tune.IOThreadPin = []libvirtxml.DomainCPUTuneIOThreadPin{{IOThread: 1, CPUSet: pinning.Emulator}}
	}
	return tune
}
