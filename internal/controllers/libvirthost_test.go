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
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/host"
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
	eventually(t, "the foreign domain's memory counts", func() error {
		s.refresh(kvm1)
		if got := kvm1.Status.Allocated.Memory; got == nil || got.String() != "64Mi" {
			return fmt.Errorf("%v is allocated", got)
		}
		return nil
	})
}

// TestPausedHost has nothing happen to a paused host but that it is connected, which its machines need.
func TestPausedHost(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	pause := func(h *infrav1.LibvirtHost) { setAnnotation(h, clusterv1.PausedAnnotation, "") }
	unpause := func(h *infrav1.LibvirtHost) { delete(h.Annotations, clusterv1.PausedAnnotation) }
	kvm1 := s.createHost("kvm1", testDriver(t), pause)
	s.expectCondition(kvm1, clusterv1.PausedCondition, metav1.ConditionTrue, clusterv1.PausedReason)
	s.expectCondition(kvm1, infrav1.HostConnectedCondition, metav1.ConditionTrue, infrav1.HostConnectedReason)
	staysSo(t, "no pool is made", func() error {
		if _, err := s.kvm("kvm1").StoragePool(t.Context(), infrav1.DefaultSeedPool); !errors.Is(err, host.ErrNotFound) {
			return fmt.Errorf("the seed pool is there, %w", err)
		}
		return nil
	})
	change(s, kvm1, unpause)
	s.expectReady(kvm1)
	s.expectCondition(kvm1, clusterv1.PausedCondition, metav1.ConditionFalse, clusterv1.NotPausedReason)

	green := s.readyCluster("green", "10.20.0.0/27")
	change(s, kvm1, pause)
	s.expectCondition(kvm1, clusterv1.PausedCondition, metav1.ConditionTrue, clusterv1.PausedReason)
	m := s.readyMachine("green", "green-a")
	s.delete(m)
	s.expectGone(m)

	kvm2 := s.readyHost("kvm2", testDriver(t), func(h *infrav1.LibvirtHost) { h.Spec.Scheduling = infrav1.HostSchedulingDisabled })
	change(s, kvm2, pause)
	s.expectCondition(kvm2, clusterv1.PausedCondition, metav1.ConditionTrue, clusterv1.PausedReason)
	s.delete(green)
	s.expectGone(green)
	s.delete(kvm2)
	staysSo(t, "its finalizer is kept", func() error { return api.Get(t.Context(), client.ObjectKeyFromObject(kvm2), kvm2) })
	change(s, kvm2, unpause)
	s.expectGone(kvm2)
}

// TestUsageOfDomainsOfUnknownSize counts machines by their spec where the host hasn't told the size of their domains.
func TestUsageOfDomainsOfUnknownSize(t *testing.T) {
	machine := infrav1.LibvirtMachine{Spec: infrav1.LibvirtMachineSpec{ProviderID: "libvirt:///" + foreignUUID, VCPUs: 2, Memory: resource.MustParse("1Gi")}}
	const gib = 1 << 30
	for _, tt := range []struct {
		name    string
		domains []host.Domain
		want    usage
	}{
		{"no domain yet", nil, usage{memory: gib, vcpus: 2}},
		{"a domain of unknown size", []host.Domain{{UUID: foreignUUID}}, usage{memory: gib, vcpus: 2}},
		{"a domain as made", []host.Domain{{UUID: foreignUUID, MaxMemoryBytes: gib, VCPUs: 2}}, usage{memory: gib, vcpus: 2}},
		{"a domain that somebody made larger", []host.Domain{{UUID: foreignUUID, MaxMemoryBytes: 2 * gib, VCPUs: 4}}, usage{memory: 2 * gib, vcpus: 4}},
		{"beside another", []host.Domain{{UUID: foreignUUID}, {UUID: "other", MaxMemoryBytes: gib, VCPUs: 1}}, usage{memory: 2 * gib, vcpus: 3}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := promisedOn(tt.domains, []infrav1.LibvirtMachine{machine}); got.memory != tt.want.memory || got.vcpus != tt.want.vcpus {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
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
