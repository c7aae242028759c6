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
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/cluster-api/util/conditions"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/host"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/lab/privatehost"
)

// libvirtWrites are the calls that change something on a host.
var libvirtWrites = map[string]bool{
	"networkUpdate": true, "storageVolCreateXML": true, "storageVolUpload": true, "storageVolDelete": true,
	"domainDefineXML": true, "domainSetAutostart": true, "domainCreateWithFlags": true, "domainDestroy": true,
	"domainUndefineFlags": true,
}

// life is the life of one manager. It ends at a write to a host or to a LibvirtMachine: neither that call nor any later
// one, reading or writing, is answered.
type life struct {
	mu sync.Mutex
	// writes so far, or since the life was armed.
	writes []string
	armed  bool
	// last is the number of the write at which the life ends, counted from 1; 0 is never.
	last int
	// answerLost says that the last write is made and only its answer is lost.
	answerLost bool
	over       chan struct{}
}

var errDead = errors.New("the manager is dead")

func newLife(last int, answerLost bool) *life {
	return &life{last: last, answerLost: answerLost, over: make(chan struct{})}
}

// settle waits until no write follows from what was done so far.
func (l *life) settle(t *testing.T) {
	t.Helper()
	eventually(t, "the writes come to an end", func() error {
		before := len(l.written())
		time.Sleep(1500 * time.Millisecond) // an object is reconciled at most once a second
		if writes := l.written(); len(writes) > before {
			return fmt.Errorf("there came %v", writes[before:])
		}
		return nil
	})
}

// arm counts writes anew and lets the last of them be the end.
func (l *life) arm() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.armed, l.writes = true, nil
}

func (l *life) written() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.writes)
}

func (l *life) isOver() bool {
	select {
	case <-l.over:
		return true
	default:
		return false
	}
}

// pass makes a call, if the life isn't over. A write has a name.
func (l *life) pass(write string, call func() error) error {
	l.mu.Lock()
	fatal := false
	if l.isOver() {
		l.mu.Unlock()
		return errDead
	}
	if write != "" {
		l.writes = append(l.writes, write)
		if fatal = l.armed && len(l.writes) == l.last; fatal {
			close(l.over)
		}
	}
	l.mu.Unlock()
	if !fatal {
		return call()
	}
	if l.answerLost {
		_ = call() // whatever came of it, nobody learns
	}
	return errDead
}

// libvirt is a host.Intercept.
func (l *life) libvirt(procedure string, call func() error) error {
	if !libvirtWrites[procedure] {
		return l.pass("", call)
	}
	return l.pass(procedure, call)
}

// newClient is a client.NewClientFunc.
func (l *life) newClient(config *rest.Config, options client.Options) (client.Client, error) {
	c, err := client.NewWithWatch(config, options)
	if err != nil {
		return nil, err
	}
	name := func(what string, object client.Object) string {
		if _, ok := object.(*infrav1.LibvirtMachine); ok {
			return what + " LibvirtMachine"
		}
		return ""
	}
	return interceptor.NewClient(c, interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, object client.Object, options ...client.GetOption) error {
			return l.pass("", func() error { return c.Get(ctx, key, object, options...) })
		},
		List: func(ctx context.Context, c client.WithWatch, list client.ObjectList, options ...client.ListOption) error {
			return l.pass("", func() error { return c.List(ctx, list, options...) })
		},
		Patch: func(ctx context.Context, c client.WithWatch, object client.Object, patch client.Patch, options ...client.PatchOption) error {
			return l.pass(name("patch", object), func() error { return c.Patch(ctx, object, patch, options...) })
		},
		SubResourcePatch: func(ctx context.Context, c client.Client, resource string, object client.Object, patch client.Patch, options ...client.SubResourcePatchOption) error {
			return l.pass(name("patch "+resource+" of", object), func() error {
				return c.SubResource(resource).Patch(ctx, object, patch, options...)
			})
		},
	}), nil
}

// startLife runs a manager of the scene's own, with an empty memory, until the returned function is called.
func (s *scene) startLife(l *life) (end func()) {
	s.t.Helper()
	return s.startOwn(l.newClient, host.WithIntercept(l.libvirt))
}

// startOwn runs a manager of the scene's own, with an empty memory, until the returned function is called.
func (s *scene) startOwn(newClient client.NewClientFunc, options ...host.Option) (end func()) {
	s.t.Helper()
	s.hosts = host.NewPool(ctrl.Log.WithName("host"), options...)
	ctx, cancel := context.WithCancel(context.Background())
	ended, err := startManager(ctx, s.hosts, s.watchFilter, s.namespace, newClient)
	if err != nil {
		cancel()
		s.t.Fatal(err)
	}
	end = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			s.t.Errorf("The manager ended: %v", err)
		}
	})
	s.t.Cleanup(end)
	return end
}

// crash is a scene with a manager that dies at a write.
type crash struct {
	*scene
	lab   *privatehost.Host
	green *infrav1.LibvirtCluster
	life  *life
	end   func()
}

// newCrash makes a host and a cluster of which the manager knows everything before it comes to the machine.
func newCrash(t *testing.T, lab *privatehost.Host, cidr string, l *life) *crash {
	t.Helper()
	s := newSceneOf(t, "", nil)
	s.watchFilter = s.namespace
	c := &crash{scene: s, lab: lab, life: l, end: s.startLife(l)}
	s.createHost("kvm1", lab.URI())
	c.green = s.readyCluster("green", cidr)
	return c
}

// restart waits until the manager has died, or has done its work all the same, and starts another.
func (c *crash) restart(done func() bool) {
	c.t.Helper()
	eventually(c.t, "the manager dies", func() error {
		if c.life.isOver() || done() {
			return nil
		}
		return fmt.Errorf("it has written %v", c.life.written())
	})
	c.end()
	c.startLife(newLife(0, false))
	eventually(c.t, "the next manager is connected", func() error {
		_, err := c.hosts.Get(hostKey(c.namespace, "kvm1"))
		return err
	})
}

// expectOneDomain checks that the scene has one domain and one reservation, those of a machine.
func (c *crash) expectOneDomain(m *infrav1.LibvirtMachine) {
	c.t.Helper()
	c.expectAllThere(c.green, m)
	var names []string
	for _, dom := range c.kvm("kvm1").Domains() {
		if strings.HasPrefix(dom.Name, c.namespace+".") {
			names = append(names, dom.Name)
		}
	}
	if len(names) != 1 {
		c.t.Errorf("The domains are %v", names)
	}
	if reservations := c.reservations(c.green, "kvm1"); len(reservations) != 1 {
		c.t.Errorf("The reservations are %v", reservations)
	}
}

// remove removes the machine and the cluster.
func (c *crash) remove(m *infrav1.LibvirtMachine) {
	c.t.Helper()
	c.delete(m)
	c.expectGone(m)
	c.expectNoTraces(c.green, "kvm1", uuidOf(m))
	c.removeCluster()
}

func (c *crash) removeCluster() {
	c.t.Helper()
	c.delete(c.green)
	c.expectGone(c.green)
}

// expectEmpty checks that no machine has left a file on a host.
func expectEmpty(t *testing.T, lab *privatehost.Host) {
	t.Helper()
	expectFiles(t, lab, "images", imageVolume)
	expectFiles(t, lab, infrav1.DefaultSeedPool)
}

// expectFiles checks which files are in the directory of a pool.
func expectFiles(t *testing.T, lab *privatehost.Host, pool string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(lab.Path("/var/lib/libvirt/" + pool))
	must(t, err)
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	if slices.Sort(want); !slices.Equal(names, want) {
		t.Errorf("The pool %s has %v, want %v", pool, names, want)
	}
}

// TestManagerDiesBetweenAnyTwoWrites kills the manager at each write of the making and of the removal of a machine, once
// before the write and once after it, and lets another manager finish the work.
func TestManagerDiesBetweenAnyTwoWrites(t *testing.T) {
	t.Parallel()
	lab := newLab(t)
	t.Cleanup(func() { expectEmpty(t, lab) })

	// A manager that isn't killed shows which writes there are.
	whole := newCrash(t, lab, "10.50.0.0/29", newLife(0, false))
	whole.life.arm()
	m := whole.readyMachine("green", "green-a", emulated)
	creating := whole.life.written()
	whole.life.settle(t)
	whole.life.arm()
	whole.delete(m)
	whole.expectGone(m)
	deleting := whole.life.written()
	whole.removeCluster()
	whole.end()

	var mu sync.Mutex
	var points []string
	t.Cleanup(func() {
		slices.Sort(points)
		t.Logf("The manager died at %d points:\n\t%s", len(points), strings.Join(points, "\n\t"))
	})
	if len(creating)+len(deleting) < 10 {
		t.Errorf("There are few writes: %v, %v", creating, deleting)
	}
	subnet := 0
	each := func(doing string, writes []string, test func(c *crash)) {
		for k, write := range writes {
			for _, answerLost := range []bool{false, true} {
				subnet++
				cidr, when := fmt.Sprintf("10.51.%d.0/29", subnet), "before"
				if answerLost {
					when = "after"
				}
				t.Run(fmt.Sprintf("%s, write %d, %s, %s it", doing, k+1, write, when), func(t *testing.T) {
					t.Parallel()
					c := newCrash(t, lab, cidr, newLife(k+1, answerLost))
					test(c)
					// Writes that only follow the work may be fewer than they were the first time.
					if !c.life.isOver() {
						return
					}
					mu.Lock()
					defer mu.Unlock()
					points = append(points, fmt.Sprintf("%s, write %02d, %s %s", doing, k+1, when, c.life.written()[k]))
				})
			}
		}
	}
	each("creating", creating, func(c *crash) {
		c.life.arm()
		m := c.createMachine("green", "green-a", emulated)
		c.restart(func() bool {
			c.refresh(m)
			return provisioned(m) && conditions.IsTrue(m, infrav1.ReadyCondition)
		})
		c.expectReady(m)
		c.expectOneDomain(m)
		c.remove(m)
	})
	each("deleting", deleting, func(c *crash) {
		m := c.readyMachine("green", "green-a", emulated)
		c.life.settle(c.t)
		c.life.arm()
		c.delete(m)
		c.restart(func() bool {
			return apierrors.IsNotFound(api.Get(c.t.Context(), client.ObjectKeyFromObject(m), m))
		})
		c.expectGone(m)
		c.expectNoTraces(c.green, "kvm1", uuidOf(m))
		c.removeCluster()
	})
}

// TestRestartOfTheManagerShowsNowhere has one manager follow another while nothing else happens.
func TestRestartOfTheManagerShowsNowhere(t *testing.T) {
	t.Parallel()
	c := newCrash(t, newLab(t), "10.50.0.0/29", newLife(0, false))
	m := c.readyMachine("green", "green-a", emulated)
	settledCalls(t, c.kvm("kvm1"))
	kvm1 := &infrav1.LibvirtHost{ObjectMeta: c.meta("kvm1", "")}
	objects := []conditionsObject{kvm1, c.green, m}
	for _, object := range objects {
		c.expectReady(object)
	}
	before := m.Status.DeepCopy()
	c.end()
	c.startLife(newLife(0, false))
	staysSo(t, "everything is ready", func() error {
		for _, object := range objects {
			if c.refresh(object); !conditions.IsTrue(object, infrav1.ReadyCondition) {
				return fmt.Errorf("%T: %s", object, describe(object))
			}
		}
		return nil
	})
	if c.kvm("kvm1"); !equality.Semantic.DeepEqual(*before, m.Status) {
		t.Errorf("The status was\n%+v\nand is\n%+v", *before, m.Status)
	}
}
