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
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/lab/plane"
)

const clusterAPIModule = "sigs.k8s.io/cluster-api"

func newPlaneCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "plane",
		Short: "Run an ephemeral Cluster API management cluster without containers",
		Long: `Run an ephemeral Cluster API management cluster without containers: etcd,
kube-apiserver, kube-controller-manager and the providers' managers as supervised
processes on loopback, optionally inside a network namespace.`,
	}
	command.AddCommand(newPlaneUpCommand(), newPlaneDownCommand(), newPlaneStatusCommand(), newPlaneSuperviseCommand())
	return command
}

func newPlaneUpCommand() *cobra.Command {
	var options plane.Options
	provider := plane.Provider{Name: "capi-libvirt"}
	var foreground bool
	command := &cobra.Command{
		Use:   "up --dir DIR --bin-dir DIR",
		Short: "Bring the management cluster up and wait until all of it answers",
		Args:  cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			if (provider.Manager == "") != (provider.Config == "") {
				return errors.New("--provider-manager and --provider-config belong together: give both or neither")
			}
			if provider.Manager != "" {
				options.Providers = []plane.Provider{provider}
			}
			if err := findClusterAPI(command.Context(), &options); err != nil {
				return err
			}
			if foreground {
				return superviseHere(options)
			}
			return planeUp(command.Context(), options, command.OutOrStdout())
		},
	}
	flags := command.Flags()
	flags.StringVar(&options.Dir, "dir", "", "directory of the management cluster: kubeconfig, keys, data, logs")
	flags.StringVar(&options.BinDir, "bin-dir", "", "directory of etcd, kube-apiserver, kube-controller-manager, kustomize and Cluster API's managers")
	flags.StringVar(&options.Netns, "netns", "", "network namespace to run everything in: a path, or a name known to ip netns")
	flags.StringVar(&options.ClusterAPIDir, "cluster-api-dir", "", "directory of the module "+clusterAPIModule+" (default: where the Go module cache has it)")
	flags.StringVar(&options.ClusterAPIVersion, "cluster-api-version", "", "version of that module (default: as in go.mod)")
	flags.StringVar(&provider.Manager, "provider-manager", "", "path of the infrastructure provider's manager")
	flags.StringVar(&provider.Config, "provider-config", "", "kustomization of the infrastructure provider's components (config/default)")
	flags.StringVar(&provider.Version, "provider-version", "v0.1.0", "version of the infrastructure provider in clusterctl's inventory")
	flags.StringToStringVar(&options.Variables, "set", nil, "NAME=value for ${NAME:=default} in the providers' manifests; may be repeated")
	flags.StringVar(&options.BindAddress, "bind-address", "", "address that the API server listens on (default: loopback)")
	flags.IntVar(&options.APIPort, "api-port", 0, "port of the API server (default: one that is free)")
	flags.StringSliceVar(&options.ServerNames, "server-name", nil, "further address or name by which the API server may be called; may be repeated")
	flags.BoolVar(&foreground, "foreground", false, "stay in the foreground and take everything down on interrupt")
	requireFlags(command, "dir", "bin-dir")
	return command
}

func planeUp(ctx context.Context, options plane.Options, out io.Writer) error {
	began := time.Now()
	p, err := plane.Up(ctx, options)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "The management cluster is up after %s.\n%s\n",
		time.Since(began).Round(100*time.Millisecond), accessHint(options.Netns, p.Kubeconfig()))
	return err
}

func accessHint(netns, kubeconfig string) string {
	hint := "kubectl --kubeconfig " + kubeconfig + " get providers -A"
	if netns != "" {
		hint += " (in network namespace " + netns + ")"
	}
	return "Look at it with: " + hint
}

// superviseHere replaces this process by the supervisor.
func superviseHere(options plane.Options) error {
	argv, err := plane.Prepare(options)
	if err != nil {
		return err
	}
	path, err := exec.LookPath(argv[0])
	if err != nil {
		return fmt.Errorf("looking for %s: %w", argv[0], err)
	}
	return unix.Exec(path, argv, os.Environ())
}

// findClusterAPI asks the go command for what the flags leave open.
func findClusterAPI(ctx context.Context, options *plane.Options) error {
	if options.ClusterAPIDir != "" && options.ClusterAPIVersion != "" {
		return nil
	}
	var stderr strings.Builder
	list := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}\n{{.Version}}", clusterAPIModule)
	list.Stderr = &stderr
	output, err := list.Output()
	if err != nil {
		return fmt.Errorf("looking for the module %s (run this in the repository, or give --cluster-api-dir and --cluster-api-version): %w: %s",
			clusterAPIModule, err, strings.TrimSpace(stderr.String()))
	}
	dir, version, _ := strings.Cut(strings.TrimSpace(string(output)), "\n")
	if options.ClusterAPIDir == "" {
		options.ClusterAPIDir = dir
	}
	if options.ClusterAPIVersion == "" {
		options.ClusterAPIVersion = version
	}
	return nil
}

func newPlaneDownCommand() *cobra.Command {
	var dir string
	command := &cobra.Command{
		Use:   "down --dir DIR",
		Short: "End every process of the management cluster and remove its keys and data",
		Args:  cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			return plane.Down(command.Context(), dir)
		},
	}
	command.Flags().StringVar(&dir, "dir", "", "directory of the management cluster")
	requireFlags(command, "dir")
	return command
}

func newPlaneStatusCommand() *cobra.Command {
	var dir string
	var asJSON bool
	command := &cobra.Command{
		Use:   "status --dir DIR",
		Short: "Show every process of the management cluster; fails unless all of them are healthy",
		Args:  cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			p, err := plane.Open(dir)
			if err != nil {
				return err
			}
			status, err := p.Status(command.Context())
			if err != nil {
				return err
			}
			render := printPlaneStatus
			if asJSON {
				render = printJSON
			}
			if err := render(command.OutOrStdout(), status); err != nil {
				return err
			}
			if !status.Healthy() {
				return errors.New("the management cluster is not healthy")
			}
			return nil
		},
	}
	command.Flags().StringVar(&dir, "dir", "", "directory of the management cluster")
	command.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	requireFlags(command, "dir")
	return command
}

func printJSON(out io.Writer, status plane.Status) error {
	encoder := json.NewEncoder(out)
	encoder.SetIndent("", "  ")
	return encoder.Encode(status)
}

func printPlaneStatus(out io.Writer, status plane.Status) error {
	table := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	fmt.Fprintf(table, "PROCESS\tPID\tHEALTHY\tAGE\tRESTARTS\tLAST LOG LINE\n")
	for _, p := range status.Processes {
		fmt.Fprintf(table, "%s\t%d\t%t\t%s\t%d\t%s\n",
			p.Name, p.PID, p.Healthy, time.Since(p.Since).Round(time.Second), p.Restarts, abbreviate(p.LastLine))
	}
	return table.Flush()
}

// abbreviate keeps a log line from wrapping on a wide terminal.
func abbreviate(line string) string {
	const limit = 100
	if runes := []rune(line); len(runes) > limit {
		return string(runes[:limit-1]) + "…"
	}
	return line
}

func newPlaneSuperviseCommand() *cobra.Command {
	var dir string
	var reportFD int
	command := &cobra.Command{
		Use:    "supervise --dir DIR",
		Short:  "Run a prepared management cluster until interrupted",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			absolute, err := filepath.Abs(dir)
			if err != nil {
				return fmt.Errorf("resolving %s: %w", dir, err)
			}
			if reportFD < 0 {
				return plane.Supervise(command.Context(), absolute, nil)
			}
			// The children must not hold the pipe open.
			unix.CloseOnExec(reportFD)
			report := os.NewFile(uintptr(reportFD), "report")
			defer func() { _ = report.Close() }()
			return plane.Supervise(command.Context(), absolute, report)
		},
	}
	command.Flags().StringVar(&dir, "dir", "", "directory of the management cluster")
	command.Flags().IntVar(&reportFD, "report-fd", -1, "file descriptor to report on how the start went")
	requireFlags(command, "dir")
	return command
}

func requireFlags(command *cobra.Command, names ...string) {
	for _, name := range names {
		if err := command.MarkFlagRequired(name); err != nil {
			panic(err) // The flag was misspelt here.
		}
	}
}
