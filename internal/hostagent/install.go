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
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/gateway"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/host"
)

// Where install puts what it installs.
const (
	unitName    = "cluster-api-host-agent.service"
	unitPath    = "/etc/systemd/system/" + unitName
	programPath = "/usr/local/bin/cluster-api-host-agent"
)

//go:embed cluster-api-host-agent.service
var unit string

// renderUnit is systemd's unit. systemd reads a percent sign and a dollar sign in its own way.
func renderUnit(uri string) string {
	return strings.NewReplacer("PROGRAM", programPath, "URI", strings.NewReplacer("%", "%%", "$", "$$").Replace(uri)).Replace(unit)
}

// systemdRuns tells whether the host was booted with systemd.
func systemdRuns() bool {
	_, err := os.Stat("/run/systemd/system")
	return err == nil
}

func newInstallCommand() *cobra.Command {
	var uri, root string
	cmd := &cobra.Command{
		Use:   "install",
		Short: "Install this program as a service of systemd and start it, or upgrade the one that is installed",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if strings.ContainsAny(uri, " \t\n'\"\\") {
				return fmt.Errorf("--uri %q: it can't have blanks, quotes or backslashes", uri)
			}
			return install(cmd.Context(), cmd.OutOrStdout(), root, uri)
		},
	}
	addURI(cmd, &uri)
	cmd.Flags().StringVar(&root, "root", "/", "Install below this directory and start nothing.")
	return cmd
}

// install puts the program and its unit below root and, if that is the running system, has systemd start it.
func install(ctx context.Context, out io.Writer, root, uri string) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("finding this program: %w", err)
	}
	program, err := os.ReadFile(self)
	if err != nil {
		return fmt.Errorf("reading this program: %w", err)
	}
	for _, file := range []struct {
		path    string
		content []byte
		mode    os.FileMode
	}{{programPath, program, 0o755}, {unitPath, []byte(renderUnit(uri)), 0o644}} {
		path := filepath.Join(root, file.path)
		if err := replace(path, file.content, file.mode); err != nil {
			return fmt.Errorf("writing %s: %w", path, err)
		}
		fmt.Fprintln(out, "Wrote", path)
	}
	start := [][]string{{"systemctl", "daemon-reload"}, {"systemctl", "enable", unitName}, {"systemctl", "restart", unitName}}
	return control(ctx, out, root, start)
}

// control has systemd do something, or says what is to be done.
func control(ctx context.Context, out io.Writer, root string, commands [][]string) error {
	for _, command := range commands {
		if root != "/" || !systemdRuns() {
			fmt.Fprintln(out, "systemd doesn't run here; to be run there:", strings.Join(command, " "))
			continue
		}
		if _, err := run(ctx, "", command[0], command[1:]...); err != nil {
			return err
		}
		fmt.Fprintln(out, "Ran", strings.Join(command, " "))
	}
	return nil
}

// replace writes a file at once: the program that is there may be running.
func replace(path string, content []byte, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { //nolint:gosec // directories of the system
		return err
	}
	next, err := os.CreateTemp(filepath.Dir(path), ".next-")
	if err != nil {
		return err
	}
	defer os.Remove(next.Name()) // once renamed, it is not there any more
	_, err = next.Write(content)
	err = errors.Join(err, next.Chmod(mode), next.Sync(), next.Close())
	if err != nil {
		return err
	}
	return os.Rename(next.Name(), path)
}

func newUninstallCommand() *cobra.Command {
	var uri, dir, root string
	cmd := &cobra.Command{
		Use:   "uninstall",
		Short: "Stop the service and remove it, its rules, its link and the network with its status",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := newLog(cmd.ErrOrStderr(), "error")
			if err != nil {
				return err
			}
			return New(log, "", uri, dir).uninstall(cmd.Context(), cmd.OutOrStdout(), root)
		},
	}
	addURI(cmd, &uri)
	addStateDir(cmd, &dir)
	cmd.Flags().StringVar(&root, "root", "/", "Remove the files below this directory and stop nothing.")
	return cmd
}

// uninstall removes all that install and the agent made. It goes on after a failure, and may be run again.
func (a *Agent) uninstall(ctx context.Context, out io.Writer, root string) error {
	var errs []error
	if _, err := os.Stat(filepath.Join(root, unitPath)); err == nil {
		errs = append(errs, control(ctx, out, root, [][]string{{"systemctl", "disable", "--now", unitName}}))
	}
	for _, path := range []string{unitPath, programPath} {
		path = filepath.Join(root, path)
		switch err := os.Remove(path); {
		case err == nil:
			fmt.Fprintln(out, "Removed", path)
		case !errors.Is(err, os.ErrNotExist):
			errs = append(errs, fmt.Errorf("removing %s: %w", path, err))
		}
	}
	removed, err := a.tables.removeOthers(ctx, nil)
	for _, table := range removed {
		fmt.Fprintln(out, "Removed table inet", table)
	}
	unlinked, linkErr := a.wire.remove()
	if unlinked {
		fmt.Fprintln(out, "Removed interface", gateway.LinkInterface)
	}
	if kept, err := a.wire.files.read(); err != nil || kept != (keys{}) {
		fmt.Fprintf(out, "Kept %s with the host's WireGuard key: remove it if the host isn't to be linked again\n", a.wire.files.dir)
	}
	errs = append(errs, err, linkErr, a.once(ctx, func(libvirt *host.Host) error {
		err := libvirt.DeleteNetwork(ctx, gateway.StatusNetworkUUID)
		if errors.Is(err, host.ErrNotFound) {
			return nil
		}
		if err == nil {
			fmt.Fprintln(out, "Removed network", gateway.StatusNetworkName)
		}
		return err
	}))
	return errors.Join(errs...)
}
