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

package placement

import (
	"errors"
	"testing"
)

func TestPickSlot(t *testing.T) {
	away := unusable("isn't ready: no route to host")
	cordoned := func(c *Candidate) { c.Unusable, c.Withdrawn = []string{"spec.scheduling is Disabled"}, true }
	needs := func(amount int64) []Need { return []Need{{DiskPromise, amount}, {DiskSpace, amount}} }
	disks := func(c *Candidate) { c.Needs = needs(20 * gib) }
	full := func(c *Candidate) { disks(c); promised(DiskPromise, 90*gib)(c) }
	free := func(number int, hosts ...string) Slot { return Slot{Number: number, Hosts: hosts} }
	held := func(number int, host string) Slot { return Slot{Number: number, Hosts: []string{host}, Holder: "db-x"} }
	leaving := func(number int, host string) Slot {
		return Slot{Number: number, Hosts: []string{host}, Holder: "db-x", Leaving: true}
	}
	const busy = "slot 0 is held by LibvirtMachine db-x, which is being deleted"
	for _, tt := range []struct {
		name       string
		candidates []Candidate
		request    SlotRequest
		host       string
		number     int
		// wait is what the error says instead.
		wait string
	}{
		{name: "the first slot of all", candidates: []Candidate{host("a")}, host: "a"},
		{name: "the next number beside one that is held", candidates: []Candidate{host("a")}, request: SlotRequest{Slots: []Slot{held(0, "a")}}, host: "a", number: 1},
		{name: "a gap", candidates: []Candidate{host("a")}, request: SlotRequest{Slots: []Slot{held(2, "a"), held(0, "a")}}, host: "a", number: 1},
		{name: "a free slot, though another host is freer", candidates: []Candidate{host("a"), host("b", memory(12*gib))},
			request: SlotRequest{Slots: []Slot{free(3, "b")}}, host: "b", number: 3},
		{name: "the lowest free slot", candidates: []Candidate{host("a"), host("b")},
			request: SlotRequest{Slots: []Slot{free(4, "a"), free(1, "b")}}, host: "b", number: 1},
		{name: "a free slot needs no room for the disks that are there", candidates: []Candidate{host("a", full)},
			request: SlotRequest{Slots: []Slot{free(0, "a")}}, host: "a"},
		{name: "a free slot needs room for a disk that is new", candidates: []Candidate{host("a", full)},
			request: SlotRequest{Slots: []Slot{{Number: 0, Hosts: []string{"a"}, Needs: needs(11 * gib)}}},
			wait: "slot 0 has its disks on a host that can't take the machine now: a: has 10240 MiB of the disk pool left to promise of 102400 MiB, " +
				"needs 11264 MiB (make room there, or cordon the host to have another slot made)"},
		{name: "the next free slot, when the host of the first is away", candidates: []Candidate{host("a", away), host("b")},
			request: SlotRequest{Slots: []Slot{free(0, "a"), free(1, "b")}}, host: "b", number: 1},
		{name: "waiting for a host that is away", candidates: []Candidate{host("a", away), host("b")}, request: SlotRequest{Slots: []Slot{free(0, "a")}},
			wait: "slot 0 has its disks on a host that can't take the machine now: a: isn't ready: no route to host (make room there, or cordon the host to have another slot made)"},
		{name: "not waiting for a host that is cordoned, and not taking the number", candidates: []Candidate{host("a", cordoned), host("b")},
			request: SlotRequest{Slots: []Slot{free(0, "a")}}, host: "b", number: 1},
		{name: "not waiting for a host that isn't the cluster's", candidates: []Candidate{host("b")}, request: SlotRequest{Slots: []Slot{free(0, "a")}}, host: "b", number: 1},
		{name: "not waiting for another failure domain", candidates: []Candidate{host("a"), host("b")},
			request: SlotRequest{Request: request(inDomain("b")), Slots: []Slot{free(0, "a"), leaving(1, "a")}}, host: "b", number: 2},
		{name: "not waiting for a host that can't run it", candidates: []Candidate{host("a", emulates), host("b")},
			request: SlotRequest{Slots: []Slot{free(0, "a")}}, host: "b", number: 1},
		{name: "waiting for one that leaves", candidates: []Candidate{host("a"), host("b")}, request: SlotRequest{Slots: []Slot{leaving(0, "a")}}, wait: busy},
		{name: "the second doesn't wait for it", candidates: []Candidate{host("a")}, request: SlotRequest{Slots: []Slot{leaving(0, "a")}, Ahead: 1}, host: "a", number: 1},
		{name: "the second waits for the second", candidates: []Candidate{host("a")},
			request: SlotRequest{Slots: []Slot{leaving(0, "a"), {Number: 1, Hosts: []string{"a"}, Taken: true}}, Ahead: 1},
			wait:    busy + "; slot 1 is free once the Machine before is gone, which removes the Node"},
		{name: "a number whose host name is taken", candidates: []Candidate{host("a")}, request: SlotRequest{Slots: []Slot{{Number: 0, Taken: true}}}, host: "a", number: 1},
		{name: "disks on two hosts", candidates: []Candidate{host("a"), host("b")}, request: SlotRequest{Slots: []Slot{free(0, "a", "b")}},
			wait: "slot 0 has disks on several hosts, a, b: delete the outdated ones with virsh vol-delete"},
		{name: "no new slot while a host is unknown", candidates: []Candidate{host("a")}, request: SlotRequest{Slots: []Slot{held(0, "a")}, Unknown: []string{"b", "c"}},
			wait: "which retained disks are on b, c isn't known yet, so no new slot can be made: connect these hosts, or take them out of spec.hostSelector of the LibvirtCluster"},
		{name: "a free slot while a host is unknown", candidates: []Candidate{host("a")}, request: SlotRequest{Slots: []Slot{free(0, "a")}, Unknown: []string{"b"}}, host: "a"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.request.DomainType == "" {
				tt.request.Request = request()
			}
			tt.request.Needs = tt.request.Needs[:2] // disks are needs of the host
			chosen, number, err := PickSlot(tt.candidates, tt.request)
			var wait *SlotWaitError
			switch {
			case tt.wait != "":
				if !errors.As(err, &wait) || err.Error() != tt.wait {
					t.Errorf("got %s, %d, %v\nwant %s", chosen, number, err, tt.wait)
				}
			case err != nil || chosen != tt.host || number != tt.number:
				t.Errorf("got %s, %d, %v, want %s, %d", chosen, number, err, tt.host, tt.number)
			}
		})
	}
	var noHost *NoHostFitsError
	if _, _, err := PickSlot([]Candidate{host("a", full)}, SlotRequest{Request: request()}); !errors.As(err, &noHost) {
		t.Errorf("without room for a new slot the error is %v", err)
	}
}

func TestRoomInExtraPools(t *testing.T) {
	ssd := func(c *Candidate) {
		c.Room = append(c.Room, Room{DiskPromise.In("ssd"), 30 * gib, 15 * gib}, Room{DiskSpace.In("ssd"), 10 * gib, 0})
	}
	needs := func(amount int64) func(*Candidate) {
		return func(c *Candidate) { c.Needs = []Need{{DiskPromise.In("ssd"), amount}, {DiskSpace.In("ssd"), amount}} }
	}
	if _, err := Pick([]Candidate{host("a", ssd, needs(10*gib))}, request()); err != nil {
		t.Errorf("it fits, and Pick says %v", err)
	}
	_, err := Pick([]Candidate{host("a", ssd, needs(20*gib)), host("b", needs(gib))}, request())
	const want = "a: has 15360 MiB of storage pool ssd left to promise of 30720 MiB, needs 20480 MiB, and has 10240 MiB available in storage pool ssd, " +
		"needs 20480 MiB; b: has no storage pool ssd among spec.storage.extraDiskPools"
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}
