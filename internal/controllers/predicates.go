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
	"maps"
	"slices"

	"sigs.k8s.io/cluster-api/util/conditions"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
)

// onlyDeletes passes on that an object is gone.
var onlyDeletes = predicate.Funcs{
	CreateFunc:  func(event.CreateEvent) bool { return false },
	UpdateFunc:  func(event.UpdateEvent) bool { return false },
	GenericFunc: func(event.GenericEvent) bool { return false },
}

// hostsChanged passes on that a LibvirtCluster uses other hosts, or may.
var hostsChanged = predicate.Funcs{
	UpdateFunc: func(e event.UpdateEvent) bool {
		before, ok := e.ObjectOld.(*infrav1.LibvirtCluster)
		after, ok2 := e.ObjectNew.(*infrav1.LibvirtCluster)
		return ok && ok2 && (before.Generation != after.Generation || !slices.Equal(before.Status.Hosts, after.Status.Hosts))
	},
}

// roomChanged passes on that a LibvirtHost may take a machine that it couldn't take before.
var roomChanged = predicate.Funcs{
	UpdateFunc: func(e event.UpdateEvent) bool {
		before, ok := e.ObjectOld.(*infrav1.LibvirtHost)
		after, ok2 := e.ObjectNew.(*infrav1.LibvirtHost)
		return ok && ok2 && (before.Generation != after.Generation ||
			conditions.IsTrue(before, infrav1.ReadyCondition) != conditions.IsTrue(after, infrav1.ReadyCondition) ||
			!maps.Equal(before.Labels, after.Labels) || !slices.Equal(before.Status.DomainTypes, after.Status.DomainTypes) ||
			moreRoom(before, after))
	},
}

// disconnected passes on that a LibvirtHost turned out not to be connected. A connection that broke or came wakes its
// machines by itself; one that never came, as after a start of the manager without the host's Secret, doesn't.
var disconnected = predicate.Funcs{
	CreateFunc:  func(event.CreateEvent) bool { return false },
	DeleteFunc:  func(event.DeleteEvent) bool { return false },
	GenericFunc: func(event.GenericEvent) bool { return false },
	UpdateFunc: func(e event.UpdateEvent) bool {
		before, ok := e.ObjectOld.(*infrav1.LibvirtHost)
		after, ok2 := e.ObjectNew.(*infrav1.LibvirtHost)
		return ok && ok2 && !conditions.IsFalse(before, infrav1.HostConnectedCondition) && conditions.IsFalse(after, infrav1.HostConnectedCondition)
	},
}

// moreRoom tells whether a host reports more of any resource than before. It reports that a moment after its conditions.
func moreRoom(before, after *infrav1.LibvirtHost) bool {
	was, is := rooms(before, reportedUsage(before)), rooms(after, reportedUsage(after))
	for i := range is {
		if len(was) <= i || was[i].Free() < is[i].Free() {
			return true
		}
	}
	return false
}
