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
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/domain"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/host"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/hosttest"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/lab/privatehost"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/network"
)

// expectUntouched checks that a domain is as it was defined and doesn't run.
func (s *scene) expectUntouched(hostName, uuid, definition string) {
	s.t.Helper()
	found, err := s.kvm(hostName).DomainXML(s.t.Context(), uuid)
	if err != nil || found != definition {
		s.t.Errorf("The foreign domain was\n%s\nand is\n%s\n%v", definition, found, err)
	}
	if dom, err := s.kvm(hostName).Domain(uuid); err != nil || dom.State != host.Shutoff {
		s.t.Errorf("The foreign domain is %+v, %v", dom, err)
	}
}

// defineForeign defines a domain that isn't ours and returns its definition.
func (s *scene) defineForeign(hostName, name, uuid string) string {
	s.t.Helper()
	must(s.t, s.kvm(hostName).DefineDomain(s.t.Context(), foreignDomain(name, uuid)))
	definition, err := s.kvm(hostName).DomainXML(s.t.Context(), uuid)
	must(s.t, err)
	return definition
}

func TestForeignDomainWithOurNameIsLeftAlone(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.readyHost("kvm1", testDriver(t))
	green := s.readyCluster("green", "10.20.0.0/27")
	name := domain.Name(s.namespace, "green-a")

	// It is there before the machine is placed …
	definition := s.defineForeign("kvm1", name, foreignUUID)
	m := s.createMachine("green", "green-a")
	s.expectCondition(m, infrav1.MachinePlacedCondition, metav1.ConditionFalse, infrav1.MachineDomainConflictReason,
		"kvm1", name, foreignUUID, "remove or rename it")
	s.delete(m)
	s.expectGone(m)
	s.expectUntouched("kvm1", foreignUUID, definition)
	must(t, s.kvm("kvm1").UndefineDomain(t.Context(), foreignUUID))

	// … or comes between that and the definition of ours.
	s.delete(s.machine("green-a"))
	secret := s.machineParts("green", "green-a").secret
	s.delete(secret)
	m = s.createMachine("green", "green-a", func(p *machineParts) { p.secret = nil })
	s.expectCondition(m, infrav1.MachineBootstrapDataReadyCondition, metav1.ConditionFalse, infrav1.MachineBootstrapSecretNotFoundReason)
	definition = s.defineForeign("kvm1", name, foreignUUID)
	s.create(s.machineParts("green", "green-a").secret)
	s.expectCondition(m, infrav1.MachineDomainReadyCondition, metav1.ConditionFalse, infrav1.MachineDomainConflictReason,
		"host kvm1 already has another domain named "+name)
	s.delete(m)
	s.expectGone(m)
	s.expectUntouched("kvm1", foreignUUID, definition)
	s.expectNoTraces(green, "kvm1", uuidOf(m))
}

func TestForeignDomainWithOurUUIDIsLeftAlone(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.readyHost("kvm1", testDriver(t))
	s.readyCluster("green", "10.20.0.0/27")
	m := s.createMachine("green", "green-a", func(p *machineParts) { p.secret = nil })
	s.expectCondition(m, infrav1.MachineBootstrapDataReadyCondition, metav1.ConditionFalse, infrav1.MachineBootstrapSecretNotFoundReason)
	definition := s.defineForeign("kvm1", "foreign", uuidOf(m))
	s.create(s.machineParts("green", "green-a").secret)
	s.expectCondition(m, infrav1.MachineDomainReadyCondition, metav1.ConditionFalse, infrav1.MachineDomainConflictReason,
		"host kvm1", "UUID "+uuidOf(m), "remove it")
	s.expectUntouched("kvm1", uuidOf(m), definition)

	s.delete(m)
	s.expectCondition(m, infrav1.DeletingCondition, metav1.ConditionTrue, infrav1.MachineDomainConflictReason, "remove it")
	s.expectUntouched("kvm1", uuidOf(m), definition)
	must(t, s.kvm("kvm1").UndefineDomain(t.Context(), uuidOf(m)))
	s.expectGone(m)
}

func TestForeignVolumeWithOurNameIsLeftAlone(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.readyHost("kvm1", testDriver(t))
	s.readyCluster("green", "10.20.0.0/27")
	m := s.createMachine("green", "green-a", func(p *machineParts) { p.secret = nil })
	s.expectCondition(m, infrav1.MachineBootstrapDataReadyCondition, metav1.ConditionFalse, infrav1.MachineBootstrapSecretNotFoundReason)
	name := domain.RootVolumeName(uuidOf(m))
	must(t, s.kvm("kvm1").CreateVolume(t.Context(), "default", fmt.Sprintf(
		`<volume><name>%s</name><capacity unit="MiB">64</capacity><target><format type="qcow2"/></target></volume>`, name)))
	s.create(s.machineParts("green", "green-a").secret)
	s.expectCondition(m, infrav1.MachineDomainReadyCondition, metav1.ConditionFalse, infrav1.MachineDomainConflictReason,
		"storage pool default of host kvm1 already has a volume "+name, "remove it")
	s.delete(m)
	s.expectGone(m)
	if found, err := s.kvm("kvm1").Volume(t.Context(), "default", name); err != nil || found.CapacityBytes != 64<<20 {
		t.Errorf("The foreign volume is %+v, %v", found, err)
	}
}

func TestDomainThatSomebodyRemovedIsNotMadeAgain(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.readyHost("kvm1", testDriver(t))
	green := s.readyCluster("green", "10.20.0.0/27")
	m := s.readyMachine("green", "green-a")
	uuid := uuidOf(m)
	must(t, s.kvm("kvm1").DestroyDomain(t.Context(), uuid))
	must(t, s.kvm("kvm1").UndefineDomain(t.Context(), uuid))
	s.expectCondition(m, infrav1.MachineDomainReadyCondition, metav1.ConditionFalse, infrav1.MachineDomainMissingReason,
		"domain "+uuid+" is gone from host kvm1", "delete it to have it replaced")
	s.expectCondition(m, infrav1.ReadyCondition, metav1.ConditionFalse, infrav1.MachineDomainMissingReason)

	// Not even when the status, which says that it was there once, is lost in a move.
	changeStatus(s, m, func(m *infrav1.LibvirtMachine) { m.Status = infrav1.LibvirtMachineStatus{} })
	s.expectCondition(m, infrav1.MachineDomainReadyCondition, metav1.ConditionFalse, infrav1.MachineDomainMissingReason)
	touch(s, m)
	staysSo(t, "the domain is missing", func() error {
		if _, err := s.kvm("kvm1").Domain(uuid); !errors.Is(err, host.ErrNotFound) {
			return fmt.Errorf("it is there again: %w", err)
		}
		return nil
	})
	s.delete(m)
	s.expectGone(m)
	s.expectNoTraces(green, "kvm1", uuid)
}

// TestMoveToAnotherManagementCluster does to the objects what clusterctl move does: they get new UIDs and lose their
// status.
func TestMoveToAnotherManagementCluster(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.readyHost("kvm1", testDriver(t))
	s.readyHost("kvm2", testDriver(t))
	green := s.readyCluster("green", "10.20.0.0/27")
	m := s.readyMachine("green", "green-a")
	before, network := m.DeepCopy(), green.Spec.Network.UUID
	dom, err := s.kvm(m.Spec.HostName).Domain(uuidOf(m))
	must(t, err)

	change(s, green, func(c *infrav1.LibvirtCluster) { setAnnotation(c, "cluster.x-k8s.io/paused", "") })
	change(s, m, func(m *infrav1.LibvirtMachine) { setAnnotation(m, "cluster.x-k8s.io/paused", "") })
	s.expectCondition(green, "Paused", metav1.ConditionTrue, "Paused")
	s.expectCondition(m, "Paused", metav1.ConditionTrue, "Paused")
	move(s, green)
	move(s, m)
	s.expectReady(m)
	s.expectReady(green)

	if m.UID == before.UID || m.Spec.ProviderID != before.Spec.ProviderID || m.Spec.HostName != before.Spec.HostName {
		t.Errorf("It was %s with %s on %s and is %s with %s on %s", before.UID, before.Spec.ProviderID, before.Spec.HostName,
			m.UID, m.Spec.ProviderID, m.Spec.HostName)
	}
	if internalIP(m) != internalIP(before) {
		t.Errorf("Its address was %s and is %s", internalIP(before), internalIP(m))
	}
	if green.Spec.Network.UUID != network || len(green.Status.Hosts) != 2 {
		t.Errorf("The network was %s and is %s on %v", network, green.Spec.Network.UUID, green.Status.Hosts)
	}
	after, err := s.kvm(m.Spec.HostName).Domain(uuidOf(m))
	if err != nil || after != dom {
		t.Errorf("The domain was %+v and is %+v, %v", dom, after, err)
	}
	if there := len(s.kvm("kvm1").Domains()) + len(s.kvm("kvm2").Domains()); there != 1 {
		t.Errorf("There are %d domains", there)
	}

	s.delete(m)
	s.expectGone(m)
	s.expectNoTraces(green, before.Spec.HostName, uuidOf(before))
	s.delete(green)
	s.expectGone(green)
}

// move makes a paused object anew with its metadata and spec and lets it go on. As clusterctl does, it takes the finalizers
// away from one that is being deleted: from another they would be missed, and added again.
func move[T conditionsObject](s *scene, object T) {
	s.t.Helper()
	moved := object.DeepCopyObject().(T)
	s.delete(object)
	change(s, object, func(o T) { o.SetFinalizers(nil) })
	s.expectGone(object)
	moved.SetUID("")
	moved.SetResourceVersion("")
	s.create(moved)
	change(s, moved, func(o T) {
		annotations := o.GetAnnotations()
		delete(annotations, "cluster.x-k8s.io/paused")
		o.SetAnnotations(annotations)
	})
	s.refresh(object)
}

// newLab starts a real host that has the image.
func newLab(t *testing.T, edits ...func(*privatehost.Options)) *privatehost.Host {
	t.Helper()
	lab := hosttest.Libvirtd(t, edits...)
	image := lab.Path("/var/lib/libvirt/images/" + imageVolume)
	output, err := exec.CommandContext(t.Context(), "qemu-img", "create", "-q", "-f", "qcow2", image, fmt.Sprint(imageVolumeSize)).CombinedOutput()
	if err != nil {
		t.Fatalf("Making an image: %v: %s", err, output)
	}
	return lab
}

// inside runs a shell command inside a private host.
func inside(t *testing.T, lab *privatehost.Host, command string) string {
	t.Helper()
	output, err := lab.Inside(t.Context(), "sh", "-c", command).CombinedOutput()
	if err != nil {
		t.Fatalf("Running %q inside the host: %v: %s", command, err, output)
	}
	return string(output)
}

// emulated makes a machine that a real host can run without KVM.
func emulated(p *machineParts) {
	spec := &p.libvirtMachine.Spec
	spec.VCPUs, spec.Memory = 1, resource.MustParse("512Mi")
	spec.DomainType, spec.RootDisk.Cache = infrav1.DomainTypeQEMU, infrav1.DiskCacheUnsafe
}

func TestHostOutOfReach(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	lab := newLab(t)
	kvm1 := s.readyHost("kvm1", lab.URI())
	green := s.readyCluster("green", "10.20.0.0/27")
	running := s.readyMachine("green", "running", emulated)
	placed := s.createMachine("green", "placed", emulated, func(p *machineParts) { p.secret = nil })
	s.expectCondition(placed, infrav1.MachineBootstrapDataReadyCondition, metav1.ConditionFalse, infrav1.MachineBootstrapSecretNotFoundReason)

	must(t, lab.StopDaemon(t.Context(), syscall.SIGKILL))
	s.expectCondition(kvm1, infrav1.ReadyCondition, metav1.ConditionFalse, infrav1.HostUnreachableReason, "Connected: ")
	s.expectCondition(green, infrav1.ReadyCondition, metav1.ConditionFalse, infrav1.ClusterNoHostReadyReason, "kvm1: ")
	s.expectCondition(running, infrav1.ReadyCondition, metav1.ConditionUnknown, infrav1.HostUnreachableReason)
	s.create(s.machineParts("green", "placed").secret)
	s.expectCondition(placed, infrav1.MachinePlacedCondition, metav1.ConditionUnknown, infrav1.HostUnreachableReason, "kvm1")
	unplaced := s.createMachine("green", "unplaced", emulated)
	s.expectCondition(unplaced, infrav1.MachinePlacedCondition, metav1.ConditionFalse, infrav1.MachineNoHostFitsReason, "kvm1: isn't ready: Connected: ")
	if s.refresh(running); running.Status.Domain.State != "Running" {
		t.Errorf("What the host said last is lost: %+v", running.Status.Domain)
	}
	s.delete(running)
	s.expectCondition(running, infrav1.DeletingCondition, metav1.ConditionTrue, infrav1.HostUnreachableReason, "kvm1")
	staysSo(t, "the finalizer is kept", func() error {
		return api.Get(t.Context(), client.ObjectKeyFromObject(running), running)
	})

	must(t, lab.StartDaemon(t.Context()))
	s.expectGone(running)
	s.expectNoTraces(green, "kvm1", uuidOf(running))
	for _, m := range []*infrav1.LibvirtMachine{placed, unplaced} {
		s.expectReady(m)
		s.expectAllThere(green, m)
	}
	s.expectReady(kvm1)
	s.expectReady(green)
}

// TestStartThatFails breaks a host so that no hypervisor can start there, and mends it.
func TestStartThatFails(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	lab := newLab(t)
	s.readyHost("kvm1", lab.URI())
	s.readyCluster("green", "10.20.0.0/27")
	logs := lab.Path("/var/log/libvirt/qemu")
	must(t, os.RemoveAll(logs))
	must(t, os.WriteFile(logs, nil, 0o600))
	m := s.createMachine("green", "green-a", emulated)
	s.expectCondition(m, infrav1.MachineDomainReadyCondition, metav1.ConditionFalse, infrav1.MachineStartFailedReason,
		"didn't start on host kvm1: ", "/var/log/libvirt/qemu")
	staysSo(t, "it isn't tried again at once", func() error {
		if tries := s.kvm("kvm1").Calls()["domainCreateWithFlags"]; tries != 1 {
			return fmt.Errorf("it was tried %d times", tries)
		}
		return nil
	})
	must(t, os.Remove(logs))
	must(t, os.Mkdir(logs, 0o700))
	s.expectReady(m)
}

// TestMachineGoesWithItsHost takes a host away by force, which is to say that it is gone for good.
func TestMachineGoesWithItsHost(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	kvm1 := s.readyHost("kvm1", testDriver(t))
	green := s.readyCluster("green", "10.20.0.0/27")
	m := s.readyMachine("green", "green-a")
	s.delete(kvm1)
	change(s, kvm1, func(h *infrav1.LibvirtHost) { h.Finalizers = nil })
	s.expectGone(kvm1)
	s.expectCondition(m, infrav1.ReadyCondition, metav1.ConditionFalse, infrav1.MachineHostNotFoundReason,
		"LibvirtHost kvm1 of spec.hostName doesn't exist", "delete the Machine if the host is gone for good")
	s.delete(m)
	s.expectGone(m)
	s.delete(green)
	s.expectGone(green)
}

// TestHostThatTheCacheLacks has the cache say that a host is gone which is there: nothing is given up for that.
func TestHostThatTheCacheLacks(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.readyHost("kvm1", testDriver(t))
	direct, err := client.NewWithWatch(apiConfig, client.Options{Scheme: scheme})
	must(t, err)
	behind := interceptor.NewClient(direct, interceptor.Funcs{
		Get: func(_ context.Context, _ client.WithWatch, key client.ObjectKey, _ client.Object, _ ...client.GetOption) error {
			return apierrors.NewNotFound(schema.GroupResource{Resource: "libvirthosts"}, key.Name)
		},
	})
	machines := &LibvirtMachineReconciler{Client: behind, APIReader: api, Hosts: s.hosts}
	scope := &machineScope{libvirtMachine: s.machineParts("green", "green-a").libvirtMachine}
	if err := machines.findHost(t.Context(), scope, "kvm1"); err != nil || scope.host == nil {
		t.Errorf("A machine finds its host: %v", err)
	}
	if err := machines.findHost(t.Context(), scope, "kvm2"); !errors.Is(err, errHostGone) {
		t.Errorf("A machine whose host is gone: %v", err)
	}
	clusters := &LibvirtClusterReconciler{Client: behind, APIReader: api, Hosts: s.hosts}
	if err := clusters.checkHostGone(t.Context(), s.namespace, "kvm1"); err == nil {
		t.Error("A cluster takes its host for gone")
	}
	must(t, clusters.checkHostGone(t.Context(), s.namespace, "kvm2"))
}

// TestDomainThatMayBeOnAHostOutOfReach has a domain leave its host without a trace while another host of the cluster can't
// be asked.
func TestDomainThatMayBeOnAHostOutOfReach(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.readyHost("kvm1", testDriver(t))
	kvm2 := s.readyHost("kvm2", testDriver(t))
	green := s.readyCluster("green", "10.20.0.0/27")
	m := s.readyMachine("green", "green-a", func(p *machineParts) { p.libvirtMachine.Spec.HostName = "kvm1" })
	change(s, kvm2, func(h *infrav1.LibvirtHost) { h.Spec.URI = "qemu+unix:///system?socket=/nonexistent/libvirt-sock" })
	s.expectCondition(kvm2, infrav1.HostConnectedCondition, metav1.ConditionFalse, infrav1.HostUnreachableReason)
	must(t, s.kvm("kvm1").DestroyDomain(t.Context(), uuidOf(m)))
	must(t, s.kvm("kvm1").UndefineDomain(t.Context(), uuidOf(m)))
	s.expectCondition(m, infrav1.MachineDomainReadyCondition, metav1.ConditionUnknown, infrav1.HostUnreachableReason,
		"isn't on host kvm1 any more", "isn't connected: kvm2")
	s.delete(m)
	s.expectGone(m)
	s.expectNoTraces(green, "kvm1", uuidOf(m))
}

// TestNetworkThatSomebodyRemoved has it made again, with the addresses that machines have.
func TestNetworkThatSomebodyRemoved(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.readyHost("kvm1", testDriver(t))
	green := s.readyCluster("green", "10.20.0.0/27")
	gone, m := s.readyMachine("green", "gone"), s.readyMachine("green", "green-a")
	s.delete(gone)
	s.expectGone(gone)
	before := internalIP(m)
	must(t, s.kvm("kvm1").DeleteNetwork(t.Context(), green.Spec.Network.UUID))
	eventually(t, "the address is reserved again", func() error {
		list, err := s.kvm("kvm1").Reservations(t.Context(), green.Spec.Network.UUID)
		if err == nil && len(list) != 1 {
			err = fmt.Errorf("the reservations are %v", list)
		}
		return err
	})
	s.expectReady(m)
	if after := internalIP(m); after != before {
		t.Errorf("Its address was %s and is %s", before, after)
	}
	s.expectAllThere(green, m)
}

// TestMigratedDomainIsFollowed moves a domain to another host, as an operator would.
func TestMigratedDomainIsFollowed(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.readyHost("kvm1", testDriver(t))
	s.readyHost("kvm2", testDriver(t))
	green := s.readyCluster("green", "10.20.0.0/27")
	m := s.readyMachine("green", "green-a", func(p *machineParts) { p.libvirtMachine.Spec.HostName = "kvm1" })
	uuid, address := uuidOf(m), internalIP(m)
	definition, err := s.kvm("kvm1").DomainXML(t.Context(), uuid)
	must(t, err)

	// The root disk of the test driver's other host has to be there by itself: nothing moves it.
	must(t, s.kvm("kvm2").DefineDomain(t.Context(), definition))
	must(t, s.kvm("kvm2").StartDomain(t.Context(), uuid))
	must(t, s.kvm("kvm1").DestroyDomain(t.Context(), uuid))
	must(t, s.kvm("kvm1").UndefineDomain(t.Context(), uuid))
	eventually(t, "the machine is on the other host", func() error {
		s.refresh(m)
		if m.Spec.HostName != "kvm2" || m.Spec.MigratedFrom != "kvm1" || m.Status.FailureDomain != "kvm2" {
			return fmt.Errorf("it is on %q, from %q, in %q", m.Spec.HostName, m.Spec.MigratedFrom, m.Status.FailureDomain)
		}
		return nil
	})
	s.expectReady(m)
	if uuidOf(m) != uuid || internalIP(m) != address {
		t.Errorf("It has the identity %s and the address %s, had %s and %s", uuidOf(m), internalIP(m), uuid, address)
	}
	if reserved := s.reservations(green, "kvm2")[network.MAC(uuid)]; reserved != address {
		t.Errorf("On the other host %q is reserved for it, want %s", reserved, address)
	}

	// A domain with its UUID but not its mark is nobody to follow.
	s.defineForeign("kvm1", "other", uuid)
	must(t, s.kvm("kvm1").StartDomain(t.Context(), uuid))
	must(t, s.kvm("kvm2").DestroyDomain(t.Context(), uuid))
	must(t, s.kvm("kvm2").UndefineDomain(t.Context(), uuid))
	s.expectCondition(m, infrav1.MachineDomainReadyCondition, metav1.ConditionFalse, infrav1.MachineDomainMissingReason, "gone from host kvm2")
	must(t, s.kvm("kvm1").DestroyDomain(t.Context(), uuid))
	must(t, s.kvm("kvm1").UndefineDomain(t.Context(), uuid))

	s.delete(m)
	s.expectGone(m)
	for _, hostName := range []string{"kvm1", "kvm2"} {
		s.expectNoTraces(green, hostName, uuid)
	}
}
