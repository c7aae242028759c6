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
	"strings"
	"sync"
	"testing"

	"sigs.k8s.io/cluster-api/util/conditions"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/domain"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/host"
)

// TestManagerDiesWhileASlotIsClaimed kills the manager when it has claimed a slot and doesn't know it yet. The other points
// take too long for each run: TestManagerDiesBetweenAnyTwoWritesOfASlot.
func TestManagerDiesWhileASlotIsClaimed(t *testing.T) {
	t.Parallel()
	dieInSlot(t, func(write int, answerLost bool) bool { return write <= 6 && answerLost })
}

// dieInSlot replaces a machine that has a retained disk, and kills the manager at the chosen writes of the making of the
// second one, before the write or when only its answer is lost. Whatever the point, the second has the slot of the first
// and its disk.
func dieInSlot(t *testing.T, chosen func(write int, answerLost bool) bool) {
	lab := newLab(t)
	disks := func(p *machineParts) {
		emulated(p)
		dbMachine(p)
		p.libvirtMachine.Spec.DataDisks = append(p.libvirtMachine.Spec.DataDisks, dataDisk("scratch", "64Mi"))
	}
	replaced := func(c *crash) (first, second *infrav1.LibvirtMachine) {
		first = c.readyMachine("green", "db-a", disks)
		c.removeMachine(first)
		c.life.settle(c.t)
		c.life.arm()
		return first, c.createMachine("green", "db-b", disks)
	}
	// A manager that isn't killed shows which writes there are.
	whole := newCrash(t, lab, "10.52.0.0/29", newLife(0, false))
	_, m := replaced(whole)
	whole.expectReady(m)
	writes := whole.life.written()
	whole.removeMachine(m)
	whole.removeCluster()
	whole.end()
	if len(writes) < 8 {
		t.Errorf("There are few writes: %v", writes)
	}

	var mu sync.Mutex
	died := 0
	t.Cleanup(func() { t.Logf("The manager died at %d points of %v", died, writes) })
	for k, write := range writes {
		for _, answerLost := range []bool{false, true} {
			cidr, when := fmt.Sprintf("10.53.%d.0/29", k), "before"
			if answerLost {
				cidr, when = fmt.Sprintf("10.54.%d.0/29", k), "after"
			}
			if !chosen(k+1, answerLost) {
				continue
			}
			t.Run(fmt.Sprintf("write %d, %s, %s it", k+1, write, when), func(t *testing.T) {
				t.Parallel()
				c := newCrash(t, lab, cidr, newLife(k+1, answerLost))
				first, second := replaced(c)
				c.restart(func() bool {
					c.refresh(second)
					return provisioned(second) && conditions.IsTrue(second, infrav1.ReadyCondition)
				})
				c.expectReady(second)
				c.expectOneDomain(second)
				if slotOf(second) != slotOf(first) {
					t.Errorf("The slot was %+v and is %+v", slotOf(first), slotOf(second))
				}
				names, err := ask(c.scene, "kvm1", func(kvm *host.Host) ([]string, error) { return kvm.VolumeNames(t.Context(), "default") })
				must(t, err)
				kept := 0
				for _, name := range names {
					if key, _, ok := domain.SlotVolume(name); ok && key == slotOf(first).Key() {
						kept++
					}
					if strings.HasPrefix(name, domain.DataVolumeName(uuidOf(first), "x")[:42]) {
						t.Errorf("The volume %s of the first machine is still there", name)
					}
				}
				if kept != 1 {
					t.Errorf("There are %d retained disks", kept)
				}
				c.removeMachine(second)
				c.expectNoTraces(c.green, "kvm1", uuidOf(second))
				if _, err := ask(c.scene, "kvm1", func(kvm *host.Host) (any, error) {
					return nil, kvm.DeleteVolume(t.Context(), "default", brick(second))
				}); !errors.Is(err, host.ErrNotFound) { // it may have been deleted although the answer was lost
					must(t, err)
				}
				c.removeCluster()
				if c.life.isOver() {
					mu.Lock()
					defer mu.Unlock()
					died++
				}
			})
		}
	}
}
