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

	"libvirt.org/go/libvirtxml"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/xmltest"
)

// dataDisks are disks of every kind.
func dataDisks() []Disk {
	var disks []Disk
	for _, spec := range []infrav1.DataDisk{
		{Name: "plain"},
		{Name: "brick", Serial: "BRICK-0001", IOThread: infrav1.DiskIOThreadDedicated, Discard: infrav1.DiskDiscardIgnore, ReclaimPolicy: infrav1.DiskReclaimPolicyRetain},
		{Name: "scsi-a", Bus: infrav1.DiskBusSCSI, Cache: infrav1.DiskCacheWriteThrough},
		{Name: "scsi-own", Bus: infrav1.DiskBusSCSI, IOThread: infrav1.DiskIOThreadDedicated, Cache: infrav1.DiskCacheWriteBack},
		{Name: "scsi-b", Bus: infrav1.DiskBusSCSI, Cache: infrav1.DiskCacheUnsafe},
	} {
		disks = append(disks, Disk{Spec: spec, Path: "/var/lib/libvirt/images/" + DataVolumeName(testUUID, spec.Name)})
	}
	return disks
}

func TestRenderDataDisks(t *testing.T) {
	d := definition(func(d *Definition) {
		d.Spec.RootDisk.Discard = infrav1.DiskDiscardIgnore
		d.Spec.RootDisk.Cache = infrav1.DiskCacheWriteBack
		d.Disks = dataDisks()
	})
	document, err := Render(d)
	if err != nil {
		t.Fatal(err)
	}
	xmltest.Golden(t, "data-disks.xml", document)
	xmltest.Accepts(t, document, "define", "--validate")
}

// No two of the most disks that there can be collide, and each has a thread that exists.
func TestManyDataDisks(t *testing.T) {
	for _, bus := range []infrav1.DiskBus{infrav1.DiskBusVirtIO, infrav1.DiskBusSCSI} {
		for _, thread := range []infrav1.DiskIOThread{infrav1.DiskIOThreadShared, infrav1.DiskIOThreadDedicated} {
			t.Run(string(bus)+string(thread), func(t *testing.T) {
				d := definition()
				for k := range 16 {
					d.Disks = append(d.Disks, Disk{Spec: infrav1.DataDisk{Name: "disk-" + string(rune('a'+k)), Bus: bus, IOThread: thread}, Path: "/x/" + string(rune('a'+k))})
				}
				document, err := Render(d)
				if err != nil {
					t.Fatal(err)
				}
				xmltest.Accepts(t, document, "define", "--validate")
				var parsed libvirtxml.Domain
				if err := parsed.Unmarshal(document); err != nil {
					t.Fatal(err)
				}
				want := uint(1)
				if thread == infrav1.DiskIOThreadDedicated {
					want = 17
				}
				if parsed.IOThreads != want {
					t.Errorf("there are %d threads, want %d", parsed.IOThreads, want)
				}
				places := map[string]bool{}
				for _, disk := range parsed.Devices.Disks {
					place := disk.Target.Dev
					if places[place] {
						t.Errorf("two disks are %s", place)
					}
					places[place] = true
					if disk.Device == "disk" && bus == infrav1.DiskBusVirtIO && (disk.Driver.IOThread == nil || *disk.Driver.IOThread > want) {
						t.Errorf("%s has the driver %+v", place, disk.Driver)
					}
				}
				for _, controller := range parsed.Devices.Controllers {
					if controller.Driver != nil && (controller.Driver.IOThread == 0 || controller.Driver.IOThread > want) {
						t.Errorf("controller %d has the driver %+v", *controller.Index, controller.Driver)
					}
				}
			})
		}
	}
}

func TestRenderDataVolume(t *testing.T) {
	document, err := RenderDataVolume(DataVolumeName(testUUID, "brick"), 50<<30)
	if err != nil {
		t.Fatal(err)
	}
	xmltest.Golden(t, "data-volume.xml", document)
	xmltest.Accepts(t, document, "vol-create", "default-pool")
}

func TestSlotNames(t *testing.T) {
	slot := Slot{Namespace: "home", Cluster: "web", Set: "MachineDeployment/db", Number: 12}
	name := slot.VolumeName("brick")
	if want := "capl-slot-" + slot.Key() + "-12-brick_home.web.db.qcow2"; name != want {
		t.Errorf("got %s, want %s", name, want)
	}
	if key, number, ok := SlotVolume(name); !ok || key != slot.Key() || number != 12 {
		t.Errorf("%s is read as %s, %d, %t", name, key, number, ok)
	}
	if _, ok := VolumeUUID(name); ok {
		t.Errorf("%s is named like a disk that goes with its machine", name)
	}
	for _, other := range []Slot{
		{Namespace: "office", Cluster: "web", Set: "MachineDeployment/db"}, {Namespace: "home", Cluster: "web2", Set: "MachineDeployment/db"},
		{Namespace: "home", Cluster: "web", Set: "ControlPlane/db"}, {Namespace: "home", Cluster: "web\nMachineDeployment/db"},
	} {
		if other.Key() == slot.Key() {
			t.Errorf("%+v has the key of %+v", other, slot)
		}
	}
	long := Slot{Namespace: strings.Repeat("n", 63), Cluster: strings.Repeat("c", 253), Set: "MachineDeployment/" + strings.Repeat("m", 253), Number: 99999}
	if name := long.VolumeName(strings.Repeat("d", 20)); len(name) > 255 {
		t.Errorf("%s has %d characters, and a file's name 255 at most", name, len(name))
	} else if key, number, ok := SlotVolume(name); !ok || key != long.Key() || number != long.Number {
		t.Errorf("%s is read as %s, %d, %t", name, key, number, ok)
	}
	for _, foreign := range []string{
		"", "node.qcow2", DataVolumeName(testUUID, "brick"), RootVolumeName(testUUID),
		name + ".bak", "x" + name, strings.Replace(name, "-12-", "-012-", 1), strings.Replace(name, "-12-", "-12-x/", 1), strings.Replace(name, "_", "-", 1),
	} {
		if key, number, ok := SlotVolume(foreign); ok {
			t.Errorf("%s is read as %s, %d", foreign, key, number)
		}
	}
}

func TestSlotHostname(t *testing.T) {
	for set, want := range map[string]string{
		"MachineDeployment/db":                         "db-7",
		"ControlPlane/web-control-plane":               "web-control-plane-7",
		"MachineDeployment/" + strings.Repeat("m", 61): strings.Repeat("m", 61) + "-7",
		"MachineDeployment/" + strings.Repeat("m", 62): strings.Repeat("m", 52) + "-HASH-7",
		"MachineDeployment/a.b":                        "a-b-HASH-7",
		"MachineDeployment/hash_1n4vl_z":               "hash-1n4vl-z-HASH-7",
	} {
		slot := Slot{Namespace: "home", Cluster: "web", Set: set, Number: 7}
		got := slot.Hostname()
		if want = strings.Replace(want, "HASH", slot.Key()[:8], 1); got != want {
			t.Errorf("%s: got %s, want %s", set, got, want)
		}
		if len(got) > 63 {
			t.Errorf("%s has %d characters", got, len(got))
		}
	}
}
