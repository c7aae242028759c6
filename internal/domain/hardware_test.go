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
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/utils/ptr"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/xmltest"
)

func TestRenderHardware(t *testing.T) {
	for name, edit := range map[string]func(*infrav1.LibvirtMachineSpec){
		"firmware-uefi.xml": func(s *infrav1.LibvirtMachineSpec) { s.Firmware = infrav1.FirmwareUEFI },
		"firmware-secure-boot-tpm.xml": func(s *infrav1.LibvirtMachineSpec) {
			s.Firmware = infrav1.FirmwareSecureBoot
			s.TPM.Type = infrav1.TPMTypeEmulated
		},
		"cpu-custom.xml": func(s *infrav1.LibvirtMachineSpec) {
			s.VCPUs = 8
			s.CPU = infrav1.CPU{
				Mode: infrav1.CPUModeCustom, Model: "EPYC-Rome",
				Features: []infrav1.CPUFeature{
					{Name: "vmx", Policy: infrav1.CPUFeatureDisable}, {Name: "pdpe1gb"}, {Name: "umip", Policy: infrav1.CPUFeatureOptional},
				},
				Topology: infrav1.CPUTopology{Cores: 4, Threads: 2},
			}
		},
		"cpu-invtsc.xml":     func(s *infrav1.LibvirtMachineSpec) { s.CPU.Features = []infrav1.CPUFeature{{Name: "invtsc"}} },
		"cpu-host-model.xml": func(s *infrav1.LibvirtMachineSpec) { s.CPU.Mode = infrav1.CPUModeHostModel },
		"memory-and-pinning.xml": func(s *infrav1.LibvirtMachineSpec) {
			s.VCPUs, s.Memory = 2, resource.MustParse("4Gi")
			s.HugePages.PageSize = "1Gi"
			s.CPUPinning = infrav1.CPUPinning{
				VCPUs:    []infrav1.VCPUPin{{VCPU: ptr.To[int32](0), HostCPUs: "2"}, {VCPU: ptr.To[int32](1), HostCPUs: "3,5-6"}},
				Emulator: "0-1",
			}
			s.NUMA = infrav1.NUMA{HostNodes: "0"}
		},
		"pci-devices.xml": func(s *infrav1.LibvirtMachineSpec) { s.PCIAddresses = []string{"0000:65:00.0", "0001:0a:1f.7"} },
		"console-and-watchdog.xml": func(s *infrav1.LibvirtMachineSpec) {
			s.SerialConsole.Log = infrav1.ConsoleLogOverwrite
			s.Watchdog.Action = infrav1.WatchdogInjectNMI
		},
	} {
		t.Run(name, func(t *testing.T) {
			document, err := Render(definition(func(d *Definition) { edit(&d.Spec) }))
			if err != nil {
				t.Fatal(err)
			}
			xmltest.Golden(t, name, document)
			xmltest.Accepts(t, document, "define", "--validate")
		})
	}
}

// What says nothing but what an unset field means makes the same domain, byte by byte.
func TestRenderDefaultsInWords(t *testing.T) {
	plain, err := Render(definition())
	if err != nil {
		t.Fatal(err)
	}
	spelled, err := Render(definition(func(d *Definition) {
		d.Spec.Firmware, d.Spec.CPU.Mode = infrav1.FirmwareBIOS, infrav1.CPUModeHostPassthrough
		d.Spec.SerialConsole.Log, d.Spec.Watchdog.Action = infrav1.ConsoleLogAppend, infrav1.WatchdogReset
	}))
	if err != nil {
		t.Fatal(err)
	}
	if plain != spelled {
		t.Errorf("got\n%s\nwant\n%s", spelled, plain)
	}
	silent, err := Render(definition(func(d *Definition) { d.Spec.SerialConsole.Log = infrav1.ConsoleLogDisabled }))
	if err != nil || strings.Contains(silent, "console.log") {
		t.Errorf("the console has a log: %v\n%s", err, silent)
	}
}

func TestPCIAddresses(t *testing.T) {
	want := []string{"0000:65:00.0", "0001:0a:1f.7"}
	document, err := Render(definition(func(d *Definition) { d.Spec.PCIAddresses = want }))
	if err != nil {
		t.Fatal(err)
	}
	document = strings.Replace(document, "</devices>",
		`<interface type='hostdev'><source><address type='pci' domain='0x0000' bus='0x03' slot='0x10' function='0x1'/></source></interface></devices>`, 1)
	if got, err := PCIAddresses(document); err != nil || !slices.Equal(got, append(want, "0000:03:10.1")) {
		t.Errorf("got %v, %v", got, err)
	}
	for _, address := range []string{"", "65:00.0", "0000:65:00.0x", "gggg:65:00.0", "0000:65:20.0 "} {
		if _, err := Render(definition(func(d *Definition) { d.Spec.PCIAddresses = []string{address} })); err == nil {
			t.Errorf("%q was taken for an address", address)
		}
	}
	if _, err := PCIAddresses("<domain"); err == nil {
		t.Error("half a document was taken for a domain")
	}
}
