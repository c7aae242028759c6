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
	"fmt"
	"strings"
)

// Resource is something that a host has an amount of, which its machines share.
type Resource string

// The resources that machines take.
const (
	// Memory in bytes.
	Memory Resource = "memory"
	// VCPUs is a number of virtual CPUs.
	VCPUs Resource = "vCPUs"
	// DiskPromise is space of the disk pool in bytes, of which each disk is promised its full size though it begins small.
	DiskPromise Resource = "disk pool to promise"
	// DiskSpace is the space in bytes that is free in the disk pool now, whoever takes it.
	DiskSpace Resource = "disk pool available"
)

// inPool stands between a resource of storage and the name of the pool, unless that is the disk pool.
const inPool = " in pool "

// In is the resource of another storage pool than the disk pool.
func (r Resource) In(pool string) Resource {
	return r + Resource(inPool+pool)
}

// Room is what a host has of a resource.
type Room struct {
	Resource Resource
	// Capacity is what machines may have of it in all.
	Capacity int64
	// Promised is what machines and others have of it already.
	Promised int64
}

// Free is what can still be promised. It is negative when more is promised than there is.
func (r Room) Free() int64 {
	return r.Capacity - r.Promised
}

// Need is what a machine takes of a resource.
type Need struct {
	Resource Resource
	Amount   int64
}

// room finds what a host has of a resource.
func (c *Candidate) room(resource Resource) (Room, bool) {
	for _, room := range c.Room {
		if room.Resource == resource {
			return room, true
		}
	}
	return Room{}, false
}

// lack says that a host has too little of a resource.
func lack(room Room, need Need) string {
	free, needed := max(room.Free(), 0), need.Amount
	kind, name, extra := strings.Cut(string(need.Resource), inPool)
	pool := "the disk pool"
	if extra {
		pool = "storage pool " + name
		if room.Resource == "" {
			return fmt.Sprintf("has no %s among spec.storage.extraDiskPools", pool)
		}
	}
	switch Resource(kind) {
	case VCPUs:
		return fmt.Sprintf("has %d vCPUs free of %d, needs %d", free, max(room.Capacity, 0), needed)
	case DiskPromise:
		return fmt.Sprintf("has %s of %s left to promise of %s, needs %s",
			mebibytes(free), pool, mebibytes(room.Capacity), mebibytes(needed))
	case DiskSpace:
		return fmt.Sprintf("has %s available in %s, needs %s", mebibytes(free), pool, mebibytes(needed))
	default:
		return fmt.Sprintf("has %s of %s free of %s, needs %s",
			mebibytes(free), need.Resource, mebibytes(room.Capacity), mebibytes(needed))
	}
}

func mebibytes(bytes int64) string {
	return fmt.Sprintf("%d MiB", max(bytes, 0)>>20)
}
