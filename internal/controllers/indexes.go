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
	"cmp"
	"context"
	"fmt"

	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
)

// The fields by which objects are found in the cache.
const (
	providerIDField = "spec.providerID"
	hostNameField   = "spec.hostName"
)

// noHost is under what the machines are found that have no host yet. No host has that name.
const noHost = "/"

// addIndexes makes the cache of a manager find LibvirtMachines by providerID and by host. Call it before the reconcilers
// are set up.
func addIndexes(ctx context.Context, mgr manager.Manager) error {
	indexer := mgr.GetFieldIndexer()
	for _, index := range []struct {
		object client.Object
		field  string
		value  func(client.Object) string
	}{
		{&infrav1.LibvirtMachine{}, providerIDField, func(o client.Object) string {
			return o.(*infrav1.LibvirtMachine).Spec.ProviderID
		}},
		{&infrav1.LibvirtMachine{}, hostNameField, func(o client.Object) string {
			return cmp.Or(o.(*infrav1.LibvirtMachine).Spec.HostName, noHost)
		}},
	} {
		values := func(o client.Object) []string {
			if value := index.value(o); value != "" {
				return []string{value}
			}
			return nil
		}
		if err := indexer.IndexField(ctx, index.object, index.field, values); err != nil {
			return fmt.Errorf("indexing %T by %s: %w", index.object, index.field, err)
		}
	}
	return nil
}
