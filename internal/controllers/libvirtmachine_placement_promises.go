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
	"sync"
	"time"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/domain"
)

// promises remembers the machines that were placed until the cache shows them on their hosts, so that two aren't given
// the same room within a moment. They are forgotten after a while, because a machine may come and go with nobody looking.
type promises struct {
	mu     sync.Mutex
	byUUID map[string]promise
}

type promise struct {
	machine infrav1.LibvirtMachine
	at      time.Time
}

// promiseLifetime is far longer than the cache is ever behind.
const promiseLifetime = time.Minute

// add notes a machine that was placed. The caller holds the lock.
func (p *promises) add(machine *infrav1.LibvirtMachine) {
	if p.byUUID == nil {
		p.byUUID = map[string]promise{}
	}
	p.byUUID[domain.UUID(machine.Spec.ProviderID)] = promise{*machine, time.Now()}
}

// drop forgets a machine that is gone.
func (p *promises) drop(uuid string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.byUUID, uuid)
}

// unseen are the machines that were placed on a host and aren't among those that the cache shows there, but for the one
// that is to be placed: what an earlier try promised to that is up for another. Those that the cache shows are forgotten.
// The caller holds the lock.
func (p *promises) unseen(key, uuid string, machines []infrav1.LibvirtMachine) []infrav1.LibvirtMachine {
	for i := range machines {
		delete(p.byUUID, domain.UUID(machines[i].Spec.ProviderID))
	}
	var unseen []infrav1.LibvirtMachine
	for other, promised := range p.byUUID {
		switch {
		case time.Since(promised.at) > promiseLifetime:
			delete(p.byUUID, other)
		case other != uuid && hostKey(promised.machine.Namespace, promised.machine.Spec.HostName) == key:
			unseen = append(unseen, promised.machine)
		}
	}
	return unseen
}
