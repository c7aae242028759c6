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
	"libvirt.org/go/libvirtxml"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
)

// renderOS says what the guest boots by. libvirt chooses among the firmware images of the host by what they can do, which
// is said in full: some hosts list those with Secure Boot first.
func renderOS(firmware infrav1.Firmware) *libvirtxml.DomainOS {
	os := &libvirtxml.DomainOS{
		Type:        &libvirtxml.DomainOSType{Type: "hvm", Machine: "q35"},
		BootDevices: []libvirtxml.DomainBootDevice{{Dev: "hd"}},
	}
	secure := ""
	switch firmware {
	case infrav1.FirmwareUEFI:
		secure = "no"
	case infrav1.FirmwareSecureBoot:
		secure = "yes"
	default:
		return os
	}
	os.Firmware = "efi"
	os.FirmwareInfo = &libvirtxml.DomainOSFirmwareInfo{Features: []libvirtxml.DomainOSFirmwareFeature{
		{Name: "enrolled-keys", Enabled: secure}, {Name: "secure-boot", Enabled: secure},
	}}
	return os
}

// renderFeatures are those of the machine as a whole. Secure Boot is worth something only if the guest can't write to the
// firmware's variables past the firmware, which is what system management mode is for.
func renderFeatures(firmware infrav1.Firmware) *libvirtxml.DomainFeatureList {
	features := &libvirtxml.DomainFeatureList{ACPI: &libvirtxml.DomainFeature{}, APIC: &libvirtxml.DomainFeatureAPIC{}}
	if firmware == infrav1.FirmwareSecureBoot {
		features.SMM = &libvirtxml.DomainFeatureSMM{State: "on"}
	}
	return features
}

// renderTPMs is the TPM, if there is one.
func renderTPMs(tpm infrav1.TPM) []libvirtxml.DomainTPM {
	if tpm.Type != infrav1.TPMTypeEmulated {
		return nil
	}
	return []libvirtxml.DomainTPM{{
		Model:   "tpm-crb",
		Backend: &libvirtxml.DomainTPMBackend{Emulator: &libvirtxml.DomainTPMBackendEmulator{Version: "2.0"}},
	}}
}
