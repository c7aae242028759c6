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

import (
	"slices"
	"testing"

	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
)

const providerID = "libvirt:///7d3f0a52-62a5-4b3b-9d1f-0c1f5a3c9f10"

// LibvirtMachines have no webhook: the schema says it all.
func TestMachineCreate(t *testing.T) {
	const (
		either   = "spec.image: Invalid value: set either url (with checksum) or volume"
		digest   = "checksum is required with url: set it to sha256: and the digest that sha256sum prints for the image"
		small    = "memory must be at least 512Mi, for example 4Gi"
		smallest = "size must be at least 1Gi, for example 20Gi"
	)
	for _, tt := range []struct {
		name  string
		edits []edit
		want  []string
	}{
		{name: "as documented"},
		{name: "a volume that is on the host", edits: []edit{set("spec.image", "{volume: node.qcow2}")}},
		{name: "memory in bytes, as a number", edits: []edit{set("spec.memory", "4294967296")}},
		{name: "memory in words of all kinds", edits: []edit{set("spec.memory", "1.5Gi")}},
		{name: "the least of everything", edits: []edit{set("spec.vcpus", "1"), set("spec.memory", "512Mi"), set("spec.rootDisk.size", "1Gi")}},
		{name: "a pin to a host", edits: []edit{set("spec.hostName", "kvm1")}},
		{name: "a machine that was moved here", edits: []edit{set("spec.hostName", "kvm1"), set("spec.providerID", providerID)}},
		{name: "an address", edits: []edit{set("spec.address", "10.100.0.10")}},
		{name: "a throw-away machine", edits: []edit{set("spec.rootDisk.cache", "Unsafe"), set("spec.domainType", "QEMU")}},

		{name: "no spec", edits: []edit{unset("spec")}, want: []string{"spec: Required value"}},
		{
			name: "nothing in the spec", edits: []edit{set("spec", "{}")},
			want: []string{"spec.image: Required value", "spec.memory: Required value", "spec.rootDisk: Required value", "spec.vcpus: Required value"},
		},
		{name: "a URL without a checksum", edits: []edit{unset("spec.image.checksum")}, want: []string{"spec.image: Invalid value: " + digest}},
		{name: "a URL and a volume", edits: []edit{set("spec.image.volume", "node.qcow2")}, want: []string{
			either,
			"spec.image: Invalid value: checksum goes with url only: remove it, or set url instead of volume",
		}},
		{name: "a volume and a checksum", edits: []edit{unset("spec.image.url"), set("spec.image.volume", "node.qcow2")}, want: []string{
			"spec.image: Invalid value: checksum goes with url only: remove it, or set url instead of volume",
		}},
		{name: "neither a URL nor a volume", edits: []edit{unset("spec.image.url")}, want: []string{either}},
		{
			name: "a file for a URL", edits: []edit{set("spec.image.url", "file:///etc/passwd")},
			want: []string{`spec.image.url: Invalid value: "file:///etc/passwd": spec.image.url in body should match '^https?://[^/\s]+/\S*$'`},
		},
		{
			name: "another digest", edits: []edit{set("spec.image.checksum", "md5:0123456789abcdef0123456789abcdef")},
			want: []string{`spec.image.checksum: Invalid value: "md5:0123456789abcdef0123456789abcdef": spec.image.checksum in body should match '^sha256:[0-9a-f]{64}$'`},
		},
		{
			name: "a path for a volume", edits: []edit{set("spec.image", "{volume: ../secret.qcow2}")},
			want: []string{`spec.image.volume: Invalid value: "../secret.qcow2": spec.image.volume in body should match '^[A-Za-z0-9][A-Za-z0-9_.:-]*$'`},
		},
		{name: "too little memory", edits: []edit{set("spec.memory", "100Mi")}, want: []string{`spec.memory: Invalid value: "100Mi": ` + small}},
		{name: "gigabytes meant, bytes written", edits: []edit{set("spec.memory", "4")}, want: []string{"spec.memory: Invalid value: 4: " + small}},
		{name: "negative memory", edits: []edit{set("spec.memory", "-4Gi")}, want: []string{`spec.memory: Invalid value: "-4Gi": ` + small}},
		{name: "too small a disk", edits: []edit{set("spec.rootDisk.size", "1023Mi")}, want: []string{`spec.rootDisk.size: Invalid value: "1023Mi": ` + smallest}},
		{
			name: "no CPU", edits: []edit{set("spec.vcpus", "0")},
			want: []string{"spec.vcpus: Invalid value: 0: spec.vcpus in body should be greater than or equal to 1"},
		},
		{
			name: "a provider ID of another provider", edits: []edit{set("spec.providerID", "aws:///i-0123456789")},
			want: []string{`spec.providerID: Invalid value: "aws:///i-0123456789": spec.providerID in body should match '^libvirt:///[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$'`},
		},
		{
			name: "a name for an address", edits: []edit{set("spec.address", "node-1.lan")},
			want: []string{`spec.address: Invalid value: "node-1.lan": address must be an IPv4 address, for example 10.100.0.10`},
		},
		{
			name: "an IPv6 address", edits: []edit{set("spec.address", "2001:db8::10")},
			want: []string{`spec.address: Invalid value: "2001:db8::10": address must be an IPv4 address, for example 10.100.0.10`},
		},
		{
			name: "a domain type in libvirt's words", edits: []edit{set("spec.domainType", "kvm")},
			want: []string{`spec.domainType: Unsupported value: "kvm": supported values: "KVM", "QEMU"`},
		},
		{
			name: "a cache mode that isn't served", edits: []edit{set("spec.rootDisk.cache", "Writeback")},
			want: []string{`spec.rootDisk.cache: Unsupported value: "Writeback": supported values: "None", "WriteThrough", "WriteBack", "Unsafe"`},
		},
		{name: "a root disk with everything", edits: []edit{set("spec.rootDisk", "{size: 20Gi, pool: ssd, cache: WriteBack, discard: Ignore}")}},
		{name: "data disks", edits: []edit{set("spec.dataDisks", "[{name: a, size: 1Mi}, {name: b, size: 50Gi, pool: ssd, serial: BRICK_1.x-y, bus: SCSI, "+
			"ioThread: Dedicated, cache: WriteThrough, discard: Unmap, reclaimPolicy: Retain}, {name: root, size: 1Gi, serial: data}]")}},
		{name: "a data disk without a size", edits: []edit{set("spec.dataDisks", "[{name: a}]")}, want: []string{"spec.dataDisks[0].size: Required value"}},
		{
			name: "a data disk that is too small", edits: []edit{set("spec.dataDisks", "[{name: a, size: 50Ki}]")},
			want: []string{`spec.dataDisks[0].size: Invalid value: "50Ki": size must be a quantity of at least 1Mi, for example 50Gi`},
		},
		{
			name: "a data disk of a size in words", edits: []edit{set("spec.dataDisks", "[{name: a, size: large}]")},
			want: []string{`spec.dataDisks[0].size: Invalid value: "large": size must be a quantity of at least 1Mi, for example 50Gi`},
		},
		{
			name: "a data disk with a name for people", edits: []edit{set("spec.dataDisks", "[{name: My Data, size: 1Gi}]")},
			want: []string{`spec.dataDisks[0].name: Invalid value: "My Data": name must consist of lower-case letters, digits and dashes, and neither begin nor end with a dash, for example brick`},
		},
		{
			name: "a serial of 21 bytes", edits: []edit{set("spec.dataDisks", "[{name: a, size: 1Gi, serial: a23456789012345678901}]")},
			want: []string{"spec.dataDisks[0].serial: Too long: may not be more than 20 bytes"},
		},
		{
			name: "two data disks of one name", edits: []edit{set("spec.dataDisks", "[{name: a, size: 1Gi, serial: b}, {name: a, size: 1Gi, serial: c}]")},
			want: []string{`spec.dataDisks[1]: Duplicate value: {"name":"a"}`},
		},
		{
			name: "two data disks of one serial", edits: []edit{set("spec.dataDisks", "[{name: a, size: 1Gi, serial: b}, {name: b, size: 1Gi}]")},
			want: []string{"spec.dataDisks: Invalid value: two dataDisks have the same serial, which is the name when unset: set another serial"},
		},
		{
			name: "a data disk with the serial of the root disk", edits: []edit{set("spec.dataDisks", "[{name: root, size: 1Gi}]")},
			want: []string{"spec.dataDisks[0]: Invalid value: root is the serial of the root disk: set another serial or name"},
		},
		{
			name: "a slot of its own", edits: []edit{set("spec.slot", "{set: MachineDeployment/db, number: 0}")},
			want: []string{"<nil>: Invalid value: spec.slot is set by the provider together with spec.providerID: remove it"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			check(t, api.Create(t.Context(), machine(t, tt.edits...)), tt.want...)
		})
	}
}

func TestMachineUpdate(t *testing.T) {
	const (
		id      = "<nil>: Invalid value: spec.providerID can't be changed or removed once it is set: it identifies the domain"
		place   = "<nil>: Invalid value: spec.hostName can't be changed or removed once it is set, because the machine's disks are on that host: delete the Machine to have it made anew elsewhere"
		address = "<nil>: Invalid value: spec.address can't be changed or removed once it is set, because certificates and other nodes know it: delete the Machine to have it made anew"
		shape   = "<nil>: Invalid value: spec.vcpus, spec.memory, spec.image, spec.rootDisk and spec.domainType can't be changed on an existing machine: make a new LibvirtMachineTemplate and name it in the MachineDeployment or the control plane, which rolls out new machines"
	)
	const (
		disks = "<nil>: Invalid value: spec.dataDisks can't be changed on an existing machine: make a new LibvirtMachineTemplate and name it in the MachineDeployment or the control plane, which rolls out new machines"
		root  = "<nil>: Invalid value: spec.rootDisk can't be changed on an existing machine: make a new LibvirtMachineTemplate and name it in the MachineDeployment or the control plane, which rolls out new machines"
		slot  = "<nil>: Invalid value: spec.slot can't be changed or removed once it is set, because the machine's disks and host name belong to it: delete the Machine to have it made anew"
	)
	placed := []edit{set("spec.hostName", "kvm1"), set("spec.providerID", providerID)}
	two := []edit{set("spec.dataDisks", "[{name: a, size: 1Gi, bus: SCSI}, {name: b, size: 2Gi, reclaimPolicy: Retain}]")}
	slotted := append(slices.Clone(placed), set("spec.slot", "{set: MachineDeployment/db, number: 0}"))
	for _, tt := range []struct {
		name          string
		before, after []edit
		want          []string
	}{
		{name: "metadata", before: placed, after: []edit{annotate("example.org/note")}},
		{name: "provider ID and host, once", after: placed},
		{name: "the same memory in other words", after: []edit{set("spec.memory", "4096Mi")}},
		{name: "the same disk in other words", after: []edit{set("spec.rootDisk.size", "20480Mi")}},

		{name: "the address, once", before: placed, after: []edit{set("spec.address", "10.100.0.10")}},
		{name: "another address", before: []edit{set("spec.address", "10.100.0.10")}, after: []edit{set("spec.address", "10.100.0.11")}, want: []string{address}},
		{name: "no address any more", before: []edit{set("spec.address", "10.100.0.10")}, after: []edit{unset("spec.address")}, want: []string{address}},
		{name: "no provider ID any more", before: placed, after: []edit{unset("spec.providerID")}, want: []string{id}},
		{name: "another provider ID", before: placed, after: []edit{set("spec.providerID", "libvirt:///11111111-1111-4111-8111-111111111111")}, want: []string{id}},
		{name: "no host any more", before: placed, after: []edit{unset("spec.hostName")}, want: []string{place}},
		{name: "another host", before: placed, after: []edit{set("spec.hostName", "kvm2")}, want: []string{place}},
		{name: "another host, without word of where the domain was", before: placed, after: []edit{set("spec.hostName", "kvm2"), set("spec.migratedFrom", "kvm3")}, want: []string{place}},
		{name: "another host after a migration", before: placed, after: []edit{set("spec.hostName", "kvm2"), set("spec.migratedFrom", "kvm1")}},
		{name: "a slot, once", before: placed, after: []edit{set("spec.slot", "{set: MachineDeployment/db, number: 0}")}},
		{name: "another slot", before: slotted, after: []edit{set("spec.slot.number", "1")}, want: []string{slot}},
		{name: "no slot any more", before: slotted, after: []edit{unset("spec.slot")}, want: []string{slot}},
		{name: "the same data disks in other words", before: two, after: []edit{set("spec.dataDisks", "[{name: b, size: 2048Mi, reclaimPolicy: Retain}, {name: a, size: 1024Mi, bus: SCSI}]")}},
		{name: "a larger data disk", before: two, after: []edit{set("spec.dataDisks", "[{name: a, size: 3Gi, bus: SCSI}, {name: b, size: 2Gi, reclaimPolicy: Retain}]")}, want: []string{disks}},
		{name: "a data disk that isn't retained any more", before: two, after: []edit{set("spec.dataDisks", "[{name: a, size: 1Gi, bus: SCSI}, {name: b, size: 2Gi}]")}, want: []string{disks}},
		{name: "a data disk with its default written out", before: two, after: []edit{set("spec.dataDisks", "[{name: a, size: 1Gi, bus: SCSI, cache: None}, {name: b, size: 2Gi, reclaimPolicy: Retain}]")}, want: []string{disks}},
		{name: "a data disk less", before: two, after: []edit{set("spec.dataDisks", "[{name: a, size: 1Gi, bus: SCSI}]")}, want: []string{disks}},
		{name: "no data disk any more", before: two, after: []edit{unset("spec.dataDisks")}, want: []string{disks}},
		{name: "a data disk where none was", after: two, want: []string{disks}},
		{name: "another pool of the root disk", after: []edit{set("spec.rootDisk.pool", "ssd")}, want: []string{root}},
		{name: "another discard of the root disk", before: []edit{set("spec.rootDisk.discard", "Unmap")}, after: []edit{unset("spec.rootDisk.discard")}, want: []string{root}},
		{name: "more CPUs", after: []edit{set("spec.vcpus", "4")}, want: []string{shape}},
		{name: "more memory", after: []edit{set("spec.memory", "8Gi")}, want: []string{shape}},
		{name: "another image", after: []edit{set("spec.image", "{volume: node.qcow2}")}, want: []string{shape}},
		{name: "a larger disk", after: []edit{set("spec.rootDisk.size", "40Gi")}, want: []string{shape}},
		{name: "a cache mode", after: []edit{set("spec.rootDisk.cache", "Unsafe")}, want: []string{shape}},
		{name: "another domain type", after: []edit{set("spec.domainType", "QEMU")}, want: []string{shape}},
		{name: "no domain type any more", after: []edit{unset("spec.domainType")}, want: []string{shape}},
		{name: "a domain type where none was", before: []edit{unset("spec.domainType")}, after: []edit{set("spec.domainType", "KVM")}, want: []string{shape}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			created := machine(t, tt.before...)
			check(t, api.Create(t.Context(), created))
			check(t, api.Update(t.Context(), change(created, tt.after...)), tt.want...)
		})
	}
}

// A controller that reads and writes a machine as a Go type rewrites its quantities in their canonical form.
func TestMachineUpdateByType(t *testing.T) {
	created := machine(t, set("spec.memory", "4294967296"), set("spec.rootDisk.size", "20480Mi"))
	check(t, api.Create(t.Context(), created))
	var typed infrav1.LibvirtMachine
	if err := api.Get(t.Context(), client.ObjectKeyFromObject(created), &typed); err != nil {
		t.Fatal(err)
	}
	if got, want := typed.Spec.Memory.Value(), int64(4<<30); got != want {
		t.Errorf("the memory is %d bytes, want %d", got, want)
	}
	typed.Spec.ProviderID = providerID
	check(t, api.Update(t.Context(), &typed))
}
