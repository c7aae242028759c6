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
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/domain"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/lab/privatehost"
)

// killer kills the daemon of a host at one of the writes to it, while the call is under way or when it has been made and
// its answer hasn't arrived.
type killer struct {
	t          *testing.T
	lab        *privatehost.Host
	answerLost bool

	mu sync.Mutex
	// left are the writes up to the fatal one, 0 when none will be.
	left   int
	killed chan string
}

// arm lets the given write, counted from 1, be the one. What the channel gives is its name, once the daemon is dead.
func (k *killer) arm(write int) (killed <-chan string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.left, k.killed = write, make(chan string, 1)
	return k.killed
}

func (k *killer) hits(procedure string) (killed chan<- string, hit bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.left == 0 || !libvirtWrites[procedure] {
		return nil, false
	}
	k.left--
	return k.killed, k.left == 0
}

// libvirt is a host.Intercept.
func (k *killer) libvirt(procedure string, call func() error) error {
	killed, hit := k.hits(procedure)
	if !hit {
		return call()
	}
	var wg sync.WaitGroup
	kill := func() {
		if err := k.lab.StopDaemon(k.t.Context(), syscall.SIGKILL); err != nil {
			k.t.Errorf("Killing the daemon: %v", err)
		}
		killed <- procedure
	}
	if !k.answerLost {
		wg.Go(kill)
		defer wg.Wait()
		return call()
	}
	if err := call(); err != nil {
		k.t.Errorf("%s: %v", procedure, err)
	}
	kill()
	return call() // on the connection that broke: its error is what a caller gets whose answer is lost
}

// TestDaemonDiesAtAnyWrite kills the daemon at each write of the making and of the removal of a machine. Whether the write
// was made nobody learns; the machine is made once all the same, and removed without a trace.
func TestDaemonDiesAtAnyWrite(t *testing.T) {
	t.Parallel()
	for _, answerLost := range []bool{false, true} {
		t.Run(map[bool]string{false: "during the call", true: "between call and answer"}[answerLost], func(t *testing.T) {
			t.Parallel()
			s := newSceneOf(t, "", nil)
			s.watchFilter = s.namespace
			k := &killer{t: t, lab: newLab(t), answerLost: answerLost}
			s.startOwnManager(k.libvirt, nil)
			kvm1 := s.readyHost("kvm1", k.lab.URI())
			c := &crash{scene: s, lab: k.lab, green: s.readyCluster("green", "10.50.0.0/29")}
			// restarted starts the daemon again if it was killed before done finds nothing to complain of any more.
			var points []string
			restarted := func(killed <-chan string, done func() bool) bool {
				t.Helper()
				for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
					finished := done()
					select {
					case procedure := <-killed:
						points = append(points, procedure)
						must(t, k.lab.StartDaemon(t.Context()))
						return true
					default:
					}
					if finished {
						k.arm(0)
						return false
					}
					if time.Now().After(end) {
						t.Fatalf("Neither was the daemon killed nor the work done within %s", patience)
					}
				}
			}
			for write, more := 1, true; more; write++ {
				began := time.Now()
				killed := k.arm(write)
				m := s.createMachine("green", fmt.Sprintf("green-%d", write), emulated)
				more = restarted(killed, func() bool { s.refresh(m); return provisioned(m) })
				s.expectReady(m)
				c.expectOneDomain(m)
				expectFiles(t, k.lab, "images", imageVolume, domain.RootVolumeName(uuidOf(m)))
				expectFiles(t, k.lab, infrav1.DefaultSeedPool, domain.SeedVolumeName(uuidOf(m)))
				made := time.Now()

				killed = k.arm(write)
				s.delete(m)
				removed := func() bool {
					return apierrors.IsNotFound(api.Get(t.Context(), client.ObjectKeyFromObject(m), m))
				}
				more = restarted(killed, removed) || more
				s.expectGone(m)
				s.expectReady(kvm1)
				s.expectNoTraces(c.green, "kvm1", uuidOf(m))
				t.Logf("Write %d: made within %s, removed within %s", write, made.Sub(began).Round(time.Millisecond),
					time.Since(made).Round(time.Millisecond))
				expectEmpty(t, k.lab)
				s.delete(s.machine(m.Name))
			}
			if len(points) < 10 {
				t.Errorf("There are few writes: %v", points)
			}
			t.Logf("The daemon was killed at %d writes: %s", len(points), strings.Join(points, ", "))
		})
	}
}
