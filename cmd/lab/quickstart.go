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

package main

import (
	"fmt"
	"os"
	"time"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	"k8s.io/klog/v2"

	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/lab/quickstart"
)

// quickstartDir keeps the state of the quickstart. Unix sockets lie below it, so it has to be short.
const quickstartDir = "/var/lib/capl/quickstart"

func newQuickstartCommand() *cobra.Command {
	options := quickstart.Options{}
	command := &cobra.Command{
		Use:   "quickstart",
		Short: "Go from nothing to a Kubernetes cluster of libvirt machines",
		Long: `Build what is missing, start a private KVM host and a management plane, create a
cluster with clusterctl, and wait until all its nodes are Ready. Run it in the
repository, as root. Variables of the cluster template are taken from the environment.`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			repository, err := os.Getwd()
			if err != nil {
				return fmt.Errorf("finding the repository: %w", err)
			}
			// What client-go says of an API server that comes and goes would only hide the progress.
			klog.SetLogger(logr.Discard())
			options.Repository, options.Out = repository, command.OutOrStdout()
			return quickstart.New(options).Run(command.Context())
		},
	}
	flags := command.PersistentFlags()
	flags.StringVar(&options.Dir, "dir", quickstartDir, "directory for the state, an absolute path")
	flags.StringVar(&options.LibvirtURI, "libvirt-uri", os.Getenv("LIBVIRT_URI"), "an existing libvirt daemon to use instead of a private one ($LIBVIRT_URI)")
	flags.IntVar(&options.Hosts, "hosts", 1, "number of private KVM hosts; several share a LAN")
	flags.StringVar(&options.Name, "name", "quickstart", "name of the cluster")
	flags.StringVar(&options.Namespace, "namespace", "default", "namespace of the cluster")
	flags.IntVar(&options.ControlPlanes, "control-planes", 1, "number of control-plane machines")
	flags.IntVar(&options.Workers, "workers", 1, "number of worker machines")
	flags.StringVar(&options.Flavor, "flavor", "", "flavor of the cluster template")
	flags.DurationVar(&options.Timeout, "timeout", 45*time.Minute, "how long the cluster may take")
	command.AddCommand(&cobra.Command{
		Use:   "clean",
		Short: "Remove all that quickstart made",
		Args:  cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			options.Out = command.OutOrStdout()
			return quickstart.Clean(command.Context(), options)
		},
	})
	return command
}
