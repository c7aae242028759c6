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
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/cluster-api/util/conditions"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/host"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/lab/privatehost"
)

func gracefully(seconds int32) func(*machineParts) {
	return func(p *machineParts) {
		p.libvirtMachine.Spec.Shutdown = infrav1.Shutdown{Mode: infrav1.ShutdownGraceful, TimeoutSeconds: seconds}
	}
}

func restart(policy infrav1.RestartPolicy) func(*machineParts) {
	return func(p *machineParts) { p.libvirtMachine.Spec.RestartPolicy = policy }
}

// TestShutdownEndsWithTheGuest has the guests of the test driver shut down at once: an event tells, long before their time
// is up.
func TestShutdownEndsWithTheGuest(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.readyHost("kvm1", testDriver(t))
	green := s.readyCluster("green", "10.20.0.0/27")
	m := s.readyMachine("green", "green-a", gracefully(3600))
	s.delete(m)
	s.expectGone(m)
	s.expectNoTraces(green, "kvm1", uuidOf(m))

	// What stands still can't shut down, and isn't waited for.
	stopped := s.readyMachine("green", "green-b", gracefully(3600), restart(infrav1.RestartNever))
	must(t, s.kvm("kvm1").DestroyDomain(t.Context(), uuidOf(stopped)))
	s.expectCondition(stopped, infrav1.MachineDomainReadyCondition, metav1.ConditionFalse, infrav1.MachineDomainShutoffReason)
	s.delete(stopped)
	s.expectGone(stopped)
}

// TestShutdownHasAnEnd has a guest that doesn't listen: it has no operating system.
func TestShutdownHasAnEnd(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	lab := newLab(t)
	s.readyHost("kvm1", lab.URI())
	green := s.readyCluster("green", "10.20.0.0/27")
	const seconds = 8
	m := s.readyMachine("green", "green-a", emulated, gracefully(seconds))
	began := time.Now()
	s.delete(m)
	s.expectCondition(m, infrav1.DeletingCondition, metav1.ConditionTrue, infrav1.MachineShuttingDownReason,
		"the guest was asked to shut down", "spec.shutdown.timeoutSeconds")
	if dom, err := s.kvm("kvm1").Domain(uuidOf(m)); err != nil || dom.State != host.Running {
		t.Errorf("The domain is %+v, %v", dom, err)
	}
	if calls := s.kvm("kvm1").Calls()["domainShutdownFlags"]; calls != 1 {
		t.Errorf("It was asked %d times", calls)
	}
	s.expectGone(m)
	if took := time.Since(began); took < seconds*time.Second {
		t.Errorf("Its plug was pulled after %s already", took)
	}
	s.expectNoTraces(green, "kvm1", uuidOf(m))
}

// killHypervisor kills the QEMU of a machine.
func killHypervisor(t *testing.T, lab *privatehost.Host, m *infrav1.LibvirtMachine) {
	t.Helper()
	inside(t, lab, "kill -9 "+strings.TrimSpace(string(file(t, lab.Path("/run/libvirt/qemu/"+m.Status.Domain.Name+".pid")))))
}

// TestRestartPolicies stops real domains in two ways, under each policy.
func TestRestartPolicies(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	lab := newLab(t)
	s.readyHost("kvm1", lab.URI())
	s.readyCluster("green", "10.20.0.0/27")
	always := s.readyMachine("green", "always", emulated)
	onFailure := s.readyMachine("green", "on-failure", emulated, restart(infrav1.RestartOnFailure))
	never := s.readyMachine("green", "never", emulated, restart(infrav1.RestartNever))
	for m, want := range map[*infrav1.LibvirtMachine]string{always: "enable", onFailure: "enable", never: "disable"} {
		if got := inside(t, lab, "virsh dominfo "+uuidOf(m)); !strings.Contains(strings.Join(strings.Fields(got), " "), "Autostart: "+want) {
			t.Errorf("%s doesn't have autostart %sd:\n%s", m.Name, want, got)
		}
	}

	for _, m := range []*infrav1.LibvirtMachine{always, onFailure, never} {
		killHypervisor(t, lab, m)
	}
	s.expectCondition(never, infrav1.ReadyCondition, metav1.ConditionFalse, infrav1.MachineDomainCrashedReason,
		"spec.restartPolicy is Never, so it stays like this: start it with virsh start")
	for _, m := range []*infrav1.LibvirtMachine{always, onFailure} {
		s.expectCondition(m, infrav1.ReadyCondition, metav1.ConditionFalse, infrav1.MachineDomainCrashedReason, "it is started again by itself")
	}
	for _, m := range []*infrav1.LibvirtMachine{always, onFailure} {
		s.expectReady(m)
		// What happened can still be seen.
		s.expectCondition(m, infrav1.MachineDomainReadyCondition, metav1.ConditionTrue, infrav1.MachineDomainRunningReason,
			"started again once, last at ", "(Crashed)")
		// Conditions are written before the rest of the status.
		eventually(t, m.Name+" reports that it was started again", func() error {
			if s.refresh(m); m.Status.Power.Restarts != 1 || m.Status.Power.LastStopReason != "Crashed" {
				return fmt.Errorf("it reports %+v", m.Status.Power)
			}
			return nil
		})
	}

	for _, m := range []*infrav1.LibvirtMachine{always, onFailure} {
		inside(t, lab, "virsh destroy "+uuidOf(m))
	}
	s.expectCondition(onFailure, infrav1.ReadyCondition, metav1.ConditionFalse, infrav1.MachineDomainShutoffReason,
		"Shutoff (Destroyed)", "spec.restartPolicy is OnFailure, so it stays like this")
	s.expectCondition(always, infrav1.MachineDomainReadyCondition, metav1.ConditionTrue, infrav1.MachineDomainRunningReason, "started again 2 times", "(Destroyed)")
	for _, m := range []*infrav1.LibvirtMachine{onFailure, never} {
		if dom, err := s.kvm("kvm1").Domain(uuidOf(m)); err != nil || dom.State != host.Shutoff {
			t.Errorf("The domain of %s is %+v, %v", m.Name, dom, err)
		}
	}
	// Somebody may start it.
	inside(t, lab, "virsh start "+uuidOf(never))
	s.expectReady(never)
}

// TestBackOffSurvivesTheManager has a domain stop that another manager started again five times lately, by what is written.
func TestBackOffSurvivesTheManager(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.readyHost("kvm1", testDriver(t))
	s.readyCluster("green", "10.20.0.0/27")
	m := s.readyMachine("green", "green-a")
	changeStatus(s, m, func(m *infrav1.LibvirtMachine) {
		m.Status.Power = infrav1.PowerStatus{Restarts: 5, LastRestartTime: metav1.Now(), LastStopReason: "Crashed"}
	})
	s.expectCondition(m, infrav1.MachineDomainReadyCondition, metav1.ConditionTrue, infrav1.MachineDomainRunningReason, "started again 5 times")
	must(t, s.kvm("kvm1").DestroyDomain(t.Context(), uuidOf(m)))
	s.expectCondition(m, infrav1.MachineDomainReadyCondition, metav1.ConditionFalse, infrav1.MachineDomainShutoffReason,
		"it is started again by itself, as it was 5 times already")
	for end := time.Now().Add(firstRestart + moment); time.Now().Before(end); time.Sleep(500 * time.Millisecond) {
		if dom, err := s.kvm("kvm1").Domain(uuidOf(m)); err != nil || dom.State != host.Shutoff {
			t.Fatalf("The domain is %+v, %v, as if it had stopped for the first time", dom, err)
		}
	}
	// Long ago is as good as never.
	changeStatus(s, m, func(m *infrav1.LibvirtMachine) {
		m.Status.Power.LastRestartTime = metav1.NewTime(time.Now().Add(-2 * steady))
	})
	must(t, s.kvm("kvm1").StartDomain(t.Context(), uuidOf(m)))
	eventually(t, "it is forgotten", func() error {
		s.refresh(m)
		if m.Status.Power.Restarts != 0 || conditions.GetMessage(m, infrav1.MachineDomainReadyCondition) != "" {
			return fmt.Errorf("it reports %+v\n%s", m.Status.Power, describe(m))
		}
		return nil
	})
}

// writerImage is a disk that boots into a program of 16-bit code, which writes a cluster after the other, from 1 MiB to
// 96 MiB, and then begins again.
func writerImage() []byte {
	code := []byte{
		0x31, 0xc0, // xor ax, ax
		0x8e, 0xd8, // mov ds, ax
		0x8e, 0xd0, // mov ss, ax
		0xbc, 0x00, 0x7c, // mov sp, 0x7c00
		0xbe, 0x40, 0x7c, // next: mov si, packet
		0xb8, 0x00, 0x43, // mov ax, 0x4300 (extended write, to the drive in dl)
		0xcd, 0x13, // int 0x13
		0x66, 0x81, 0x06, 0x48, 0x7c, 0x80, 0x00, 0x00, 0x00, // add dword [packet+8], 128
		0x66, 0x81, 0x3e, 0x48, 0x7c, 0x00, 0x00, 0x03, 0x00, // cmp dword [packet+8], 0x30000
		0x72, 0xe4, // jb next
		0x66, 0xc7, 0x06, 0x48, 0x7c, 0x00, 0x08, 0x00, 0x00, // mov dword [packet+8], 0x800
		0xeb, 0xd9, // jmp next
	}
	disk := make([]byte, 1<<20)
	copy(disk, code)
	// The packet: its size, 64 sectors, from 0000:8000, to sector 0x800.
	copy(disk[0x40:], []byte{16, 0, 64, 0, 0x00, 0x80, 0, 0, 0x00, 0x08, 0, 0, 0, 0, 0, 0})
	disk[510], disk[511] = 0x55, 0xaa
	return disk
}

// TestFullPoolStopsADomain has a guest fill the pool of its disk. It is resumed once there is room, and once only.
func TestFullPoolStopsADomain(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	lab := newLab(t)
	must(t, os.WriteFile(lab.Path("/var/lib/libvirt/images/writer"), writerImage(), 0o600))
	const dir = "/var/lib/libvirt/small"
	inside(t, lab, "mkdir "+dir+" && virsh pool-define-as small dir --target "+dir)
	s.readyHost("kvm1", lab.URI(), func(h *infrav1.LibvirtHost) { h.Spec.Storage.DiskPool = "small" })
	// Placement knows what the pool had when it was looked at last.
	inside(t, lab, "mount -t tmpfs -o size=32m tmpfs "+dir)
	s.readyCluster("green", "10.20.0.0/27")
	m := s.createMachine("green", "green-a", emulated, func(p *machineParts) { p.libvirtMachine.Spec.Image.Volume = "writer" })

	s.expectCondition(m, infrav1.MachineDomainReadyCondition, metav1.ConditionFalse, infrav1.MachineDomainIOErrorReason,
		"stands still because the host's storage failed a write: make room in storage pool small, and it is resumed by itself")
	uuid, kvm := uuidOf(m), s.kvm("kvm1")
	expectPaused := func() {
		t.Helper()
		if dom, err := kvm.Domain(uuid); err != nil || dom.State != host.Paused || dom.Reason != host.ReasonIOError {
			t.Fatalf("The domain is %+v, %v", dom, err)
		}
	}
	expectPaused()
	if resumes := kvm.Calls()["domainResume"]; resumes != 0 {
		t.Fatalf("It was resumed %d times without any room", resumes)
	}

	inside(t, lab, "mount -o remount,size=64m "+dir)
	if err := within(2*noSpaceInterval, func() error {
		s.refresh(m)
		message := conditions.GetMessage(m, infrav1.MachineDomainReadyCondition)
		if m.Status.Power.ResumeTime.IsZero() || !strings.Contains(message, "stands still because the host's storage failed a write again, after it was resumed at ") {
			return errors.New(describe(m))
		}
		return nil
	}); err != nil {
		t.Fatalf("It didn't fill the pool a second time: %v", err)
	}
	// Not even with room: it may be a disk that claims to have some.
	inside(t, lab, "mount -o remount,size=256m "+dir)
	for end := time.Now().Add(noSpaceInterval + moment); time.Now().Before(end); time.Sleep(time.Second) {
		touch(s, m)
		expectPaused()
	}
	if resumes := kvm.Calls()["domainResume"]; resumes != 1 {
		t.Fatalf("It was resumed %d times", resumes)
	}
	inside(t, lab, "virsh resume "+uuid)
	s.expectReady(m)
	s.expectCondition(m, infrav1.MachineDomainReadyCondition, metav1.ConditionTrue, infrav1.MachineDomainRunningReason, "resumed at ")
	staysSo(t, "the domain runs", func() error {
		if dom, err := kvm.Domain(uuid); err != nil || dom.State != host.Running {
			return fmt.Errorf("it is %+v, %w", dom, err)
		}
		return nil
	})
	s.delete(m)
	s.expectGone(m)
}

func TestRestartedByPolicy(t *testing.T) {
	crashed := host.Domain{State: host.Shutoff, Reason: host.ReasonCrashed}
	panicked := host.Domain{State: host.Crashed, Reason: "Panicked"}
	unknown := host.Domain{State: host.Shutoff, Reason: host.ReasonUnknown}
	inside := host.Domain{State: host.Shutoff, Reason: host.ReasonShutdown}
	pulled := host.Domain{State: host.Shutoff, Reason: host.ReasonDestroyed}
	for policy, want := range map[infrav1.RestartPolicy][]bool{
		"":                       {true, true, true, true, true},
		infrav1.RestartAlways:    {true, true, true, true, true},
		infrav1.RestartOnFailure: {true, true, true, false, false},
		infrav1.RestartNever:     {false, false, false, false, false},
	} {
		for i, dom := range []host.Domain{crashed, panicked, unknown, inside, pulled} {
			if got := restarted(policy, dom); got != want[i] {
				t.Errorf("policy %q, %s (%s): got %t", policy, dom.State, dom.Reason, got)
			}
		}
	}
}
