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
	"time"

	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/cluster-api/util/conditions"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/domain"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/host"
)

// The states in which machines are counted.
const (
	stateUnplaced     = "unplaced"
	stateProvisioning = "provisioning"
	stateReady        = "ready"
	stateNotReady     = "not_ready"
	stateUnknown      = "unknown"
	stateDeleting     = "deleting"
)

var machineStates = []string{stateUnplaced, stateProvisioning, stateReady, stateNotReady, stateUnknown, stateDeleting}

var (
	connectedDesc = prometheus.NewDesc("capl_host_connected",
		"Whether the libvirt daemon of a host is connected.", []string{"host"}, nil)
	readyDesc = prometheus.NewDesc("capl_host_ready",
		"Whether the LibvirtHost is ready.", []string{"host"}, nil)
	capacityDesc = prometheus.NewDesc("capl_host_capacity",
		"What a host has in all, by resource: cpu in cores, memory in bytes.", []string{"host", "resource", "unit"}, nil)
	allocatedDesc = prometheus.NewDesc("capl_host_allocated",
		"What domains and machines of a host may use at most, promises included, by resource.", []string{"host", "resource", "unit"}, nil)
	promisedDesc = prometheus.NewDesc("capl_host_promised",
		"The part of what is allocated that was promised to machines that have no domain yet, by resource.", []string{"host", "resource", "unit"}, nil)
	machinesDesc = prometheus.NewDesc("capl_machines",
		"LibvirtMachines by host and state; those that have no host yet are under an empty one.", []string{"host", "state"}, nil)
	orphansDesc = prometheus.NewDesc("capl_host_orphans",
		"Domains and volumes of ours on a host that no LibvirtMachine stands for, as of the last look.", []string{"host", "kind"}, nil)
)

// scrapeTimeout bounds what a scrape waits for the cache.
const scrapeTimeout = 5 * time.Second

// stateCollector tells how hosts and machines are when it is asked, from memory: a scrape costs neither the API server
// nor a host anything.
type stateCollector struct {
	client           client.Reader
	hosts            *host.Pool
	orphanages       *orphanages
	watchFilterValue string
	// elected is closed when this process is the one that acts. The others have nothing to tell.
	elected <-chan struct{}
}

// Describe names the metrics.
func (c *stateCollector) Describe(descs chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{connectedDesc, readyDesc, capacityDesc, allocatedDesc, promisedDesc, machinesDesc, orphansDesc} {
		descs <- desc
	}
}

// Collect reads the cache and the connections.
func (c *stateCollector) Collect(metrics chan<- prometheus.Metric) {
	select {
	case <-c.elected:
	default:
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
	defer cancel()
	var options []client.ListOption
	if c.watchFilterValue != "" {
		options = append(options, client.MatchingLabels{clusterv1.WatchLabel: c.watchFilterValue})
	}
	var hosts infrav1.LibvirtHostList
	var machines infrav1.LibvirtMachineList
	if c.client.List(ctx, &hosts, options...) != nil || c.client.List(ctx, &machines, options...) != nil {
		return // The cache isn't there yet, or not any more: nothing is known.
	}
	gauge := func(desc *prometheus.Desc, value float64, labels ...string) {
		metrics <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...)
	}
	for key, connected := range c.hosts.Connections() {
		gauge(connectedDesc, number(connected), key)
	}
	c.orphanages.each(func(host, kind string, count int) { gauge(orphansDesc, float64(count), host, kind) })

	byHost := map[string][]infrav1.LibvirtMachine{"": nil}
	for i := range hosts.Items {
		byHost[hostKey(hosts.Items[i].Namespace, hosts.Items[i].Name)] = nil
	}
	for i := range machines.Items {
		key := ""
		if name := machines.Items[i].Spec.HostName; name != "" {
			key = hostKey(machines.Items[i].Namespace, name)
		}
		byHost[key] = append(byHost[key], machines.Items[i])
	}
	for key, here := range byHost {
		count := map[string]int{}
		for i := range here {
			count[machineState(&here[i])]++
		}
		for _, state := range machineStates {
			gauge(machinesDesc, float64(count[state]), key, state)
		}
	}
	for i := range hosts.Items {
		h := &hosts.Items[i]
		key := hostKey(h.Namespace, h.Name)
		gauge(readyDesc, number(conditions.IsTrue(h, infrav1.ReadyCondition)), key)
		resources := func(desc *prometheus.Desc, amounts infrav1.HostResources) {
			gauge(desc, float64(ptr.Deref(amounts.CPUs, 0)), key, "cpu", "core")
			if amounts.Memory != nil {
				gauge(desc, float64(amounts.Memory.Value()), key, "memory", "byte")
			}
		}
		resources(capacityDesc, h.Status.Capacity)
		resources(allocatedDesc, h.Status.Allocated)
		if kvm, err := c.hosts.Get(key); err == nil {
			resources(promisedDesc, promised(kvm.Domains(), byHost[key]))
		}
	}
}

// machineState is the word under which a machine is counted.
func machineState(m *infrav1.LibvirtMachine) string {
	ready := conditions.Get(m, infrav1.ReadyCondition)
	switch {
	case !m.DeletionTimestamp.IsZero():
		return stateDeleting
	case m.Spec.ProviderID == "":
		return stateUnplaced
	case ready != nil && ready.Status == metav1.ConditionTrue:
		return stateReady
	case !ptr.Deref(m.Status.Initialization.Provisioned, false):
		return stateProvisioning
	case ready == nil || ready.Status == metav1.ConditionUnknown:
		return stateUnknown
	}
	return stateNotReady
}

// promised is what was promised to those of a host's machines that have no domain yet.
func promised(domains []host.Domain, machines []infrav1.LibvirtMachine) infrav1.HostResources {
	defined := map[string]bool{}
	for _, dom := range domains {
		defined[dom.UUID] = true
	}
	var cpus int32
	var memory int64
	for i := range machines {
		if uuid := domain.UUID(machines[i].Spec.ProviderID); uuid != "" && !defined[uuid] {
			cpus += machines[i].Spec.VCPUs
			memory += machines[i].Spec.Memory.Value()
		}
	}
	return infrav1.HostResources{CPUs: ptr.To(cpus), Memory: quantity(memory)}
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
