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
	"bufio"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/cluster-api/util/conditions"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/lab/privatehost"
)

const (
	// sickMachines are on the host that hangs, sickNewcomers are to be made there each time it does.
	sickMachines, sickNewcomers = 30, 10
	// rounds of wellMachines each are made on its neighbour in each of the two cases.
	rounds, wellMachines = 10, 10
	// slowdown is how much longer a machine may take beside a host that hangs.
	slowdown = 1.1
)

// TestHungHostDoesNotSlowItsNeighbour stops the daemon of a host.
func TestHungHostDoesNotSlowItsNeighbour(t *testing.T) {
	s := newScene(t)
	sick := newLab(t)
	keepDaemon(t, sick)
	kvm := s.readyHost("sick", sick.URI())
	s.compareNeighbours(kvm, func() (goOn func()) {
		must(t, sick.SignalDaemon(syscall.SIGSTOP))
		return func() { must(t, sick.SignalDaemon(syscall.SIGCONT)) }
	})
}

// keepDaemon starts the daemon of a host again whenever it crashes, as systemd does on a real host: libvirtd 9.0 may
// crash when it wakes to find that a client has left.
func keepDaemon(t *testing.T, lab *privatehost.Host) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var kept sync.WaitGroup
	kept.Go(func() {
		for tick := time.NewTicker(500 * time.Millisecond); ; {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if err := lab.SignalDaemon(0); !errors.Is(err, privatehost.ErrNotRunning) {
				continue
			}
			t.Logf("The daemon of the host crashed: starting it again")
			if err := lab.StartDaemon(ctx); err != nil {
				t.Errorf("Starting the daemon of the host again: %v", err)
			}
		}
	})
	t.Cleanup(func() {
		cancel()
		kept.Wait()
	})
}

// TestHungPoolDoesNotSlowANeighbour freezes the filesystem under the pool of a host's disks. The daemon answers all
// along; only what it writes there never ends, as with a file server that is gone.
func TestHungPoolDoesNotSlowANeighbour(t *testing.T) {
	s := newScene(t)
	sick := newLab(t)
	freeze := freezablePool(t, sick, "slow")
	kvm := s.readyHost("sick", sick.URI(), func(h *infrav1.LibvirtHost) { h.Spec.Storage.DiskPool = "slow" })
	s.compareNeighbours(kvm, freeze)
}

// freezablePool gives a host a pool of a filesystem of its own. What the returned function freezes, what that returns
// thaws.
func freezablePool(t *testing.T, lab *privatehost.Host, name string) (freeze func() (thaw func())) {
	t.Helper()
	dir, disk := "/var/lib/libvirt/"+name, "/var/lib/libvirt/"+name+".disk"
	inside(t, lab, fmt.Sprintf("mkdir %[1]s && truncate -s 200G %[2]s && mkfs.ext4 -q -O ^has_journal -E nodiscard %[2]s && "+
		"mount -o loop,noinit_itable %[2]s %[1]s && "+
		"virsh pool-define-as %[3]s dir --target %[1]s", dir, disk, name))
	return func() func() {
		t.Helper()
		// Nothing can kill who waits for a frozen filesystem. So the one who thaws it lives outside the host, and does it
		// when its input ends, be it by the death of this process.
		mounts := "--mount=" + filepath.Join(filepath.Dir(lab.Netns()), "mnt")
		keeper := exec.Command("nsenter", mounts, "sh", "-c", "fsfreeze --freeze "+dir+" && echo frozen; cat; fsfreeze --unfreeze "+dir)
		input, err := keeper.StdinPipe()
		must(t, err)
		output, err := keeper.StdoutPipe()
		must(t, err)
		must(t, keeper.Start())
		thaw := sync.OnceFunc(func() {
			input.Close()
			if err := keeper.Wait(); err != nil {
				t.Errorf("Thawing %s: %v", dir, err)
			}
		})
		t.Cleanup(thaw)
		if line, err := bufio.NewReader(output).ReadString('\n'); err != nil {
			t.Fatalf("Freezing %s: %q, %v", dir, line, err)
		}
		return thaw
	}
}

// compareNeighbours makes machines on a host beside one named sick, in turns while that hangs and while it doesn't, and
// compares how long they take. The machines of the other are reconciled all the time, in both cases, so that a difference
// comes from the host and not from the test.
func (s *scene) compareNeighbours(sick *infrav1.LibvirtHost, hang func() (goOn func())) {
	t := s.t
	t.Helper()
	s.readyHost("well", newLab(t).URI())
	s.readyCluster("green", "10.20.0.0/24")
	machines := make([]*infrav1.LibvirtMachine, 0, sickMachines)
	for k := range sickMachines {
		machines = append(machines, s.createMachine("green", fmt.Sprintf("sick-%d", k), emulated, onHost(sick.Name)))
	}
	for _, m := range machines {
		s.expectReady(m)
	}

	var beside, alone []time.Duration
	for round := range rounds {
		stop := s.disturb(machines)
		alone = append(alone, s.timeMachines(fmt.Sprintf("alone-%d", round))...)
		stop()

		goOn := hang()
		var newcomers []*infrav1.LibvirtMachine
		for k := range sickNewcomers {
			newcomers = append(newcomers, s.createMachine("green", fmt.Sprintf("new-%d-%d", round, k), emulated, onHost(sick.Name)))
		}
		for _, m := range newcomers {
			eventually(t, m.Name+" has been tried", func() error {
				if err := api.Get(t.Context(), client.ObjectKeyFromObject(m), m); err != nil {
					return err
				}
				if conditions.Get(m, infrav1.MachinePlacedCondition) == nil {
					return errors.New("it has no condition")
				}
				return nil
			})
		}
		stop = s.disturb(machines)
		beside = append(beside, s.timeMachines(fmt.Sprintf("beside-%d", round))...)
		stop()
		for _, m := range newcomers {
			if s.refresh(m); conditions.IsTrue(m, infrav1.ReadyCondition) {
				t.Errorf("%s was made on a host that hangs", m.Name)
			}
		}
		goOn()
		resumed := time.Now()
		s.expectReady(sick)
		for _, m := range slices.Concat(machines, newcomers) {
			s.expectReady(m)
		}
		t.Logf("Round %d: all %d machines of the host that hung are ready %s after it went on", round,
			len(machines)+len(newcomers), time.Since(resumed).Round(time.Millisecond))
		for _, m := range newcomers {
			s.delete(m)
		}
		for _, m := range newcomers {
			s.expectGone(m)
		}
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
	arrivals, stop := s.arrivals()
	defer stop()
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
		case ready := <-arrivals:
			if start, ours := started[ready.name]; ours {
				took[ready.name] = ready.at.Sub(start)
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

// arrival is when a machine was first seen to be ready.
type arrival struct {
	name string
	at   time.Time
}

// arrivals tells of each machine of the scene that is or becomes ready, once, until it is stopped. A watch that the API
// server ends, as it does when a busy machine is slow to read, is begun anew.
func (s *scene) arrivals() (found <-chan arrival, stop func()) {
	s.t.Helper()
	watcher, err := client.NewWithWatch(apiConfig, client.Options{Scheme: scheme})
	must(s.t, err)
	ctx, cancel := context.WithCancel(s.t.Context())
	ready := make(chan arrival, 1000) // more than there are machines
	go func() {
		seen := map[string]bool{}
		for ; ctx.Err() == nil; time.Sleep(10 * time.Millisecond) {
			changes, err := watcher.Watch(ctx, &infrav1.LibvirtMachineList{}, client.InNamespace(s.namespace))
			if err != nil {
				continue
			}
			for event := range changes.ResultChan() {
				m, ok := event.Object.(*infrav1.LibvirtMachine)
				if ok && !seen[m.Name] && conditions.IsTrue(m, infrav1.ReadyCondition) {
					seen[m.Name] = true
					ready <- arrival{m.Name, time.Now()}
				}
			}
		}
	}()
	return ready, cancel
}

// percentile is the least of times that p percent of them don't exceed.
func percentile(times []time.Duration, p int) time.Duration {
	sorted := slices.Sorted(slices.Values(times))
	return sorted[(len(sorted)*p+99)/100-1]
}
