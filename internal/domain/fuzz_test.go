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
	"encoding/json"
	"fmt"
	"math"
	"path/filepath"
	"testing"

	"libvirt.org/go/libvirtxml"

	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/crdtest"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/owner"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/xmltest"
)

// hostileTexts try to be more than text.
var hostileTexts = []string{
	"web-1", "", "a b", `"/><evil a="`, "]]></name><evil/>", "<!-- ", "-->", "&lt;", "&amp;amp;", "<?evil?>", "'\"><x/>", "\t\n\r", "\x00\x01",
	"\xff\xfe", "\ufffe", "../../etc", "${x}", "%s%d", "日本",
}

// FuzzRender renders domains of any spec that is admitted, with any names and paths beside it. The document has the same
// elements whatever these texts are, says what was put in, and is what libvirt's own types read and write.
func FuzzRender(f *testing.F) {
	schema := crdtest.Load(f, filepath.Join("..", "..", "config", "crd", "bases", "infrastructure.cluster.x-k8s.io_libvirtmachines.yaml"))
	seed := make([]byte, 300)
	for n, text := range hostileTexts {
		for k := range seed {
			seed[k] = byte(k * (n + 1) * 37)
		}
		f.Add(text, text, text, text, int32(n), n%2 == 0, seed)
	}
	f.Fuzz(func(t *testing.T, name, path, network, backing string, mtu int32, bridged bool, data []byte) {
		spec, ok := schema.Spec(t, data)
		if !ok {
			return // these bytes make no spec
		}
		d := Definition{
			UUID: testUUID, Name: "n" + name, Owner: owner.Owner{Kind: "LibvirtMachine", Namespace: network, Name: name, Cluster: path},
			RootPath: "/" + path, SeedPath: "/seeds/" + path, BackingPath: "/" + backing, BackingFormat: "qcow2",
			NetworkName: "n" + network, MAC: "52:6e:64:3c:53:fc", MTU: max(mtu, 0),
		}
		if bridged {
			d.NetworkName, d.Bridge = "", "br"+network
		}
		document := rendered(t, d, spec)
		expectDomain(t, d, spec, document)

		harmless := d
		for _, text := range []*string{&harmless.Name, &harmless.RootPath, &harmless.SeedPath, &harmless.BackingPath, &harmless.NetworkName, &harmless.Bridge} {
			*text = crdtest.HarmlessText(*text)
		}
		harmless.Owner = owner.Owner{Kind: "LibvirtMachine", Namespace: "n", Name: "n", Cluster: "n"}
		clean := crdtest.Harmless(spec).(map[string]any)
		if got, want := xmltest.Skeleton(t, document), xmltest.Skeleton(t, rendered(t, harmless, clean)); got != want {
			t.Errorf("%s\nhas other elements than with harmless texts\n%s", got, want)
		}
	})
}

// rendered is the domain of a spec.
func rendered(t *testing.T, d Definition, spec map[string]any) string {
	t.Helper()
	encoded, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(encoded, &d.Spec); err != nil {
		t.Fatalf("An admitted spec is none: %v\n%s", err, crdtest.String(spec))
	}
	document, err := Render(d)
	if err != nil {
		t.Fatalf("Rendering what is admitted: %v\n%s", err, crdtest.String(spec))
	}
	return document
}

// expectDomain checks that libvirt's types read from a document what it was made of.
func expectDomain(t *testing.T, d Definition, spec map[string]any, document string) {
	t.Helper()
	var dom libvirtxml.Domain
	if err := dom.Unmarshal(document); err != nil {
		t.Fatalf("It can't be read: %v\n%s", err, document)
	}
	again, err := dom.Marshal()
	if err != nil || again != document {
		t.Errorf("Read and written again, it is\n%s\n(%v), and was\n%s", again, err, document)
	}
	expect := func(what, got, want string) {
		t.Helper()
		if xmltest.Representable(want) && got != want {
			t.Errorf("The %s is %q, want %q\n%s", what, got, want, document)
		}
	}
	expect("name", dom.Name, d.Name)
	expect("UUID", dom.UUID, d.UUID)
	expect("number of processors", fmt.Sprint(dom.VCPU.Value), fmt.Sprint(spec["vcpus"]))
	sources := map[string]int{}
	for _, disk := range dom.Devices.Disks {
		// The end of a chain is an empty source.
		for source := disk.Source; source != nil && source.File != nil; {
			sources[source.File.File]++
			if disk.BackingStore == nil || disk.BackingStore.Source == nil {
				break
			}
			source, disk.BackingStore = disk.BackingStore.Source, disk.BackingStore.BackingStore
		}
	}
	for _, path := range []string{d.RootPath, d.SeedPath, d.BackingPath} {
		if xmltest.Representable(path) && sources[path] == 0 {
			t.Errorf("No disk is %q\n%s", path, document)
		}
	}
	first := dom.Devices.Interfaces[0]
	expect("MAC address", first.MAC.Address, d.MAC)
	if d.Bridge != "" {
		expect("bridge", first.Source.Bridge.Bridge, d.Bridge)
	} else {
		expect("network", first.Source.Network.Network, d.NetworkName)
	}
	by, ok := owner.Of(document)
	if !ok {
		t.Errorf("It has no owner\n%s", document)
	}
	expect("owner's namespace", by.Namespace, d.Owner.Namespace)
	expect("owner's name", by.Name, d.Owner.Name)
	expect("owner's cluster", by.Cluster, d.Owner.Cluster)
}

// FuzzVolumes renders the volumes of machines over any image.
func FuzzVolumes(f *testing.F) {
	for n, text := range hostileTexts {
		f.Add("/"+text, text, int64(n)<<30)
	}
	f.Add("/image", "raw", int64(math.MaxInt64))
	f.Fuzz(func(t *testing.T, backingPath, backingFormat string, capacity int64) {
		capacity = max(capacity, 0)
		root, err := RenderRootVolume(testUUID, capacity, backingPath, backingFormat)
		if err != nil {
			t.Fatal(err)
		}
		vol := readVolume(t, root)
		if vol.Name != RootVolumeName(testUUID) || vol.Capacity.Value != uint64(capacity) || vol.Capacity.Unit != "bytes" || vol.Target.Format.Type != "qcow2" || vol.Target.Permissions.Mode != "0600" {
			t.Errorf("got %s", root)
		}
		if xmltest.Representable(backingPath) && vol.BackingStore.Path != backingPath {
			t.Errorf("the backing file is %q, want %q\n%s", vol.BackingStore.Path, backingPath, root)
		}
		if xmltest.Representable(backingFormat) && vol.BackingStore.Format.Type != backingFormat {
			t.Errorf("the backing format is %q, want %q\n%s", vol.BackingStore.Format.Type, backingFormat, root)
		}
		harmless, err := RenderRootVolume(testUUID, capacity, crdtest.HarmlessText(backingPath), crdtest.HarmlessText(backingFormat))
		if err != nil {
			t.Fatal(err)
		}
		if got, want := xmltest.Skeleton(t, root), xmltest.Skeleton(t, harmless); got != want {
			t.Errorf("%s\nhas other elements than with harmless texts\n%s", got, want)
		}
		seed, err := RenderSeedVolume(testUUID, capacity)
		if err != nil {
			t.Fatal(err)
		}
		if vol := readVolume(t, seed); vol.Name != SeedVolumeName(testUUID) || vol.Capacity.Value != uint64(capacity) || vol.BackingStore != nil || vol.Target.Permissions.Mode != "0600" {
			t.Errorf("got %s", seed)
		}
	})
}

func readVolume(t *testing.T, document string) libvirtxml.StorageVolume {
	t.Helper()
	var vol libvirtxml.StorageVolume
	if err := vol.Unmarshal(document); err != nil {
		t.Fatalf("It can't be read: %v\n%s", err, document)
	}
	return vol
}
