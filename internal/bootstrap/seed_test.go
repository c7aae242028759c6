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

package bootstrap

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"github.com/kdomanski/iso9660"
	"sigs.k8s.io/yaml"
)

func TestRenderSeedIsReadByAnISOLibrary(t *testing.T) {
	seed := Seed{
		UserData:      []byte("## template: jinja\n#cloud-config\n" + strings.Repeat("# filler\n", 3000)),
		InstanceID:    "6f1c1e0a-7a53-4d0b-9a0e-0f6a3a1d2c3b",
		LocalHostname: "yes", // a word that YAML reads as a boolean unless it is quoted
		LocalIPv4:     "10.100.0.10",
		NetworkConfig: []byte("version: 2\n"),
	}
	files := readSeed(t, mustRender(t, seed))

	if len(files) != 4 {
		t.Fatalf("got %d files, want 4: %v", len(files), files)
	}
	if !bytes.Equal(files["vendor-data"], []byte(vendorData)) {
		t.Errorf("vendor-data is %q", files["vendor-data"])
	}
	if !bytes.Equal(files["user-data"], seed.UserData) {
		t.Errorf("user-data differs: %d bytes, want %d", len(files["user-data"]), len(seed.UserData))
	}
	if !bytes.Equal(files["network-config"], seed.NetworkConfig) {
		t.Errorf("network-config is %q", files["network-config"])
	}
	var meta map[string]any
	if err := yaml.UnmarshalStrict(files["meta-data"], &meta); err != nil {
		t.Fatal(err)
	}
	if len(meta) != 3 || meta["instance-id"] != seed.InstanceID || meta["local-hostname"] != "yes" || meta["local-ipv4"] != seed.LocalIPv4 {
		t.Errorf("meta-data is %v", meta)
	}
}

func TestVendorData(t *testing.T) {
	var parts []struct {
		Type    string `json:"type"`
		Content string `json:"content"`
	}
	if err := yaml.UnmarshalStrict([]byte(vendorData), &parts); err != nil {
		t.Fatal(err)
	}
	if len(parts) != 2 || parts[0].Type != "text/cloud-config" || parts[1].Type != "text/cloud-boothook" ||
		parts[1].Content != "#!/bin/sh\nmkdir /var/lib/cloud/instance/bootstrap-begun 2>/dev/null || exit 0\nmkdir -p /run/cluster-api && : >/run/cluster-api/bootstrap-begun\n" {
		t.Errorf("got %+v", parts)
	}
	var config struct {
		ManualCacheClean bool `json:"manual_cache_clean"`
	}
	if err := yaml.Unmarshal([]byte(parts[0].Content), &config); err != nil || !config.ManualCacheClean {
		t.Errorf("the configuration is %+v, %v", config, err)
	}
}

func TestRenderSeedWithoutNetworkConfig(t *testing.T) {
	files := readSeed(t, mustRender(t, Seed{UserData: []byte("#cloud-config\n"), InstanceID: "id", LocalHostname: "node"}))
	if _, found := files["network-config"]; found || len(files) != 3 {
		t.Errorf("got files %v, want user-data, meta-data and vendor-data only", files)
	}
}

func TestRenderSeedSizes(t *testing.T) {
	for _, size := range []int{1, 2047, 2048, 2049, maxUserDataBytes} {
		data := bytes.Repeat([]byte{'x'}, size)
		image := mustRender(t, Seed{UserData: data, InstanceID: "id", LocalHostname: "node"})
		if len(image)%sectorSize != 0 {
			t.Errorf("user-data of %d bytes: the image has %d bytes, no multiple of a sector", size, len(image))
		}
		if got := readSeed(t, image)["user-data"]; !bytes.Equal(got, data) {
			t.Errorf("user-data of %d bytes: read back %d bytes", size, len(got))
		}
	}
}

func TestRenderSeedIsDeterministic(t *testing.T) {
	seed := Seed{UserData: []byte("#cloud-config\n"), InstanceID: "id", LocalHostname: "node", NetworkConfig: []byte("version: 2\n")}
	first, second := mustRender(t, seed), mustRender(t, seed)
	if !bytes.Equal(first, second) {
		t.Error("two renderings of one seed differ")
	}
	seed.InstanceID = "other"
	if bytes.Equal(first, mustRender(t, seed)) {
		t.Error("seeds of two instances are equal")
	}
}

func TestRenderSeedRefuses(t *testing.T) {
	valid := Seed{UserData: []byte("#cloud-config\n"), InstanceID: "id", LocalHostname: "node"}
	tests := map[string]struct {
		change func(*Seed)
		want   string
	}{
		"no user data":       {func(s *Seed) { s.UserData = nil }, "spec.bootstrap.dataSecretName"},
		"huge user data":     {func(s *Seed) { s.UserData = make([]byte, maxUserDataBytes+1) }, "16777216"},
		"huge network":       {func(s *Seed) { s.NetworkConfig = make([]byte, maxNetworkConfigBytes+1) }, "network configuration"},
		"no instance ID":     {func(s *Seed) { s.InstanceID = "" }, "instance ID"},
		"no local host name": {func(s *Seed) { s.LocalHostname = "" }, "host name"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			seed := valid
			test.change(&seed)
			if _, err := RenderSeed(seed); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got error %v, want one with %q", err, test.want)
			}
		})
	}
}

func TestParseFormat(t *testing.T) {
	for text, want := range map[string]Format{"": CloudConfig, "cloud-config": CloudConfig, "ignition": Ignition} {
		if got, err := ParseFormat(text); err != nil || got != want {
			t.Errorf("format %q: got %q, %v", text, got, err)
		}
	}
	for _, format := range []string{"Ignition", "Cloud-Config", "script"} {
		if _, err := ParseFormat(format); err == nil || !strings.Contains(err.Error(), "KubeadmConfig spec.format") {
			t.Errorf("format %q: got error %v, want one that names the field", format, err)
		}
	}
}

func mustRender(t *testing.T, seed Seed) []byte {
	t.Helper()
	image, err := RenderSeed(seed)
	if err != nil {
		t.Fatal(err)
	}
	return image
}

// readSeed reads a seed's files by their Rock Ridge names and checks its label.
func readSeed(t *testing.T, image []byte) map[string][]byte {
	t.Helper()
	if label := string(bytes.TrimRight(image[descriptorSector*sectorSize+40:][:32], " ")); label != "cidata" {
		t.Errorf("the label is %q", label)
	}
	iso, err := iso9660.OpenImage(bytes.NewReader(image))
	if err != nil {
		t.Fatal(err)
	}
	root, err := iso.RootDir()
	if err != nil {
		t.Fatal(err)
	}
	children, err := root.GetChildren()
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{}
	for _, child := range children {
		data, err := io.ReadAll(child.Reader())
		if err != nil {
			t.Fatal(err)
		}
		if child.Mode().Perm() != 0o400 {
			t.Errorf("%s has mode %v, want readable by root only", child.Name(), child.Mode())
		}
		files[child.Name()] = data
	}
	return files
}
