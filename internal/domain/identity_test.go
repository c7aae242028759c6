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
	"regexp"
	"strings"
	"testing"
)

const testUUID = "7d3f0a52-62a5-4b3b-9d1f-0c1f5a3c9f10"

func TestName(t *testing.T) {
	long := strings.Repeat("m", 253)
	for _, tt := range []struct {
		namespace, machine string
		want               *regexp.Regexp
	}{
		{"home", "web-1", regexp.MustCompile(`^home\.web-1$`)},
		{"home", "web.1", regexp.MustCompile(`^home\.web\.1$`)},
		{"home", strings.Repeat("m", 123), regexp.MustCompile(`^home\.m{123}$`)},
		{"home", strings.Repeat("m", 124), regexp.MustCompile(`^home\.m{106}-[0-9a-f]{16}$`)},
		{strings.Repeat("n", 63), long, regexp.MustCompile(`^n{63}\.m{47}-[0-9a-f]{16}$`)},
	} {
		got := Name(tt.namespace, tt.machine)
		if !tt.want.MatchString(got) {
			t.Errorf("%s/%s: got %s, want %s", tt.namespace, tt.machine, got, tt.want)
		}
		if len(got) > maxNameLength {
			t.Errorf("%s has %d characters", got, len(got))
		}
		if again := Name(tt.namespace, tt.machine); again != got {
			t.Errorf("got %s and then %s", got, again)
		}
	}
	if a, b := Name("home", long+"a"), Name("home", long+"b"); a == b {
		t.Errorf("machines that differ in the end share the name %s", a)
	}
}

func TestProviderID(t *testing.T) {
	id := ProviderID(testUUID)
	if want := "libvirt:///" + testUUID; id != want {
		t.Errorf("got %s, want %s", id, want)
	}
	for providerID, want := range map[string]string{
		id:                         testUUID,
		"":                         "",
		testUUID:                   "",
		"libvirt://" + testUUID:    "",
		"aws:///" + testUUID:       "",
		"x libvirt:///" + testUUID: "",
	} {
		if got := UUID(providerID); got != want {
			t.Errorf("%q: got %q, want %q", providerID, got, want)
		}
	}
}

func TestVolumeNames(t *testing.T) {
	if got, want := RootVolumeName(testUUID), "capl-"+testUUID+"-root.qcow2"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got, want := SeedVolumeName(testUUID), "capl-"+testUUID+"-seed.iso"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestVolumeUUID(t *testing.T) {
	const uuid = "5e0f7f4e-6f8c-4b4e-9d0c-000000000001"
	for name, want := range map[string]string{
		RootVolumeName(uuid):                     uuid,
		SeedVolumeName(uuid):                     uuid,
		DataVolumeName(uuid, "brick-1"):          uuid,
		DataVolumeName(uuid, ""):                 "",
		DataVolumeName(uuid, "-brick"):           "",
		"capl-" + uuid + "-root.qcow2.bak":       "",
		"my-capl-" + uuid + "-root.qcow2":        "",
		"capl-" + uuid + "-root.iso":             "",
		"capl-" + uuid[1:] + "-root.qcow2":       "",
		"capl-5E0F7F4E" + uuid[8:] + "-seed.iso": "",
		"image-0123456789abcdef":                 "",
	} {
		if got, ok := VolumeUUID(name); got != want || ok != (want != "") {
			t.Errorf("%s: got %q, %v", name, got, ok)
		}
	}
}
