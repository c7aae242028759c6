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

// Package quickstart goes from nothing to a Kubernetes cluster of libvirt machines on one machine: it builds what is
// missing, starts a private KVM host and a management plane, and creates a cluster as a user would.
package quickstart

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/lab/plane"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/lab/privatehost"
)

// hostName is the name of the first private host and of its LibvirtHost. The others are kvm2 and so on.
const hostName = "kvm1"

// Options say what is made.
type Options struct {
	// Repository is the directory of the clone: its scripts, manifests and bin/.
	Repository string
	// Dir keeps the state: host, management plane, kubeconfigs, logs. Sockets lie below it, so it has to be short.
	Dir string
	// LibvirtURI of an existing libvirt daemon; empty for a private host.
	LibvirtURI string
	// Hosts is the number of private hosts, 1 when it is zero. Several share a LAN, and the cluster takes its flavor bridge.
	Hosts int
	// Connect connects several hosts in another way than by a LAN; nil for the LAN.
	Connect func(context.Context, []*privatehost.Host) error
	// Declare is called with the LibvirtHost of each of several hosts before it is made; nil for none.
	Declare func(*infrav1.LibvirtHost)
	// Name and Namespace of the cluster.
	Name, Namespace string
	// ControlPlanes and Workers are numbers of machines.
	ControlPlanes, Workers int
	// Others is the number of machines that the flavor makes besides.
	Others int
	// Flavor of the cluster template, empty for the default one.
	Flavor string
	// Variables of the cluster template besides, or instead of, those that the lab sets.
	Variables map[string]string
	// Change is called with each of the cluster's manifests before they are applied; nil for none.
	Change func(*unstructured.Unstructured) error
	// Timeout for the cluster, from the moment it is asked for.
	Timeout time.Duration
	// Supervisor is the command that supervises the management plane; this program's own when nil.
	Supervisor []string
	// Out is where the progress is written.
	Out io.Writer
}

// Quickstart is a run that is under way, or one that was found again.
type Quickstart struct {
	options Options
	out     *printer
	state   state

	// host is the first private host, hosts are all of them.
	host   *privatehost.Host
	hosts  []*privatehost.Host
	plane  *plane.Plane
	client client.Client

	binDir, nodeImage string
}

// state is what a later run, or the clean-up, must know.
type state struct {
	LibvirtURI      string `json:"libvirtURI"`
	Private         bool   `json:"private"`
	ImageSHA256     string `json:"imageSHA256"`
	Namespace, Name string
}

// New prepares a run.
func New(options Options) *Quickstart {
	return &Quickstart{options: options, out: newPrinter(options.Out)}
}

// Kubeconfig is the path of the kubeconfig of the management plane, as seen from the machine's own network.
func (q *Quickstart) Kubeconfig() string { return q.path("management.kubeconfig") }

// ClusterKubeconfig is the path of the kubeconfig of the cluster, as seen from the machine's own network.
func (q *Quickstart) ClusterKubeconfig() string { return q.path(q.options.Name + ".kubeconfig") }

// Host is the first private host, nil with an existing libvirt daemon.
func (q *Quickstart) Host() *privatehost.Host { return q.host }

// Hosts are all private hosts.
func (q *Quickstart) Hosts() []*privatehost.Host { return q.hosts }

// Client talks to the management plane.
func (q *Quickstart) Client() client.Client { return q.client }

// BinDir has the programs that were built, kubectl and clusterctl among them.
func (q *Quickstart) BinDir() string { return q.binDir }

func (q *Quickstart) path(elements ...string) string {
	return filepath.Join(append([]string{q.options.Dir}, elements...)...)
}

// Run makes everything and waits until every node is Ready. What is there from an earlier run is used again.
func (q *Quickstart) Run(ctx context.Context) error {
	if err := os.MkdirAll(q.path("logs"), 0o755); err != nil {
		return fmt.Errorf("making the directory: %w", err)
	}
	steps := []struct {
		name string
		run  func(context.Context) error
	}{
		{"Building the programs", q.buildPrograms},
		{"Building the node image", q.buildNodeImage},
		{"Writing the release for clusterctl", q.writeRelease},
		{"Starting the KVM host", q.startHosts},
		{"Starting the management plane", q.startPlane},
		{"Creating the cluster", q.createCluster},
		{"Waiting for the cluster", q.waitForCluster},
	}
	for i, step := range steps {
		if err := q.out.step(i+1, len(steps), step.name, func() error { return step.run(ctx) }); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	return q.show(ctx)
}

// Clean removes all that a run made, wherever it stopped.
func Clean(ctx context.Context, options Options) error {
	q := New(options)
	if err := q.load(); err != nil {
		return err
	}
	if !q.state.Private && q.state.LibvirtURI != "" {
		if err := q.out.step(1, 2, "Deleting the cluster from "+q.state.LibvirtURI, func() error { return q.deleteCluster(ctx) }); err != nil {
			return fmt.Errorf("deleting the cluster: %w (with the management plane gone nobody else would)", err)
		}
	}
	return q.out.step(2, 2, "Stopping the management plane and the KVM host", func() error { return q.stop(ctx) })
}

func (q *Quickstart) stop(ctx context.Context) error {
	if err := plane.Down(ctx, q.path("plane")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("stopping the management plane: %w", err)
	}
	for n := 1; ; n++ {
		host, err := privatehost.Open(q.path(nthHost(n)))
		if errors.Is(err, privatehost.ErrUnknown) {
			break
		}
		if err == nil {
			err = host.Remove(ctx)
		}
		if err != nil {
			return fmt.Errorf("stopping the KVM host %s: %w", nthHost(n), err)
		}
	}
	return os.RemoveAll(q.options.Dir)
}

func (q *Quickstart) load() error {
	data, err := os.ReadFile(q.path("state.json"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading the state: %w", err)
	}
	if err := json.Unmarshal(data, &q.state); err != nil {
		return fmt.Errorf("reading the state: %w", err)
	}
	return nil
}

func (q *Quickstart) save() error {
	data, err := json.Marshal(q.state)
	if err != nil {
		return fmt.Errorf("writing the state: %w", err)
	}
	if err := os.WriteFile(q.path("state.json"), data, 0o600); err != nil {
		return fmt.Errorf("writing the state: %w", err)
	}
	return nil
}
