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

package hostagent

import (
	"context"
	"fmt"
	"io"
	"log/slog"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"

	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/host"
)

// NewCommand is the program, which logs to its standard error. The version is that of the program.
func NewCommand(version string) *cobra.Command {
	cmd := &cobra.Command{
		Use:           "host-agent",
		Short:         "Let traffic into the node networks of Cluster API clusters on this KVM host, and out of them",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	cmd.AddCommand(newRunCommand(version), newInstallCommand(), newUninstallCommand(), newRotateKeyCommand(), &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		Run:   func(cmd *cobra.Command, _ []string) { fmt.Fprintln(cmd.OutOrStdout(), version) },
	})
	return cmd
}

// addURI adds the flag that says where libvirt is.
func addURI(cmd *cobra.Command, uri *string) {
	cmd.Flags().StringVar(uri, "uri", "qemu:///system", "Where libvirt of this host is.")
}

// newLog returns a logger for a level such as info.
func newLog(out io.Writer, level string) (logr.Logger, error) {
	var parsed slog.Level
	if err := parsed.UnmarshalText([]byte(level)); err != nil {
		return logr.Logger{}, fmt.Errorf("--log-level %s: use error, warn, info or debug", level)
	}
	return logr.FromSlogHandler(slog.NewTextHandler(out, &slog.HandlerOptions{Level: parsed})), nil
}

func newRunCommand(version string) *cobra.Command {
	var uri, dir, level string
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Keep the rules of this host as the clusters want them, until told to end",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := newLog(cmd.ErrOrStderr(), level)
			if err != nil {
				return err
			}
			agent := New(log, version, uri, dir)
			if dryRun {
				return agent.DryRun(cmd.Context(), cmd.OutOrStdout())
			}
			log.Info("Starting", "version", version, "uri", uri)
			return agent.Run(cmd.Context())
		},
	}
	addURI(cmd, &uri)
	addStateDir(cmd, &dir)
	cmd.Flags().StringVar(&level, "log-level", "info", "What is logged: error, warn, info or debug.")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "Print the rules that would be written, as comments what would be told, and end.")
	return cmd
}

// connect waits for libvirt to answer.
func (a *Agent) connect(ctx context.Context) (*host.Host, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		if libvirt, err := a.pool.Get(hostKey); err == nil {
			return libvirt, nil
		}
		select {
		case <-a.pool.Events():
		case <-ctx.Done():
			_, err := a.pool.Get(hostKey)
			return nil, fmt.Errorf("connecting to libvirt: %w", err)
		}
	}
}

// once connects to libvirt, reads what it has, does something with it, and disconnects.
func (a *Agent) once(ctx context.Context, do func(*host.Host) error) error {
	poolCtx, stop := context.WithCancel(ctx)
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		_ = a.pool.Start(poolCtx) // it ends with its context and returns no error
	}()
	defer func() { stop(); <-stopped }()
	libvirt, err := a.connect(ctx)
	if err != nil {
		return err
	}
	if err := a.look(ctx, libvirt); err != nil {
		return err
	}
	return do(libvirt)
}
