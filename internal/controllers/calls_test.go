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
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/cluster-api/util/conditions"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/host"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/lab/privatehost"
)

// The budget of calls to a host. It doesn't depend on what else is on the host.
const (
	maxCallsToCreate = 8
	maxCallsToDelete = 6
)

// TestCallsOfAMachine counts the calls for one machine, once the manager knows the host, both in the manager and in the
// daemon's own log.
func TestCallsOfAMachine(t *testing.T) {
	t.Parallel()
	for _, others := range []int{0, 200} {
		t.Run(fmt.Sprintf("beside %d volumes", others), func(t *testing.T) {
			t.Parallel()
			s := newScene(t)
			lab := newLab(t, func(o *privatehost.Options) { o.Libvirtd = []string{privatehost.CallLog} })
			for k := range others {
				must(t, os.WriteFile(lab.Path(fmt.Sprintf("/var/lib/libvirt/images/other-%d", k)), []byte("x"), 0o600))
			}
			s.readyHost("kvm1", lab.URI())
			green := s.readyCluster("green", "10.20.0.0/27")
			s.readyMachine("green", "first", emulated)
			kvm := s.kvm("kvm1")

			seen, logged := settledCalls(t, kvm), daemonCalls(t, lab)
			m := s.readyMachine("green", "second", emulated)
			spent(t, "Creating", maxCallsToCreate, seen, settledCalls(t, kvm), logged, daemonCalls(t, lab))

			seen, logged = settledCalls(t, kvm), daemonCalls(t, lab)
			s.delete(m)
			s.expectGone(m)
			spent(t, "Deleting", maxCallsToDelete, seen, settledCalls(t, kvm), logged, daemonCalls(t, lab))
			s.expectNoTraces(green, "kvm1", uuidOf(m))
		})
	}
}

// settledCalls are the calls to a host so far, once no more come. Pings aren't among them: they go on as long as the
// connection does.
func settledCalls(t *testing.T, kvm *host.Host) map[string]uint64 {
	t.Helper()
	var calls map[string]uint64
	eventually(t, "the calls come to an end", func() error {
		before := withoutPings(kvm.Calls())
		time.Sleep(1500 * time.Millisecond)
		calls = withoutPings(kvm.Calls())
		if made := difference(before, calls); len(made) > 0 {
			return fmt.Errorf("made %v", made)
		}
		return nil
	})
	return calls
}

func withoutPings(calls map[string]uint64) map[string]uint64 {
	delete(calls, "connectGetLibVersion")
	return calls
}

// difference lists the calls that were made between two counts.
func difference(before, after map[string]uint64) []string {
	var made []string
	for procedure, count := range after {
		for range count - before[procedure] {
			made = append(made, procedure)
		}
	}
	slices.Sort(made)
	return made
}

// daemonCalls are the calls that a daemon has logged, less pings and what libvirt's client asks by itself.
func daemonCalls(t *testing.T, lab *privatehost.Host) []string {
	t.Helper()
	calls, err := lab.Calls()
	must(t, err)
	return slices.DeleteFunc(calls, func(call string) bool {
		return strings.HasSuffix(call, "ConnectGetLibVersion") || strings.HasSuffix(call, "ConnectSupportsFeature")
	})
}

func spent(t *testing.T, doing string, limit int, before, after map[string]uint64, loggedBefore, loggedAfter []string) {
	t.Helper()
	made, logged := difference(before, after), loggedAfter[len(loggedBefore):]
	t.Logf("%s a machine: %d calls, %v; the daemon saw %d, %v", doing, len(made), made, len(logged), logged)
	if len(made) > limit || len(logged) > limit {
		t.Errorf("That is more than %d", limit)
	}
}

// TestIdleMachineCausesNoCalls reconciles everything again and again while nothing happens.
func TestIdleMachineCausesNoCalls(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	lab := newLab(t)
	kvm1 := s.readyHost("kvm1", lab.URI())
	green := s.readyCluster("green", "10.20.0.0/27")
	m := s.readyMachine("green", "green-a", emulated)
	kvm := s.kvm("kvm1")
	before := settledCalls(t, kvm)
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(time.Second) {
		touch(s, kvm1)
		touch(s, green)
		touch(s, m)
	}
	if made := difference(before, withoutPings(kvm.Calls())); len(made) > 0 {
		t.Errorf("It caused %v", made)
	}
}

// TestCrashIsReportedAndMendedByItself kills the hypervisor of a machine.
func TestCrashIsReportedAndMendedByItself(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	lab := newLab(t)
	s.readyHost("kvm1", lab.URI())
	s.readyCluster("green", "10.20.0.0/27")
	m := s.readyMachine("green", "green-a", emulated)
	settledCalls(t, s.kvm("kvm1"))

	watcher, err := client.NewWithWatch(apiConfig, client.Options{Scheme: scheme})
	must(t, err)
	changes, err := watcher.Watch(t.Context(), &infrav1.LibvirtMachineList{}, client.InNamespace(s.namespace))
	must(t, err)
	defer changes.Stop()
	pid := strings.TrimSpace(string(file(t, lab.Path("/run/libvirt/qemu/"+m.Status.Domain.Name+".pid"))))
	killed := time.Now()
	if output, err := lab.Inside(t.Context(), "kill", "-9", pid).CombinedOutput(); err != nil {
		t.Fatalf("Killing the hypervisor: %v: %s", err, output)
	}
	for timeout := time.After(patience); ; {
		select {
		case event := <-changes.ResultChan():
			ready := conditions.Get(event.Object.(*infrav1.LibvirtMachine), infrav1.ReadyCondition)
			if ready.Status == metav1.ConditionTrue {
				continue
			}
			took := time.Since(killed)
			t.Logf("From the kill to %s=%s %s it took %s: %s", ready.Type, ready.Status, ready.Reason, took.Round(time.Millisecond), ready.Message)
			if took > time.Second || ready.Status != metav1.ConditionFalse || ready.Reason != infrav1.MachineDomainCrashedReason {
				t.Errorf("Not within a second, or for another reason")
			}
		case <-timeout:
			t.Fatalf("Nothing was reported\n%s", describe(m))
		}
		break
	}
	s.expectCondition(m, infrav1.MachineDomainReadyCondition, metav1.ConditionFalse, infrav1.MachineDomainCrashedReason,
		"domain "+m.Status.Domain.Name+" is not running", "it is started again by itself")
	s.expectReady(m)
	if took := time.Since(killed); took < firstRestart {
		t.Errorf("It was started again after %s already", took)
	}
	if dom, err := s.kvm("kvm1").Domain(uuidOf(m)); err != nil || dom.State != host.Running {
		t.Errorf("The domain is %+v, %v", dom, err)
	}
}
