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
	"strings"
	"testing"
)

func TestSeedOf(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*Definition)
		want   Seed
	}{
		"a drive":  {func(*Definition) {}, Seed{Drive: &Drive{"sda", "scsi"}}},
		"firmware": {func(d *Definition) { d.Ignition = true }, Seed{Firmware: true}},
		"foreign":  {func(d *Definition) { d.SeedPath = "/srv/rescue.iso" }, Seed{}},
	} {
		t.Run(name, func(t *testing.T) {
			document, err := Render(definition(tt.change))
			if err != nil {
				t.Fatal(err)
			}
			got, err := SeedOf(document, testUUID)
			if err != nil || got.Firmware != tt.want.Firmware || (got.Drive == nil) != (tt.want.Drive == nil) ||
				(got.Drive != nil && *got.Drive != *tt.want.Drive) {
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
	if _, err := SeedOf("<domain", testUUID); err == nil {
		t.Error("half a document was read")
	}
}

func TestWithoutFirmwareSeed(t *testing.T) {
	const (
		before = "<domain type='kvm'>\n  <name>a &amp; b</name>\n  "
		fwcfg  = "<sysinfo type='fwcfg'><entry name='opt/com.coreos/config' file='/x'/></sysinfo>"
		after  = "\n  <sysinfo type='smbios'><system><entry name='serial'>1</entry></system></sysinfo>\n" +
			"  <metadata><x:sysinfo xmlns:x='urn:x' type='fwcfg'/></metadata>\n  <unheard-of/>\n</domain>\n"
	)
	for _, document := range []string{before + fwcfg + after, before + after} {
		got, err := WithoutFirmwareSeed(document)
		if err != nil || got != before+after {
			t.Errorf("got %v\n%s", err, got)
		}
	}
	if _, err := WithoutFirmwareSeed(before + fwcfg); err == nil {
		t.Error("half a document was edited")
	}
	document, err := Render(definition(func(d *Definition) { d.Ignition = true }))
	if err != nil {
		t.Fatal(err)
	}
	got, err := WithoutFirmwareSeed(document)
	if err != nil || strings.Contains(got, "sysinfo") || strings.Contains(got, SeedVolumeName(testUUID)) {
		t.Errorf("got %v\n%s", err, got)
	}
}
