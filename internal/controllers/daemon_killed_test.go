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
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/domain"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/host"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/lab/privatehost"
)

// killer kills the daemon of a host at one of the writes to it, while the call is under way or when it has been made and
// its answer hasn't arrived.
type killer struct {
	t          *testing.T
	lab        *privatehost.Host
	answerLost bool

	mu sync.Mutex
	// fatal tells whether a write, by its number since the killer was armed, counted from 1, and its name, is the one.
	fatal  func(write int, procedure string) bool
	writes int
	killed chan string
}

// arm lets the first write that is fatal be the one. What the channel gives is its name, once the daemon is dead.
func (k *killer) arm(fatal func(write int, procedure string) bool) (killed <-chan string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.fatal, k.writes, k.killed = fatal, 0, make(chan string, 1)
	return k.killed
}

func (k *killer) hits(procedure string) (killed chan<- string, hit bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.fatal == nil || !libvirtWrites[procedure] {
		return nil, false
	}
	if k.writes++; !k.fatal(k.writes, procedure) {
		return nil, false
	}
	k.fatal = nil
	return k.killed, true
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

// modes are whether the answer is lost, by name.
var modes = map[string]bool{"during the call": false, "between call and answer": true}

// TestDaemonDiesAtTheDefinition kills the daemon as it makes a domain, and as it removes one.
func TestDaemonDiesAtTheDefinition(t *testing.T) {
	t.Parallel()
	for mode, answerLost := range modes {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			d := newDying(t, answerLost)
			d.lifeOf("green", func(_ int, procedure string) bool {
				return procedure == "domainDefineXML" || procedure == "domainUndefineFlags"
			})
			if want := []string{"domainDefineXML", "domainUndefineFlags"}; !slices.Equal(d.points, want) {
				t.Errorf("It was killed at %v, want %v", d.points, want)
			}
		})
	}
}

// dying is a scene with a daemon that dies at writes.
type dying struct {
	*crash
	killer *killer
	// points are the writes at which the daemon was killed.
	points []string
}

func newDying(t *testing.T, answerLost bool) *dying {
	t.Helper()
	s := newSceneOf(t, "", nil)
	s.watchFilter = s.namespace
	k := &killer{t: t, lab: newLab(t), answerLost: answerLost}
	s.startOwn(nil, host.WithIntercept(k.libvirt))
	s.readyHost("kvm1", k.lab.URI())
	return &dying{crash: &crash{scene: s, lab: k.lab, green: s.readyCluster("green", "10.50.0.0/29")}, killer: k}
}

// lifeOf makes and removes a machine, killing the daemon once at a fatal write of each, and tells whether there were any.
// Whether the write was made nobody learns; the machine is made once all the same, and removed without a trace.
func (d *dying) lifeOf(name string, fatal func(write int, procedure string) bool) (killed bool) {
	t := d.t
	t.Helper()
	began := time.Now()
	dead := d.killer.arm(fatal)
	m := d.createMachine("green", name, emulated)
	killed = d.restarted(dead, func() bool { d.refresh(m); return provisioned(m) })
	d.expectReady(m)
	d.expectOneDomain(m)
	expectFiles(t, d.lab, "images", imageVolume, domain.RootVolumeName(uuidOf(m)))
	expectFiles(t, d.lab, infrav1.DefaultSeedPool, domain.SeedVolumeName(uuidOf(m)))
	made := time.Now()

	dead = d.killer.arm(fatal)
	d.delete(m)
	removed := func() bool { return apierrors.IsNotFound(api.Get(t.Context(), client.ObjectKeyFromObject(m), m)) }
	killed = d.restarted(dead, removed) || killed
	d.expectGone(m)
	d.expectReady(&infrav1.LibvirtHost{ObjectMeta: d.meta("kvm1", "")})
	d.expectNoTraces(d.green, "kvm1", uuidOf(m))
	expectEmpty(t, d.lab)
	t.Logf("%s was made within %s and removed within %s", name, made.Sub(began).Round(time.Millisecond),
		time.Since(made).Round(time.Millisecond))
	return killed
}

// restarted starts the daemon again if it was killed before the work was done, and tells whether it was.
func (d *dying) restarted(dead <-chan string, done func() bool) bool {
	d.t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		finished := done()
		select {
		case procedure := <-dead:
			d.points = append(d.points, procedure)
			must(d.t, d.lab.StartDaemon(d.t.Context()))
			return true
		default:
		}
		if finished {
			d.killer.arm(nil)
			return false
		}
		if time.Now().After(end) {
			d.t.Fatalf("Neither was the daemon killed nor the work done within %s", patience)
		}
	}
}
