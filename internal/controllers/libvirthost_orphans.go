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
	"fmt"
	"strings"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/cluster-api/util/conditions"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/owner"
)

// DefaultOrphanInterval is the time between two looks for orphans on a host unless Options say otherwise.
const DefaultOrphanInterval = surveyLifetime

// machineKind is the kind in the marks of domains.
const machineKind = "LibvirtMachine"

const (
	// orphanRetry is when to look again after a look that failed.
	orphanRetry = time.Minute
	// maxMarksRead bounds the definitions that one look reads. The rest has its turn at the next.
	maxMarksRead = 200
	// maxOrphansKnown bounds what is remembered, and looked at one by one, of a host.
	maxOrphansKnown = 200
	// maxOrphansNamed bounds the names in a message.
	maxOrphansNamed = 5
)

// The kinds of orphan.
const (
	orphanDomain = "domain"
	orphanVolume = "volume"
)

// orphan is a domain or a volume of ours that no LibvirtMachine stands for.
type orphan struct {
	kind string
	// uuid of the domain, or the one in the volume's name.
	uuid string
	// name of the domain or the volume, pool of the volume.
	name, pool string
	// owner is the mark that a domain carries.
	owner owner.Owner
	// since is when it was first seen, modified what the host then said of when the volume was last written to. The two
	// clocks may differ.
	since, modified time.Time
	// kept is why it isn't removed whatever the policy, empty when it may be.
	kept string
}

func (o orphan) String() string {
	if o.kind == orphanVolume {
		return fmt.Sprintf("volume %s in storage pool %s", o.name, o.pool)
	}
	return fmt.Sprintf("domain %s (UUID %s, Cluster %s)", o.name, o.uuid, o.owner.Cluster)
}

// same tells whether both are the same domain or volume.
func (o orphan) same(other orphan) bool {
	return o.kind == other.kind && o.uuid == other.uuid && o.name == other.name && o.pool == other.pool
}

// orphanages remember what was found on hosts, by the hosts' keys.
type orphanages struct {
	mu     sync.Mutex
	byHost map[string]orphanage
}

// orphanage is what the looks for orphans have found on a host. It isn't changed once it is remembered.
type orphanage struct {
	// at is when the last look was taken.
	at      time.Time
	orphans []orphan
	// marks are those of the domains whose definition was read, by UUID; nil for a domain that isn't ours.
	marks map[string]*owner.Owner
}

func (o *orphanages) get(key string) orphanage {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.byHost[key]
}

func (o *orphanages) set(key string, known orphanage) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.byHost == nil {
		o.byHost = map[string]orphanage{}
	}
	o.byHost[key] = known
}

func (o *orphanages) forget(key string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.byHost, key)
}

// each tells of every host that was looked over how many orphans of a kind it has.
func (o *orphanages) each(tell func(host, kind string, count int)) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for key, known := range o.byHost {
		for _, kind := range []string{orphanDomain, orphanVolume} {
			tell(key, kind, countKind(known.orphans, kind))
		}
	}
}

func countKind(orphans []orphan, kind string) int {
	count := 0
	for _, o := range orphans {
		if o.kind == kind {
			count++
		}
	}
	return count
}

// reconcileOrphans looks for orphans when it is time to, removes those that were orphans at the last look already where
// the policy says so, and reports. It returns when the next look is due. The cache of LibvirtMachines is complete:
// reconcilers don't run before.
func (r *LibvirtHostReconciler) reconcileOrphans(ctx context.Context, s *hostScope) time.Duration {
	key := hostKey(s.libvirtHost.Namespace, s.libvirtHost.Name)
	known := r.orphanages.get(key)
	if due := r.OrphanInterval - time.Since(known.at); due > 0 {
		return due
	}
	found, err := r.lookForOrphans(ctx, s, known)
	if err == nil && s.libvirtHost.Spec.OrphanPolicy == infrav1.OrphanPolicyDelete {
		found.orphans, err = r.removeOrphans(ctx, s, found.orphans)
	}
	if err != nil {
		conditions.Set(s.libvirtHost, phaseCondition(infrav1.HostOrphansAbsentCondition, "", fmt.Errorf("looking for orphans: %w", err)))
		after := min(orphanRetry, r.OrphanInterval)
		known.at = time.Now().Add(after - r.OrphanInterval)
		r.orphanages.set(key, known)
		return after
	}
	r.orphanages.set(key, found)
	conditions.Set(s.libvirtHost, orphansCondition(found.orphans, s.libvirtHost.Spec.OrphanPolicy, r.OrphanInterval))
	return r.OrphanInterval
}

// orphansCondition reports what was found and what becomes of it.
func orphansCondition(orphans []orphan, policy infrav1.OrphanPolicy, interval time.Duration) metav1.Condition {
	condition := metav1.Condition{
		Type: infrav1.HostOrphansAbsentCondition, Status: metav1.ConditionTrue, Reason: infrav1.HostOrphansAbsentReason,
	}
	if len(orphans) == 0 {
		return condition
	}
	condition.Status, condition.Reason = metav1.ConditionFalse, infrav1.HostOrphansFoundReason
	var named []string
	for _, o := range orphans[:min(len(orphans), maxOrphansNamed)] {
		text := o.String()
		if o.kept != "" {
			text += ", kept because " + o.kept
		}
		named = append(named, text)
	}
	if rest := len(orphans) - len(named); rest > 0 {
		named = append(named, fmt.Sprintf("and %d more", rest))
	}
	remedy := "if another management cluster uses this host they may be its machines, so leave them alone; " +
		"otherwise remove them on the host (virsh destroy, virsh undefine, virsh vol-delete), or set spec.orphanPolicy to Delete"
	if policy == infrav1.OrphanPolicyDelete {
		remedy = fmt.Sprintf("spec.orphanPolicy is Delete: what isn't kept is removed once it has been an orphan for %s", interval)
	}
	condition.Message = fmt.Sprintf("No LibvirtMachine stands for %d domains and %d volumes on the host: %s; %s",
		countKind(orphans, orphanDomain), countKind(orphans, orphanVolume), strings.Join(named, "; "), remedy)
	return condition
}
