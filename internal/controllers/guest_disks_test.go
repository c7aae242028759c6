//go:build guests

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

package controllers

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/hosttest"
)

// diskScript writes a file to the retained disk, or tells what it says if it is there, and names the disks that udev
// found by their serial numbers.
const diskScript = `#cloud-config
runcmd:
- |
  set -e
  disk=/dev/disk/by-id/virtio-BRICK-0001
  blkid $disk || mkfs.ext4 -q $disk
  mkdir -p /data
  mount $disk /data
  if [ -e /data/file ]; then
    echo "found: $(cat /data/file), and I am $(hostname)" >/dev/console
  else
    echo "written by %[1]s" >/data/file
    umount /data
    echo "stored: %[1]s, and I am $(hostname)" >/dev/console
  fi
  echo "disks: $(cd /dev/disk/by-id && echo *)" >/dev/console
`

// TestFileOnARetainedDiskSurvivesItsMachine boots a guest that writes a file, replaces the machine, and finds the file in
// the next guest, which has the same host name.
func TestFileOnARetainedDiskSurvivesItsMachine(t *testing.T) {
	t.Parallel()
	image := serve(t, guestImage(t))
	lab := hosttest.Libvirtd(t)
	s := newScene(t)
	kvm1 := s.readyHost("kvm1", lab.URI())
	s.readyCluster("guest", "10.98.0.0/25")
	boot := func(name string, want ...string) *infrav1.LibvirtMachine {
		t.Helper()
		began := time.Now()
		m := s.createMachine("guest", name, of("db"), func(parts *machineParts) {
			spec := &parts.libvirtMachine.Spec
			spec.Image, spec.Memory, spec.DomainType = image, resource.MustParse("768Mi"), infrav1.DomainTypeQEMU
			spec.RootDisk = infrav1.RootDisk{Size: resource.MustParse("3Gi"), Cache: infrav1.DiskCacheUnsafe}
			spec.DataDisks = []infrav1.DataDisk{
				dataDisk("brick", "64Mi", retained, func(d *infrav1.DataDisk) {
					d.Serial, d.IOThread = "BRICK-0001", infrav1.DiskIOThreadDedicated
				}),
				dataDisk("shelf", "64Mi", func(d *infrav1.DataDisk) {
					d.Bus, d.Cache = infrav1.DiskBusSCSI, infrav1.DiskCacheWriteBack
				}),
			}
			parts.secret.Data["value"] = fmt.Appendf(nil, diskScript, name)
		})
		s.expectReady(m)
		console := lab.Path("/var/log/libvirt/qemu/" + m.Status.Domain.Name + "-console.log")
		if err := within(bootPatience, func() error {
			written, err := os.ReadFile(console)
			if err != nil {
				return err
			}
			for _, text := range want {
				if !strings.Contains(string(written), text) {
					return fmt.Errorf("the console has no %q", text)
				}
			}
			return nil
		}); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		t.Logf("%s: the guest said so within %s", name, time.Since(began).Round(time.Second))
		return m
	}
	first := boot("db-first", "stored: db-first, and I am db-0", "virtio-BRICK-0001", "scsi-0QEMU_QEMU_HARDDISK_shelf")
	s.removeMachine(first)
	second := boot("db-second", "found: written by db-first, and I am db-0")
	eventually(t, "the host lists the disk", func() error {
		if s.refresh(kvm1); len(kvm1.Status.RetainedDisks) != 1 || kvm1.Status.RetainedDisks[0].Machine != second.Name {
			return fmt.Errorf("it lists %+v", kvm1.Status.RetainedDisks)
		}
		return nil
	})
}
