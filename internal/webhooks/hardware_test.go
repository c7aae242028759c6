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

package webhooks

import "testing"

func TestHardwareCreate(t *testing.T) {
	for _, tt := range []struct {
		name  string
		edits []edit
		want  []string
	}{
		{name: "all of it", edits: []edit{
			set("spec.firmware", "SecureBoot"), set("spec.tpm", "{type: Emulated}"), set("spec.vcpus", "8"),
			set("spec.cpu", "{mode: Custom, model: EPYC-Rome, features: [{name: pdpe1gb}, {name: svm, policy: Disable}], topology: {cores: 4, threads: 2}}"),
			set("spec.hugePages", "{pageSize: 1Gi}"),
			set("spec.cpuPinning", `{vcpus: [{vcpu: 0, hostCPUs: "2"}, {vcpu: 7, hostCPUs: "3,5-6"}], emulator: 0-1}`),
			set("spec.numa", `{hostNodes: "0", mode: Preferred}`),
			set("spec.pciDevices", `[{address: "0000:65:00.0"}, {vendor: 10de, device: 20b5, count: 2}]`),
			set("spec.watchdog", "{action: PowerOff}"), set("spec.serialConsole", "{log: Disabled}"),
			set("spec.shutdown", "{mode: Graceful, timeoutSeconds: 90}"), set("spec.restartPolicy", "OnFailure"),
		}},
		{name: "a topology of which a part is unset", edits: []edit{set("spec.cpu", "{topology: {sockets: 2}}")}},
		{name: "a processor for emulation", edits: []edit{set("spec.domainType", "QEMU"), set("spec.cpu", "{mode: Maximum}")}},

		{
			name: "firmware in libvirt's words", edits: []edit{set("spec.firmware", "efi")},
			want: []string{`spec.firmware: Unsupported value: "efi": supported values: "BIOS", "UEFI", "SecureBoot"`},
		},
		{
			name: "a topology that doesn't fit", edits: []edit{set("spec.cpu", "{topology: {cores: 2, threads: 2}}")},
			want: []string{"spec: Invalid value: cpu.topology doesn't fit: sockets × cores × threads, each 1 when unset, must be vcpus"},
		},
		{
			name: "the host's processor without KVM", edits: []edit{set("spec.domainType", "QEMU"), set("spec.cpu", "{mode: HostPassthrough}")},
			want: []string{"spec: Invalid value: cpu.mode HostPassthrough needs domainType KVM: choose Maximum with QEMU"},
		},
		{
			name: "a custom processor without a model", edits: []edit{set("spec.cpu", "{mode: Custom}")},
			want: []string{"spec.cpu: Invalid value: model goes with mode Custom and only with it: set both, for example mode Custom and model EPYC-Rome, or neither"},
		},
		{
			name: "a model without its mode", edits: []edit{set("spec.cpu", "{model: EPYC-Rome}")},
			want: []string{"spec.cpu: Invalid value: model goes with mode Custom and only with it: set both, for example mode Custom and model EPYC-Rome, or neither"},
		},
		{
			name: "memory in half a page", edits: []edit{set("spec.memory", "1536Mi"), set("spec.hugePages", "{pageSize: 1Gi}")},
			want: []string{"spec: Invalid value: memory must be a multiple of hugePages.pageSize"},
		},
		{
			name: "pages of ordinary size", edits: []edit{set("spec.hugePages", "{pageSize: 4Ki}")},
			want: []string{`spec.hugePages.pageSize: Invalid value: "4Ki": must be a size of huge pages, 2Mi or 1Gi on x86`},
		},
		{
			name: "a CPU that the machine hasn't", edits: []edit{set("spec.cpuPinning", `{vcpus: [{vcpu: 2, hostCPUs: "2"}]}`)},
			want: []string{"spec: Invalid value: cpuPinning.vcpus names a vcpu that the machine doesn't have: they are numbered from 0 to vcpus - 1"},
		},
		{
			name: "a device by address and kind", edits: []edit{set("spec.pciDevices", `[{address: "0000:65:00.0", vendor: 10de, device: 20b5}]`)},
			want: []string{"spec.pciDevices[0]: Invalid value: set either address, or vendor and device"},
		},
		{
			name: "a device of a vendor", edits: []edit{set("spec.pciDevices", `[{vendor: 10de}]`)},
			want: []string{"spec.pciDevices[0]: Invalid value: set either address, or vendor and device"},
		},
		{
			name: "two of one address", edits: []edit{set("spec.pciDevices", `[{address: "0000:65:00.0", count: 2}]`)},
			want: []string{"spec.pciDevices[0]: Invalid value: count goes with vendor and device only: list each address by itself"},
		},
		{
			name: "time for a pulled plug", edits: []edit{set("spec.shutdown", "{mode: PowerOff, timeoutSeconds: 60}")},
			want: []string{"spec.shutdown: Invalid value: timeoutSeconds goes with mode Graceful only: remove it, or set mode to Graceful"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			check(t, api.Create(t.Context(), machine(t, tt.edits...)), tt.want...)
		})
	}
	check(t, api.Create(t.Context(), machine(t, set("spec.pciAddresses", `["0000:65:00.0"]`))),
		"spec: Invalid value: pciAddresses is written by the provider together with providerID: ask for devices in pciDevices")
	check(t, api.Create(t.Context(), machineTemplate(t, set("spec.template.spec.pciAddresses", `["0000:65:00.0"]`))),
		"spec.template.spec: Invalid value: pciAddresses is written by the provider together with providerID: ask for devices in pciDevices")
	check(t, api.Create(t.Context(), host(t, set("spec.pciDevices", `[{address: "0000:65:00.0"}, {vendor: 10de, device: 20b5}]`))))
	check(t, api.Create(t.Context(), host(t, set("spec.pciDevices", `[{device: 20b5}]`))),
		"spec.pciDevices[0]: Invalid value: set either address, or vendor and device")
}

func TestHardwareUpdate(t *testing.T) {
	const (
		fixed   = "<nil>: Invalid value: spec.firmware, spec.tpm, spec.cpu, spec.hugePages, spec.cpuPinning, spec.numa, spec.pciDevices, spec.watchdog, spec.serialConsole and spec.restartPolicy can't be changed on an existing machine: make a new LibvirtMachineTemplate and name it in the MachineDeployment or the control plane, which rolls out new machines"
		devices = "<nil>: Invalid value: spec.pciAddresses can't be changed or removed once it is set, because those devices are the machine's: delete the Machine to have it made anew"
	)
	uefi, given := set("spec.firmware", "UEFI"), set("spec.pciAddresses", `["0000:65:00.0"]`)
	placed := set("spec.providerID", providerID)
	for _, tt := range []struct {
		name          string
		before, after []edit
		want          []string
	}{
		{name: "nothing", before: []edit{uefi}},
		{name: "firmware", after: []edit{uefi}, want: []string{fixed}},
		{name: "no firmware any more", before: []edit{uefi}, after: []edit{unset("spec.firmware")}, want: []string{fixed}},
		{name: "a TPM", after: []edit{set("spec.tpm", "{type: Emulated}")}, want: []string{fixed}},
		{name: "another processor", before: []edit{set("spec.cpu", "{mode: HostModel}")}, after: []edit{set("spec.cpu.mode", "Maximum")}, want: []string{fixed}},
		{name: "huge pages", after: []edit{set("spec.hugePages", "{pageSize: 2Mi}")}, want: []string{fixed}},
		{name: "pinning", after: []edit{set("spec.cpuPinning", "{emulator: 0-1}")}, want: []string{fixed}},
		{name: "devices", after: []edit{set("spec.pciDevices", `[{vendor: 10de, device: 20b5}]`)}, want: []string{fixed}},
		{name: "a restart policy", after: []edit{set("spec.restartPolicy", "Never")}, want: []string{fixed}},
		{name: "the devices that it got, once", after: []edit{placed, given}},
		{name: "other devices", before: []edit{placed, given}, after: []edit{set("spec.pciAddresses", `["0000:66:00.0"]`)}, want: []string{devices}},
		{name: "no devices any more", before: []edit{placed, given}, after: []edit{unset("spec.pciAddresses")}, want: []string{devices}},
		// How a machine is stopped matters in the end only.
		{name: "how it is stopped", after: []edit{set("spec.shutdown", "{mode: Graceful}")}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			created := machine(t, tt.before...)
			check(t, api.Create(t.Context(), created))
			check(t, api.Update(t.Context(), change(created, tt.after...)), tt.want...)
		})
	}
}
