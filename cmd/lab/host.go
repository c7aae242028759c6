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
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/lab/privatehost"
)

// hostsDir is where hosts keep their files. Unix sockets lie below it, so it
// has to be short.
const hostsDir = "/var/lib/capl/hosts"

// hostTimeout bounds the start and the stop of a host.
const hostTimeout = time.Minute

func newHostCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "host",
		Short: "Run private KVM hosts: a libvirtd each, in namespaces of its own",
		Long: `Run private KVM hosts: a libvirtd each, in network, mount and process
namespaces of its own. Any number runs side by side. Nothing else on the
machine is touched, and nothing is left when a host goes down. Needs root.`,
	}
	cmd.AddCommand(newHostUpCommand(), newHostDownCommand(), newHostListCommand(), newHostExecCommand(), newHostJoinCommand())
	return cmd
}

func newHostUpCommand() *cobra.Command {
	opts := privatehost.Options{}
	cmd := &cobra.Command{
		Use:     "up NAME",
		Short:   "Start a host and print its libvirt URI",
		Example: "  lab host up kvm1\n  virsh -c \"$(lab host up kvm2)\" pool-list",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			opts.Name = args[0]
			if opts.Dir == "" {
				opts.Dir = filepath.Join(hostsDir, opts.Name)
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), hostTimeout)
			defer cancel()
			host, err := privatehost.Start(ctx, opts)
			if err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), host.URI())
			return nil
		},
	}
	cmd.Flags().StringVar(&opts.Dir, "dir", "", "the host's directory, an absolute path (default "+hostsDir+"/NAME)")
	cmd.Flags().StringArrayVar(&opts.Libvirtd, "libvirtd-conf", nil, "a line for libvirtd.conf; may be repeated")
	cmd.Flags().StringArrayVar(&opts.QEMU, "qemu-conf", nil, "a line for qemu.conf; may be repeated")
	cmd.Flags().BoolVar(&opts.Listen, "listen", false, "listen on TCP and TLS, as --libvirtd-conf configures it")
	return cmd
}

func newHostDownCommand() *cobra.Command {
	var keep bool
	cmd := &cobra.Command{
		Use:   "down NAME",
		Short: "Stop a host, running or dead, and delete its files",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			host, err := findHost(args[0])
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), hostTimeout)
			defer cancel()
			if keep {
				return host.Stop(ctx)
			}
			return host.Remove(ctx)
		},
	}
	cmd.Flags().BoolVar(&keep, "keep", false, "keep the files: down and up are then a power cut and a boot")
	return cmd
}

func newHostListCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the running hosts",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			hosts, err := privatehost.List()
			if err != nil {
				return err
			}
			return printHosts(cmd.OutOrStdout(), hosts)
		},
	}
}

func printHosts(w io.Writer, hosts []*privatehost.Host) error {
	table := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(table, "NAME\tADDRESS\tURI")
	for _, host := range hosts {
		fmt.Fprintf(table, "%s\t%s\t%s\n", host.Name(), host.Addr(), host.URI())
	}
	return table.Flush()
}

func newHostExecCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "exec NAME -- COMMAND [ARG…]",
		Short: "Run a command in a host's network",
		Long: `Run a command in a host's network, on the machine's file system. virsh talks
to the host by default. The command ends with the host.`,
		Example: "  lab host exec kvm1 -- virsh list\n  lab host exec kvm1 -- ssh ubuntu@10.100.0.10",
		Args:    cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			host, err := findHost(args[0])
			if err != nil {
				return err
			}
			if !host.Running() {
				return fmt.Errorf("host %s: %w; start it with `lab host up %s`", args[0], privatehost.ErrNotRunning, args[0])
			}
			command := host.Command(cmd.Context(), args[1], args[2:]...)
			if command.Err != nil {
				return command.Err
			}
			// In our place: terminal, signals and exit code are then its own.
			return syscall.Exec(command.Path, command.Args, command.Env)
		},
	}
}

func newHostJoinCommand() *cobra.Command {
	var bridge string
	cmd := &cobra.Command{
		Use:   "join NAME OTHER",
		Short: "Connect two running hosts by a bridge in each, like a switch",
		Long: `Connect two running hosts by a bridge in each, as if both were plugged into one
switch. Join more hosts in a row or a star, never in a circle. The connection
ends when either host goes down.`,
		Example: "  lab host join kvm1 kvm2\n  lab host exec kvm1 -- ip addr add 192.168.50.1/24 dev lan0",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			var hosts [2]*privatehost.Host
			for k, name := range args {
				host, err := findHost(name)
				if err != nil {
					return err
				}
				hosts[k] = host
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), hostTimeout)
			defer cancel()
			return privatehost.Join(ctx, hosts[0], hosts[1], bridge)
		},
	}
	cmd.Flags().StringVar(&bridge, "bridge", "lan0", "the bridge's name on both hosts")
	return cmd
}

// findHost finds a running host by name, wherever its directory is, or one
// that is down where hosts are by default.
func findHost(name string) (*privatehost.Host, error) {
	running, err := privatehost.List()
	if err != nil {
		return nil, err
	}
	for _, host := range running {
		if host.Name() == name {
			return host, nil
		}
	}
	host, err := privatehost.Open(filepath.Join(hostsDir, name))
	if errors.Is(err, privatehost.ErrUnknown) {
		return nil, fmt.Errorf("host %s: %w; `lab host list` shows those that run", name, privatehost.ErrUnknown)
	}
	return host, err
}
