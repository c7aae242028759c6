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

package privatehost

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// requireTools names what is missing before anything is started.
func requireTools() error {
	for tool, pkg := range map[string]string{
		"ip": "iproute2", "nsenter": "util-linux", "mount": "mount", "hostname": "hostname", "socat": "socat",
		"libvirtd": "libvirt-daemon-system", "virtlogd": "libvirt-daemon-system", "dnsmasq": "dnsmasq-base",
	} {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Errorf("looking for %s: %w; install the package %s and have /usr/sbin in PATH", tool, err, pkg)
		}
	}
	return nil
}

// startDaemons starts virtlogd and libvirtd. Each goes to the background only
// once its socket listens.
func (h *Host) startDaemons(ctx context.Context) error {
	if _, err := run(h.Inside(ctx, "virtlogd", "--daemon")); err != nil {
		return err
	}
	return h.StartDaemon(ctx)
}

// StartDaemon starts libvirtd again after StopDaemon or a SIGKILL. Domains and
// networks have gone on without it.
func (h *Host) StartDaemon(ctx context.Context) error {
	args := []string{"--daemon"}
	if h.state.Listen {
		args = append(args, "--listen")
	}
	if _, err := run(h.Inside(ctx, "libvirtd", args...)); err != nil {
		return fmt.Errorf("%w (its log is %s)", err, h.Log())
	}
	return nil
}

// StopDaemon ends libvirtd, and nothing else, with a signal such as SIGTERM or
// SIGKILL, and waits for its exit.
func (h *Host) StopDaemon(ctx context.Context, sig syscall.Signal) error {
	return h.signalDaemon(ctx, sig, true)
}

// SignalDaemon sends libvirtd a signal, such as SIGSTOP to make it hang and
// SIGCONT to let it go on.
func (h *Host) SignalDaemon(sig syscall.Signal) error {
	return h.signalDaemon(context.Background(), sig, false)
}

func (h *Host) signalDaemon(ctx context.Context, sig syscall.Signal, wait bool) error {
	pid, err := h.daemonPID()
	if err != nil {
		return err
	}
	if err := signal(ctx, pid, sig, wait); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("sending %s to libvirtd of host %s: %w", sig, h.state.Name, err)
	}
	return nil
}

// daemonPID returns libvirtd's pid on the machine, or an ErrNotRunning. Its
// pid file has the pid inside the host.
func (h *Host) daemonPID() (int, error) {
	inside, err := os.ReadFile(filepath.Join(h.dir, "run/libvirtd.pid"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return 0, fmt.Errorf("looking for libvirtd of host %s: %w", h.state.Name, err)
	}
	if err == nil && h.state.holderAlive() {
		pids, err := h.processes()
		if err != nil {
			return 0, fmt.Errorf("looking for libvirtd of host %s: %w", h.state.Name, err)
		}
		for _, pid := range pids {
			if pidInside(pid) == strings.TrimSpace(string(inside)) {
				return pid, nil
			}
		}
	}
	return 0, fmt.Errorf("libvirtd of host %s: %w", h.state.Name, ErrNotRunning)
}

// pidInside returns a process's pid in the innermost process namespace, or
// nothing if the process is in none but the machine's.
func pidInside(pid int) string {
	status, err := os.ReadFile(procFile(pid, "status"))
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "NSpid:"); ok {
			if pids := strings.Fields(rest); len(pids) > 1 && pids[0] == strconv.Itoa(pid) {
				return pids[len(pids)-1]
			}
		}
	}
	return ""
}
