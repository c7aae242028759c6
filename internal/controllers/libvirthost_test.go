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

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/hosttest"
)

func TestHostReportsWhatItHas(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	kvm1 := s.readyHost("kvm1", testDriver(t, hosttest.Memory(64), hosttest.CPUs(12)))

	status := kvm1.Status
	if got := ptr.Deref(status.Capacity.CPUs, 0); got != 12 {
		t.Errorf("got %d CPUs", got)
	}
	if got := status.Capacity.Memory; got == nil || got.String() != "64Gi" {
		t.Errorf("got %v of memory", got)
	}
	if status.Hostname == "" || status.Architecture == "" || len(status.DomainTypes) != 2 {
		t.Errorf("got %+v", status)
	}
	for _, version := range []string{status.LibvirtVersion, status.HypervisorVersion} {
		if strings.Count(version, ".") != 2 {
			t.Errorf("got the version %q", version)
		}
	}
	if got := status.Allocated.Memory; got == nil || !got.IsZero() || ptr.Deref(status.Machines, -1) != 0 {
		t.Errorf("got %v of %v machines on an empty host", got, status.Machines)
	}
	s.expectCondition(kvm1, infrav1.HostConnectedCondition, metav1.ConditionTrue, infrav1.HostConnectedReason)
	s.expectCondition(kvm1, infrav1.HostStorageReadyCondition, metav1.ConditionTrue, infrav1.HostStorageReadyReason)
	seeds, err := s.kvm("kvm1").StoragePool(t.Context(), infrav1.DefaultSeedPool)
	if err != nil || !seeds.Active {
		t.Errorf("The seed pool is %+v, %v", seeds, err)
	}

	s.delete(kvm1)
	s.expectGone(kvm1)
}

func TestHostStaysWhileItIsInUse(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	kvm1 := s.readyHost("kvm1", testDriver(t))
	libvirtCluster := s.readyCluster("green", "10.20.0.0/27")
	libvirtMachine := s.readyMachine("green", "green-a")

	s.delete(kvm1)
	s.expectCondition(kvm1, infrav1.DeletingCondition, metav1.ConditionTrue, infrav1.HostInUseReason, "1 LibvirtMachine", "green-a")
	s.expectCondition(kvm1, infrav1.ReadyCondition, metav1.ConditionFalse, infrav1.DeletingReason, "green-a")
	s.delete(libvirtMachine)
	s.expectGone(libvirtMachine)
	s.delete(libvirtCluster)
	s.expectGone(libvirtCluster)
	s.expectGone(kvm1)
}

func TestHostWaitsForItsPools(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	kvm1 := s.createHost("kvm1", testDriver(t), func(h *infrav1.LibvirtHost) { h.Spec.Storage.DiskPool = "nvme" })
	s.expectCondition(kvm1, infrav1.HostStorageReadyCondition, metav1.ConditionFalse, infrav1.HostStoragePoolNotFoundReason,
		"storage pool nvme of spec.storage.diskPool doesn't exist", "virsh pool-define-as nvme")
	s.expectCondition(kvm1, infrav1.ReadyCondition, metav1.ConditionFalse, infrav1.HostStoragePoolNotFoundReason, "StorageReady: ")
	must(t, s.kvm("kvm1").EnsureDirPool(t.Context(), "nvme", "/pools/nvme"))
	s.expectReady(kvm1)

	kvm2 := s.createHost("kvm2", testDriver(t), func(h *infrav1.LibvirtHost) { h.Spec.Storage.SeedPool = "default" })
	s.expectCondition(kvm2, infrav1.HostStorageReadyCondition, metav1.ConditionFalse, infrav1.HostStoragePoolConflictReason,
		"spec.storage.seedPool default", "name another one")
	change(s, kvm2, func(h *infrav1.LibvirtHost) { h.Spec.Storage.SeedPool = "seeds" })
	s.expectReady(kvm2)
}

func TestHostCountsDomainsOfOthers(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	kvm1 := s.readyHost("kvm1", testDriver(t))
	must(t, s.kvm("kvm1").DefineDomain(t.Context(), foreignDomain("foreign", foreignUUID)))
	touch(s, kvm1)
	eventually(t, "the foreign domain's memory counts", func() error {
		s.refresh(kvm1)
		if got := kvm1.Status.Allocated.Memory; got == nil || got.String() != "64Mi" {
			return fmt.Errorf("%v is allocated", got)
		}
		return nil
	})
}

func TestHostSaysWhyItCantBeReached(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	for _, test := range []struct{ name, uri, reason, text string }{
		{"nobody", "qemu+unix:///system?socket=/nonexistent/libvirt-sock", infrav1.HostUnreachableReason, "/nonexistent/libvirt-sock"},
		{"shell", "qemu+ext:///system?command=/bin/true", infrav1.HostInvalidURIReason, "qemu+ext"},
		{"unauthenticated", "qemu+libssh2://root@127.0.0.1/system", infrav1.HostCredentialsNotFoundReason, "ssh-privatekey"},
	} {
		s.expectCondition(s.createHost(test.name, test.uri), infrav1.HostConnectedCondition, metav1.ConditionFalse, test.reason, test.text)
	}
}

func TestHostNeedsTheRightCredentials(t *testing.T) {
	t.Parallel()
	access := hosttest.SSHD(t, hosttest.Libvirtd(t))
	s := newScene(t)
	kvm1 := s.createHost("kvm1", "qemu+libssh2://root@"+access.Addr+"/system", func(h *infrav1.LibvirtHost) {
		h.Spec.CredentialsRef.Name = "kvm1-ssh"
	})
	s.expectCondition(kvm1, infrav1.HostConnectedCondition, metav1.ConditionFalse, infrav1.HostCredentialsNotFoundReason,
		"Secret kvm1-ssh of spec.credentialsRef doesn't exist in namespace "+s.namespace)

	secret := &corev1.Secret{ObjectMeta: s.meta("kvm1-ssh", ""), Data: map[string][]byte{
		"ssh-privatekey": file(t, hosttest.SSHKey(t)), "known_hosts": file(t, access.KnownHosts),
	}}
	s.create(secret)
	s.expectCondition(kvm1, infrav1.HostConnectedCondition, metav1.ConditionFalse, infrav1.HostAuthenticationFailedReason,
		"with the Secret of spec.credentialsRef")

	change(s, secret, func(secret *corev1.Secret) { secret.Data["ssh-privatekey"] = file(t, access.Key) })
	s.expectReady(kvm1)
}

func file(t *testing.T, path string) []byte {
	t.Helper()
	content, err := os.ReadFile(path)
	must(t, err)
	return content
}
