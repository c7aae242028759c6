//go:build faults

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
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/cluster-api/util/conditions"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/domain"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/host"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/network"
)

// TestFullDisk has a machine wait for room in the disk pool.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	lab := newLab(t)
	const dir = "/var/lib/libvirt/small"
	inside(t, lab, "mkdir "+dir+" && virsh pool-define-as small dir --target "+dir)
	s.readyHost("kvm1", lab.URI(), func(h *infrav1.LibvirtHost) { h.Spec.Storage.DiskPool = "small" })
	// Placement knows what the pool had when it was looked at last.
	inside(t, lab, "mount -t tmpfs -o size=1m tmpfs "+dir+" && dd if=/dev/zero of="+dir+"/ballast bs=1k count=1020")
	green := s.readyCluster("green", "10.20.0.0/27")
	m := s.createMachine("green", "green-a", emulated)
	s.expectCondition(m, infrav1.MachineDomainReadyCondition, metav1.ConditionFalse, infrav1.LibvirtErrorReason, "no space left in the storage pool")
	tries := s.kvm("kvm1").Calls()["storageVolCreateXML"]
	for end := time.Now().Add(noSpaceInterval - moment); time.Now().Before(end); time.Sleep(time.Second) {
		touch(s, m)
		if now := s.kvm("kvm1").Calls()["storageVolCreateXML"]; now > tries {
			t.Fatalf("It was tried %d times within %s", now, noSpaceInterval)
		}
	}
	if _, err := s.kvm("kvm1").Volume(t.Context(), "small", domain.RootVolumeName(uuidOf(m))); !errors.Is(err, host.ErrNotFound) {
		t.Errorf("A part of the volume was left: %v", err)
	}
	inside(t, lab, "rm "+dir+"/ballast")
	s.expectReady(m)
	s.delete(m)
	s.expectGone(m)
	s.expectNoTraces(green, "kvm1", uuidOf(m))
}

// TestHostReboots pulls the plug of a host: its guests, its daemon, its networks and all that lies in /run are gone at
// once. The machines come back as they were.
func TestHostReboots(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	lab := newLab(t)
	kvm1 := s.readyHost("kvm1", lab.URI())
	green := s.readyCluster("green", "10.20.0.0/27")
	var machines []*infrav1.LibvirtMachine
	for k := range 5 {
		machines = append(machines, s.readyMachine("green", fmt.Sprintf("green-%d", k), emulated))
	}
	type identity struct{ providerID, address string }
	before := map[string]identity{}
	for _, m := range machines {
		before[m.Name] = identity{m.Spec.ProviderID, internalIP(m)}
	}

	must(t, lab.StopDaemon(t.Context(), syscall.SIGKILL))
	inside(t, lab, "for f in /run/libvirt/qemu/*.pid /run/libvirt/network/*.pid; do kill -9 $(cat $f); done")
	for _, link := range strings.Fields(inside(t, lab, "ls /sys/class/net")) {
		if strings.HasPrefix(link, "capl") || strings.HasPrefix(link, "virbr") {
			inside(t, lab, "ip link delete "+link)
		}
	}
	for _, state := range []string{"qemu", "network", "storage"} {
		must(t, os.RemoveAll(lab.Path(filepath.Join("/run/libvirt", state))))
	}
	for _, m := range machines {
		s.expectCondition(m, infrav1.ReadyCondition, metav1.ConditionUnknown, infrav1.HostUnreachableReason)
	}
	booted := time.Now()
	must(t, lab.StartDaemon(t.Context()))
	s.expectReady(kvm1)
	for _, m := range machines {
		s.expectReady(m)
		s.expectAllThere(green, m)
		if now := (identity{m.Spec.ProviderID, internalIP(m)}); now != before[m.Name] {
			t.Errorf("%s was %+v and is %+v", m.Name, before[m.Name], now)
		}
	}
	t.Logf("All %d machines are ready %s after the daemon was started", len(machines), time.Since(booted).Round(time.Millisecond))

	transitions := map[string]metav1.Time{}
	for _, m := range machines {
		transitions[m.Name] = conditions.Get(m, infrav1.ReadyCondition).LastTransitionTime
	}
	for end := time.Now().Add(15 * time.Second); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		for _, m := range machines {
			must(t, api.Get(t.Context(), client.ObjectKeyFromObject(m), m))
			ready := conditions.Get(m, infrav1.ReadyCondition)
			if last := transitions[m.Name]; ready.Status != metav1.ConditionTrue || !ready.LastTransitionTime.Equal(&last) {
				t.Fatalf("The status of %s flaps: %+v", m.Name, ready)
			}
		}
	}
}

// TestLiveMigration has an operator migrate a running domain to another host.
func TestLiveMigration(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	from, to := newLab(t), newLab(t)
	s.readyHost("kvm1", from.URI())
	s.readyHost("kvm2", to.URI())
	green := s.readyCluster("green", "10.20.0.0/27")
	m := s.readyMachine("green", "green-a", emulated, onHost("kvm1"))
	uuid, address := uuidOf(m), internalIP(m)
	// Where storage isn't shared, the operator sees to it that the disk is there.
	root := "/var/lib/libvirt/images/" + domain.RootVolumeName(uuid)
	must(t, os.WriteFile(to.Path(root), file(t, from.Path(root)), 0o600))
	seed := "/var/lib/libvirt/" + infrav1.DefaultSeedPool + "/" + domain.SeedVolumeName(uuid)
	must(t, os.WriteFile(to.Path(seed), file(t, from.Path(seed)), 0o600))
	stream := filepath.Join(t.TempDir(), "m")
	output := inside(t, from, fmt.Sprintf("virsh migrate --live --persistent --unsafe --p2p --migrateuri unix://%s %s '%s'",
		stream, uuid, to.URI()))
	t.Log(output)
	eventually(t, "the machine is on the other host", func() error {
		s.refresh(m)
		if m.Spec.HostName != "kvm2" || m.Spec.MigratedFrom != "kvm1" {
			return fmt.Errorf("it is on %q, from %q\n%s", m.Spec.HostName, m.Spec.MigratedFrom, describe(m))
		}
		return nil
	})
	s.expectReady(m)
	staysSo(t, "the domain isn't started where it was", func() error {
		dom, err := s.kvm("kvm1").Domain(uuid)
		if err != nil || dom.State != host.Shutoff || dom.Reason != host.ReasonMigrated {
			return fmt.Errorf("it is %+v, %w", dom, err)
		}
		return nil
	})
	if internalIP(m) != address {
		t.Errorf("The address was %s and is %s", address, internalIP(m))
	}
	s.delete(m)
	s.expectGone(m)
	for _, hostName := range []string{"kvm1", "kvm2"} {
		s.expectNoTraces(green, hostName, uuid)
	}
}

// TestStoppedNetwork has somebody stop the cluster's network: it is started again, and machines can be made in it.
func TestStoppedNetwork(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	lab := newLab(t)
	s.readyHost("kvm1", lab.URI())
	green := s.readyCluster("green", "10.20.0.0/27")
	first := s.readyMachine("green", "first", emulated)
	inside(t, lab, "virsh net-destroy "+green.Spec.Network.UUID)
	eventually(t, "the network is up again", func() error {
		found, err := s.kvm("kvm1").Network(t.Context(), green.Spec.Network.UUID)
		if err == nil && !found.Active {
			err = errors.New("it is stopped")
		}
		return err
	})
	second := s.readyMachine("green", "second", emulated)
	s.expectReady(green)
	for _, m := range []*infrav1.LibvirtMachine{first, second} {
		s.expectAllThere(green, m)
	}
	// libvirt doesn't plug a machine that runs into its bridge again; a new one is. It gives the host's end of an interface
	// the guest's MAC address but for the first byte.
	bridge := strings.TrimSpace(inside(t, lab, "virsh net-info "+green.Spec.Network.UUID+" | sed -n 's/^Bridge: *//p'"))
	port, ports := "fe"+strings.TrimPrefix(network.MAC(uuidOf(second)), "52"), inside(t, lab, "ip -br link show master "+bridge)
	if !strings.Contains(ports, port) {
		t.Errorf("The new machine's end %s isn't plugged into the bridge %s, which has\n%s", port, bridge, ports)
	}
}

// TestStoppedPool has somebody stop the pool of the disks just when a machine's disk is to be made in it. Whoever hears of
// it first is kept from starting the pool again until the call has failed.
func TestStoppedPool(t *testing.T) {
	t.Parallel()
	s := newSceneOf(t, "", nil)
	s.watchFilter = s.namespace
	lab := newLab(t)
	var once sync.Once
	var armed atomic.Bool
	failed := make(chan struct{})
	s.startOwn(nil, host.WithIntercept(func(procedure string, call func() error) error {
		if armed.Load() && procedure == "storagePoolCreate" {
			<-failed
		}
		var err error
		if armed.Load() && procedure == "storageVolCreateXML" {
			once.Do(func() {
				defer close(failed)
				output, stopErr := lab.Inside(t.Context(), "virsh", "pool-destroy", "default").CombinedOutput()
				if err = call(); err == nil {
					t.Errorf("A disk was made in a pool that is stopped: %s, %v", output, stopErr)
				}
			})
			if err != nil {
				return err
			}
		}
		return call()
	}))
	kvm1 := s.readyHost("kvm1", lab.URI())
	green := s.readyCluster("green", "10.20.0.0/27")
	first := s.readyMachine("green", "first", emulated)
	armed.Store(true)
	second := s.readyMachine("green", "second", emulated)
	<-failed
	inside(t, lab, "virsh pool-destroy default && virsh pool-destroy "+infrav1.DefaultSeedPool)
	third := s.readyMachine("green", "third", emulated)
	s.expectReady(kvm1)
	for _, m := range []*infrav1.LibvirtMachine{first, second, third} {
		s.expectAllThere(green, m)
		s.delete(m)
		s.expectGone(m)
		s.expectNoTraces(green, "kvm1", uuidOf(m))
	}
}
