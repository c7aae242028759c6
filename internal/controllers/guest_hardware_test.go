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
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/hosttest"
)

// TestGuestBootsBySecureBoot has a guest start by signed programs only. It finds its TPM, and it shuts down by itself when
// its machine is deleted.
func TestGuestBootsBySecureBoot(t *testing.T) {
	t.Parallel()
	image := serve(t, guestImage(t))
	lab := hosttest.Libvirtd(t)
	s := newScene(t)
	s.readyHost("kvm1", lab.URI())
	green := s.readyCluster("guest", "10.99.0.0/25")
	m := s.createMachine("guest", "guest-1", guestOf(image), gracefully(600), func(parts *machineParts) {
		parts.libvirtMachine.Spec.Firmware = infrav1.FirmwareSecureBoot
		parts.libvirtMachine.Spec.TPM.Type = infrav1.TPMTypeEmulated
		parts.secret.Data["value"] = []byte("#cloud-config\nruncmd:\n" +
			"- mountpoint -q /sys/firmware/efi/efivars || mount -t efivarfs efivarfs /sys/firmware/efi/efivars\n" +
			"- echo secure boot $(od -An -t u1 -j 4 -N 1 /sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c), " +
			"TPM $(cat /sys/class/tpm/tpm0/tpm_version_major) >/dev/console\n")
	})
	s.expectReady(m)
	began, uuid, console := time.Now(), uuidOf(m), m.Status.Domain.Name
	expectOnConsole(t, lab, console, "secure boot 1, TPM 2")
	t.Logf("The bootstrap data ran within %s", time.Since(began).Round(time.Second))

	asked := time.Now()
	s.delete(m)
	s.expectCondition(m, infrav1.DeletingCondition, metav1.ConditionTrue, infrav1.MachineShuttingDownReason, "the guest was asked to shut down")
	expectOnConsole(t, lab, console, "reboot: Power down")
	t.Logf("The guest shut down within %s", time.Since(asked).Round(time.Second))
	s.expectGone(m)
	s.expectNoTraces(green, "kvm1", uuid)
}
