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
	"time"

	"github.com/prometheus/client_golang/prometheus"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/controller"

	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/host"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/image"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/task"
)

// Options are how the controllers run.
type Options struct {
	// WatchFilterValue is that of the label of the objects to reconcile; all are when it is empty.
	WatchFilterValue string
	// HostWorkers, ClusterWorkers and MachineWorkers are how many objects of each kind are reconciled at once.
	HostWorkers, ClusterWorkers, MachineWorkers int
	// OrphanInterval is the time between two looks for orphans on a host, DefaultOrphanInterval when it is zero.
	OrphanInterval time.Duration
	// ImageInterval is the time between two looks at the images of a host, DefaultImageInterval when it is zero.
	ImageInterval time.Duration
	// AgentSilence is how long a host's agent may go without renewing its status, DefaultAgentSilence when it is zero.
	AgentSilence time.Duration
	// ImagePolicy says from where images may come and how large they may be.
	ImagePolicy image.Policy
	// Metrics are those that the pool of hosts observes its calls with. Without them nobody reads what is counted.
	Metrics *Metrics
}

// Setup adds the reconcilers to a manager, with the pool of hosts and all else that runs beside them. Errors are those
// of the manager.
func Setup(ctx context.Context, mgr ctrl.Manager, hosts *host.Pool, options Options) error {
	if err := addIndexes(ctx, mgr); err != nil {
		return err
	}
	if options.Metrics == nil {
		var err error
		if options.Metrics, err = NewMetrics(prometheus.NewRegistry()); err != nil {
			return err
		}
	}
	events := &HostEvents{Client: mgr.GetClient(), Pool: hosts, WatchFilterValue: options.WatchFilterValue}
	imports, shared := task.NewRunner(task.DefaultLimit), &images{}
	for _, runnable := range []interface{ Start(context.Context) error }{hosts, events, imports} {
		if err := mgr.Add(runnable); err != nil {
			return fmt.Errorf("adding %T: %w", runnable, err)
		}
	}
	hostReconciler := &LibvirtHostReconciler{
		Client: mgr.GetClient(), APIReader: mgr.GetAPIReader(), Hosts: hosts, Events: events, WatchFilterValue: options.WatchFilterValue,
		OrphanInterval: cmp.Or(options.OrphanInterval, DefaultOrphanInterval), Metrics: options.Metrics,
		ImageInterval: cmp.Or(options.ImageInterval, DefaultImageInterval), Images: shared,
	}
	if err := hostReconciler.SetupWithManager(ctx, mgr, controller.Options{MaxConcurrentReconciles: options.HostWorkers}); err != nil {
		return fmt.Errorf("setting up the LibvirtHost controller: %w", err)
	}
	if err := options.Metrics.registry.Register(&stateCollector{
		client: mgr.GetClient(), hosts: hosts, orphanages: &hostReconciler.orphanages, watchFilterValue: options.WatchFilterValue, elected: mgr.Elected(),
	}); err != nil {
		return fmt.Errorf("registering metrics: %w", err)
	}
	if err := (&LibvirtClusterReconciler{
		Client: mgr.GetClient(), APIReader: mgr.GetAPIReader(), Hosts: hosts, Events: events, WatchFilterValue: options.WatchFilterValue,
		AgentSilence: cmp.Or(options.AgentSilence, DefaultAgentSilence),
	}).SetupWithManager(ctx, mgr, controller.Options{MaxConcurrentReconciles: options.ClusterWorkers}); err != nil {
		return fmt.Errorf("setting up the LibvirtCluster controller: %w", err)
	}
	if err := (&LibvirtMachineReconciler{
		Client: mgr.GetClient(), APIReader: mgr.GetAPIReader(), Hosts: hosts, Events: events, Imports: imports, WatchFilterValue: options.WatchFilterValue,
		Images: shared, ImagePolicy: options.ImagePolicy, Metrics: options.Metrics,
	}).SetupWithManager(ctx, mgr, controller.Options{MaxConcurrentReconciles: options.MachineWorkers}); err != nil {
		return fmt.Errorf("setting up the LibvirtMachine controller: %w", err)
	}
	if err := (&LibvirtMachineTemplateReconciler{
		Client: mgr.GetClient(), WatchFilterValue: options.WatchFilterValue,
	}).SetupWithManager(ctx, mgr, controller.Options{MaxConcurrentReconciles: 1}); err != nil {
		return fmt.Errorf("setting up the LibvirtMachineTemplate controller: %w", err)
	}
	return nil
}
