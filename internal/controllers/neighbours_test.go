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
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/cluster-api/util/conditions"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
)

const (
	// sickMachines are on the host that hangs, sickNewcomers are to be made there while it does.
	sickMachines, sickNewcomers = 30, 20
	// rounds of wellMachines each are made on its neighbour in each of the two cases.
	rounds, wellMachines = 10, 10
	// slowdown is how much longer a machine may take beside a host that hangs.
	slowdown = 1.1
)

// TestHungHostDoesNotSlowItsNeighbour makes machines on one of two hosts, in turns while the daemon of the other is
// stopped and while it isn't, and compares how long they take. The machines of the other are reconciled all the time, in
// both cases, so that a difference comes from the daemon and not from the test.
func TestHungHostDoesNotSlowItsNeighbour(t *testing.T) {
	s := newScene(t)
	sick, well := newLab(t), newLab(t)
	sickHost := s.readyHost("sick", sick.URI())
	s.readyHost("well", well.URI())
	s.readyCluster("green", "10.20.0.0/24")
	machines := make([]*infrav1.LibvirtMachine, 0, sickMachines+sickNewcomers)
	for k := range sickMachines {
		machines = append(machines, s.createMachine("green", fmt.Sprintf("sick-%d", k), emulated, onHost("sick")))
	}
	for _, m := range machines {
		s.expectReady(m)
	}

	var beside, alone []time.Duration
	for round := range rounds {
		stop := s.disturb(machines)
		alone = append(alone, s.timeMachines(fmt.Sprintf("alone-%d", round))...)
		stop()

		must(t, sick.SignalDaemon(syscall.SIGSTOP))
		if round == 0 {
			for k := range sickNewcomers {
				machines = append(machines, s.createMachine("green", fmt.Sprintf("new-%d", k), emulated, onHost("sick")))
			}
			for _, m := range machines[sickMachines:] {
				eventually(t, m.Name+" has been tried", func() error {
					if err := api.Get(t.Context(), client.ObjectKeyFromObject(m), m); err != nil {
						return err
					}
					if conditions.Get(m, infrav1.ReadyCondition) == nil {
						return errors.New("it has no condition")
					}
					return nil
				})
			}
		}
		stop = s.disturb(machines)
		beside = append(beside, s.timeMachines(fmt.Sprintf("beside-%d", round))...)
		stop()
		must(t, sick.SignalDaemon(syscall.SIGCONT))
		resumed := time.Now()
		s.expectReady(sickHost)
		for _, m := range machines {
			s.expectReady(m)
		}
		t.Logf("Round %d: all %d machines of the host that hung are ready %s after it went on", round, len(machines),
			time.Since(resumed).Round(time.Millisecond))
	}
	for _, p := range []int{50, 99} {
		ratio := float64(percentile(beside, p)) / float64(percentile(alone, p))
		t.Logf("p%d of %d machines each: %s beside a host that hangs, %s otherwise: %.3f times", p, len(alone),
			percentile(beside, p).Round(time.Millisecond), percentile(alone, p).Round(time.Millisecond), ratio)
		if ratio > slowdown {
			t.Errorf("That is more than %v times", slowdown)
		}
	}
}

func onHost(name string) func(*machineParts) {
	return func(p *machineParts) { p.libvirtMachine.Spec.HostName = name }
}

// disturb has machines reconciled once a second each until the returned function is called.
func (s *scene) disturb(machines []*infrav1.LibvirtMachine) (stop func()) {
	s.t.Helper()
	ended := make(chan struct{})
	var wg sync.WaitGroup
	for _, m := range machines {
		object := &infrav1.LibvirtMachine{ObjectMeta: metav1.ObjectMeta{Namespace: m.Namespace, Name: m.Name}}
		wg.Go(func() {
			for tick := time.NewTicker(time.Second); ; {
				select {
				case <-ended:
					return
				case <-tick.C:
					patch := fmt.Sprintf(`{"metadata":{"annotations":{"test.example.org/touched":%q}}}`, time.Now().Format(time.RFC3339Nano))
					if err := api.Patch(s.t.Context(), object, client.RawPatch("application/merge-patch+json", []byte(patch))); err != nil {
						s.t.Errorf("Touching %s: %v", object.Name, err)
						return
					}
				}
			}
		})
	}
	return func() {
		close(ended)
		wg.Wait()
	}
}

// timeMachines makes machines on the host named well, all at once, removes them again, and returns how long each took
// to be ready.
func (s *scene) timeMachines(name string) []time.Duration {
	s.t.Helper()
	watcher, err := client.NewWithWatch(apiConfig, client.Options{Scheme: scheme})
	must(s.t, err)
	changes, err := watcher.Watch(s.t.Context(), &infrav1.LibvirtMachineList{}, client.InNamespace(s.namespace))
	must(s.t, err)
	defer changes.Stop()
	started := map[string]time.Time{}
	var machines []*infrav1.LibvirtMachine
	for k := range wellMachines {
		machine := fmt.Sprintf("%s-%d", name, k)
		started[machine] = time.Now()
		machines = append(machines, s.createMachine("green", machine, emulated, onHost("well")))
	}
	took := map[string]time.Duration{}
	for timeout := time.After(patience); len(took) < wellMachines; {
		select {
		case event := <-changes.ResultChan():
			m, ok := event.Object.(*infrav1.LibvirtMachine)
			if !ok {
				s.t.Fatalf("The watch ended: %v", event.Object)
			}
			if start, ours := started[m.Name]; ours && took[m.Name] == 0 && conditions.IsTrue(m, infrav1.ReadyCondition) {
				took[m.Name] = time.Since(start)
			}
		case <-timeout:
			s.t.Fatalf("Of %d machines %d are ready after %s", wellMachines, len(took), patience)
		}
	}
	var times []time.Duration
	for _, m := range machines {
		times = append(times, took[m.Name])
		s.delete(m)
	}
	for _, m := range machines {
		s.expectGone(m)
	}
	return times
}

// percentile is the least of times that p percent of them don't exceed.
func percentile(times []time.Duration, p int) time.Duration {
	sorted := slices.Sorted(slices.Values(times))
	return sorted[(len(sorted)*p+99)/100-1]
}
