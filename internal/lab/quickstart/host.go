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

package quickstart

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/clientcmd"

	"k8s.io/apimachinery/pkg/runtime"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/lab/plane"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/lab/privatehost"
)

// startHosts starts the private hosts that aren't there yet, unless an existing libvirt daemon is to be used.
func (q *Quickstart) startHosts(ctx context.Context) error {
	q.state.Namespace, q.state.Name = q.options.Namespace, q.options.Name
	if q.options.LibvirtURI != "" {
		q.state.LibvirtURI = q.options.LibvirtURI
		q.out.say("Using %s", q.options.LibvirtURI)
		return q.save()
	}
	for n := 1; n <= max(q.options.Hosts, 1); n++ {
		name := nthHost(n)
		host, err := privatehost.Open(q.path(name))
		if err != nil || !host.Running() {
			host, err = privatehost.Start(ctx, privatehost.Options{Name: name, Dir: q.path(name)})
		}
		if err != nil {
			return err
		}
		q.hosts = append(q.hosts, host)
		q.out.say("%s", host.URI())
	}
	q.host, q.state.Private, q.state.LibvirtURI = q.hosts[0], true, q.hosts[0].URI()
	if err := q.save(); err != nil {
		return err
	}
	return q.joinHosts(ctx)
}

func nthHost(n int) string { return fmt.Sprintf("kvm%d", n) }

// apiPort is the port of the management plane's API server, which the kubeconfigs name.
const apiPort = 16443

// startPlane starts the management plane: in the network of the private host, because the cluster's API server can be
// reached only from there.
func (q *Quickstart) startPlane(ctx context.Context) error {
	dir, version, err := q.clusterAPI(ctx)
	if err != nil {
		return err
	}
	options := plane.Options{
		Dir: q.path("plane"), BinDir: q.binDir, ClusterAPIDir: dir, ClusterAPIVersion: version, APIPort: apiPort,
		Supervisor: q.options.Supervisor,
		Providers: []plane.Provider{{
			Name:    "capi-libvirt",
			Manager: filepath.Join(q.options.Repository, "bin", "manager"),
			Config:  filepath.Join(q.options.Repository, "config", "default"),
			Version: "v0.1.0",
		}},
	}
	address := "127.0.0.1"
	if q.host != nil {
		address = q.host.Addr().String()
		options.Netns, options.BindAddress, options.ServerNames = q.host.Netns(), "0.0.0.0", []string{address}
	}
	if q.plane, err = plane.Open(options.Dir); err == nil {
		status, statusErr := q.plane.Status(ctx)
		if statusErr != nil || !status.Healthy() {
			err = errors.Join(errors.New("the management plane of an earlier run isn't healthy"), plane.Down(ctx, options.Dir))
		}
	}
	if err != nil {
		if q.plane, err = plane.Up(ctx, options); err != nil {
			return err
		}
	}
	kubeconfig, err := q.plane.KubeconfigFor("https://" + net.JoinHostPort(address, strconv.Itoa(apiPort)))
	if err != nil {
		return err
	}
	if err := os.WriteFile(q.Kubeconfig(), kubeconfig, 0o600); err != nil {
		return fmt.Errorf("writing the kubeconfig: %w", err)
	}
	return q.connect()
}

// connect makes the client of the management plane.
func (q *Quickstart) connect() error {
	config, err := clientcmd.BuildConfigFromFlags("", q.Kubeconfig())
	if err != nil {
		return fmt.Errorf("reading the kubeconfig: %w", err)
	}
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, clusterv1.AddToScheme, infrav1.AddToScheme} {
		if err := add(scheme); err != nil {
			return err
		}
	}
	if q.client, err = client.New(config, client.Options{Scheme: scheme}); err != nil {
		return fmt.Errorf("connecting to the management plane: %w", err)
	}
	return nil
}

// clusterAPI finds the module of Cluster API and its version.
func (q *Quickstart) clusterAPI(ctx context.Context) (dir, version string, err error) {
	const module = "sigs.k8s.io/cluster-api"
	if dir, err = q.script(ctx, "cluster-api", "go", "list", "-m", "-f", "{{.Dir}}", module); err != nil {
		return "", "", err
	}
	version, err = q.script(ctx, "cluster-api-version", "go", "list", "-m", "-f", "{{.Version}}", module)
	return dir, version, err
}

// exposeCluster lets the machine's own network reach the cluster's API server inside the private host's.
func (q *Quickstart) exposeCluster(ctx context.Context, endpoint string) error {
	if q.host == nil {
		return nil
	}
	forward := q.host.Command(context.WithoutCancel(ctx), "socat",
		fmt.Sprintf("TCP-LISTEN:6443,bind=%s,fork,reuseaddr", q.host.Addr()), "TCP:"+endpoint)
	if forward.SysProcAttr == nil {
		forward.SysProcAttr = &syscall.SysProcAttr{}
	}
	// It outlives this program and ends with the host.
	forward.SysProcAttr.Setsid, forward.Cancel = true, nil
	if err := forward.Start(); err != nil {
		return fmt.Errorf("forwarding to the cluster's API server: %w", err)
	}
	return forward.Process.Release()
}
