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

package plugin

import (
	"bytes"
	"io"
	"testing"

	"libvirt.org/go/libvirtxml"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/bootstrap"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/domain"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/host"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/owner"
)

const guestUUID = "4f0c2d6e-8a51-4c0b-9b7e-000000000001"

// upload makes a volume of the bytes of a reader.
func upload(t *testing.T, kvm *host.Host, definition, name string, size int64, content io.Reader) string {
	t.Helper()
	must(t, kvm.CreateVolume(t.Context(), "default", definition))
	must(t, kvm.UploadVolume(t.Context(), "default", name, size, content))
	volume, err := kvm.Volume(t.Context(), "default", name)
	must(t, err)
	return volume.Path
}

// defineGuest defines the domain of a machine as the provider does, with its volumes, but for the network.
func defineGuest(t *testing.T, kvm *host.Host, namespace, uuid, name, backingPath, backingFormat string, spec infrav1.LibvirtMachineSpec, userData string) {
	t.Helper()
	root, err := domain.RenderRootVolume(uuid, spec.RootDisk.Size.Value(), backingPath, backingFormat)
	must(t, err)
	must(t, kvm.CreateVolume(t.Context(), "default", root))
	rootVolume, err := kvm.Volume(t.Context(), "default", domain.RootVolumeName(uuid))
	must(t, err)
	seed, err := bootstrap.RenderSeed(bootstrap.Seed{UserData: []byte(userData), InstanceID: uuid, LocalHostname: name})
	must(t, err)
	seedVolume, err := domain.RenderSeedVolume(uuid, int64(len(seed)))
	must(t, err)
	seedPath := upload(t, kvm, seedVolume, domain.SeedVolumeName(uuid), int64(len(seed)), bytes.NewReader(seed))
	document, err := domain.Render(domain.Definition{
		UUID: uuid, Name: domain.Name(namespace, name), Spec: spec,
		Owner:    owner.Owner{Kind: "LibvirtMachine", Namespace: namespace, Name: name, Cluster: "demo"},
		RootPath: rootVolume.Path, SeedPath: seedPath, BackingPath: backingPath, BackingFormat: backingFormat,
		NetworkName: "none", MAC: "52:54:00:00:00:01",
	})
	must(t, err)
	var dom libvirtxml.Domain
	must(t, dom.Unmarshal(document))
	dom.Devices.Interfaces = nil
	document, err = dom.Marshal()
	must(t, err)
	must(t, kvm.DefineDomain(t.Context(), document))
}
