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

// Package plugin is "kubectl libvirt": the console of a machine, a picture of its display, and a cluster as a tree down to
// the volumes on its hosts. It reads LibvirtHosts and their Secrets with the rights of the user who calls it, and talks to
// the hosts from the user's own machine.
package plugin

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/klog/v2"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/host"
)

// options are what all commands share.
type options struct {
	genericiooptions.IOStreams
	config *genericclioptions.ConfigFlags
	// patience is how long a host may take to be connected.
	patience time.Duration
}

// NewCommand returns the plugin's command, which reads and writes the streams.
func NewCommand(streams genericiooptions.IOStreams) *cobra.Command {
	o := &options{IOStreams: streams, config: genericclioptions.NewConfigFlags(true)}
	command := &cobra.Command{
		Use:           "kubectl-libvirt",
		Short:         "Look at Cluster API machines on libvirt hosts",
		Annotations:   map[string]string{cobra.CommandDisplayNameAnnotation: "kubectl libvirt"},
		SilenceUsage:  true,
		SilenceErrors: true,
		PersistentPreRun: func(*cobra.Command, []string) {
			klog.SetLogger(logr.Discard()) // what goes wrong is told by the error
		},
	}
	command.SetIn(streams.In)
	command.SetOut(streams.Out)
	command.SetErr(streams.ErrOut)
	o.config.AddFlags(command.PersistentFlags())
	command.PersistentFlags().DurationVar(&o.patience, "host-timeout", 20*time.Second, "How long connecting to a host may take")
	command.AddCommand(newConsoleCommand(o), newScreenshotCommand(o), newTreeCommand(o))
	return command
}

// session is one call of a command: the management cluster, and the hosts that were connected.
type session struct {
	*options
	client    client.Client
	namespace string
	pool      *host.Pool
}

// run opens a session for a command.
func (o *options) run(ctx context.Context, do func(context.Context, *session) error) (err error) {
	config, err := o.config.ToRESTConfig()
	if err != nil {
		return fmt.Errorf("reading the kubeconfig: %w", err)
	}
	namespace, _, err := o.config.ToRawKubeConfigLoader().Namespace()
	if err != nil {
		return fmt.Errorf("reading the kubeconfig: %w", err)
	}
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, clusterv1.AddToScheme, infrav1.AddToScheme} {
		if err := add(scheme); err != nil {
			return err
		}
	}
	c, err := client.New(config, client.Options{Scheme: scheme})
	if err != nil {
		return fmt.Errorf("connecting to the management cluster: %w", err)
	}
	pool := host.NewPool(logr.Discard())
	// The connections outlive an interrupted command until all that hangs on them is closed.
	ending, end := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan error, 1)
	go func() { ended <- pool.Start(ending) }()
	defer func() {
		end()
		err = errors.Join(err, <-ended)
	}()
	return do(ctx, &session{options: o, client: c, namespace: namespace, pool: pool})
}
