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

// Package privatehost runs a libvirtd of its own, in network, mount, process
// and host-name namespaces of its own, so that one machine can play any number
// of KVM hosts side by side without being touched itself.
//
// Everything hangs on one process, the holder: it is process 1 of the
// namespaces, and when it dies, by Stop, by a signal or with the program that
// started it (Options.EndWithProcess), the kernel ends every process of the
// host and drops its mounts, its network and its end of the link to the
// machine. All that remains is the host's directory.
package privatehost

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// ErrRunning is returned by Start when the directory's host runs already.
var ErrRunning = errors.New("already running")

// ErrNotRunning is returned when something is asked of a host that is down.
var ErrNotRunning = errors.New("not running")

// ErrUnknown is returned by Open for a directory that holds no private host.
var ErrUnknown = errors.New("no private host")

// Options say what host to start.
type Options struct {
	// Name is the host's name and the host name its libvirtd reports:
	// lower-case letters, digits and dashes, at most 40.
	Name string

	// Dir is the absolute path of the host's directory; it is created when
	// missing. Definitions, volumes and logs live there and outlive Stop, so
	// that a Stop and a Start are a power cut and a boot.
	Dir string

	// Libvirtd are lines of libvirtd.conf that take precedence over ours,
	// such as `log_filters="1:rpc"` or `listen_tcp=1`.
	Libvirtd []string

	// QEMU are lines of qemu.conf that take precedence over ours.
	QEMU []string

	// Listen makes libvirtd listen on TCP and TLS, as Libvirtd configures it.
	Listen bool

	// EndWithProcess ends the host when the process that called Start ends,
	// even by SIGKILL.
	EndWithProcess bool
}

// Host is a private host. Its methods may be used concurrently, except those
// that start and stop something.
type Host struct {
	dir   string
	state state

	// hold is the write end of a pipe, or -1. Nobody writes: closing it, or the
	// end of this process, ends a host that was started with EndWithProcess.
	// It is no *os.File, which would be closed when the Host is collected.
	hold int
}

var namePattern = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?$`)

// longestSocket is the longest of libvirtd's socket paths below Dir; a Unix
// socket's path has at most 107 bytes.
const longestSocket = "/run/libvirt/virtlogd-admin-sock"

func (o *Options) validate() error {
	switch {
	case !namePattern.MatchString(o.Name):
		return fmt.Errorf("host name %q: use at most 40 lower-case letters, digits and dashes", o.Name)
	case !filepath.IsAbs(o.Dir) || filepath.Clean(o.Dir) != o.Dir:
		return fmt.Errorf("host directory %q: use a clean absolute path", o.Dir)
	case len(o.Dir)+len(longestSocket) > 107:
		return fmt.Errorf("host directory %q: too long by %d bytes for a Unix socket below it; use a shorter path",
			o.Dir, len(o.Dir)+len(longestSocket)-107)
	}
	return nil
}

// Start starts a host and returns when its libvirtd answers. It needs root.
// Leftovers of a host that died in the same directory are cleaned up first; a
// host that runs there is an ErrRunning.
func Start(ctx context.Context, opts Options) (*Host, error) {
	if err := opts.validate(); err != nil {
		return nil, err
	}
	if os.Geteuid() != 0 {
		return nil, errors.New("starting a private host: needs root, for namespaces and mounts")
	}
	if err := requireTools(); err != nil {
		return nil, err
	}

	switch old, err := Open(opts.Dir); {
	case errors.Is(err, ErrUnknown):
	case err != nil:
		return nil, err
	default:
		if _, err := old.daemonPID(); err == nil {
			return nil, fmt.Errorf("starting host %s: %w in %s; stop it first", opts.Name, ErrRunning, opts.Dir)
		}
		if err := old.Stop(ctx); err != nil {
			return nil, fmt.Errorf("cleaning up after host %s: %w", opts.Name, err)
		}
	}

	h := &Host{dir: opts.Dir, hold: -1, state: state{Name: opts.Name, Listen: opts.Listen}}
	if err := h.boot(ctx, &opts); err != nil {
		return nil, errors.Join(fmt.Errorf("starting host %s: %w", opts.Name, err), h.Stop(context.WithoutCancel(ctx)))
	}
	return h, nil
}

func (h *Host) boot(ctx context.Context, opts *Options) error {
	if err := writeFiles(opts); err != nil {
		return err
	}
	if err := loadProbes(opts.Dir); err != nil {
		return err
	}
	if err := h.startHolder(ctx, opts.EndWithProcess); err != nil {
		return err
	}
	if err := h.state.save(h.dir); err != nil {
		return err
	}
	if err := h.plugIn(ctx); err != nil {
		return err
	}
	if err := h.state.save(h.dir); err != nil {
		return err
	}
	return h.startDaemons(ctx)
}

// Open returns the host of a directory, running or not, or an ErrUnknown.
func Open(dir string) (*Host, error) {
	h := &Host{dir: dir, hold: -1}
	if err := h.state.load(dir); err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("%w in %s", ErrUnknown, dir)
		}
		return nil, fmt.Errorf("reading the state of the host in %s: %w", dir, err)
	}
	return h, nil
}

// Stop pulls the plug: it ends every process of the host, those started with
// Command included, and with them its network and mounts. It also cleans up
// after a host that died. The directory stays.
func (h *Host) Stop(ctx context.Context) error {
	defer h.release()
	if err := h.endProcesses(ctx); err != nil {
		return fmt.Errorf("stopping host %s: %w", h.state.Name, err)
	}
	if err := h.unplug(ctx); err != nil {
		return fmt.Errorf("stopping host %s: %w", h.state.Name, err)
	}
	if err := h.saveProbes(); err != nil {
		return fmt.Errorf("stopping host %s: %w", h.state.Name, err)
	}
	return nil
}

// Remove stops the host and deletes its directory.
func (h *Host) Remove(ctx context.Context) error {
	if err := h.Stop(ctx); err != nil {
		return err
	}
	if err := os.RemoveAll(h.dir); err != nil {
		return fmt.Errorf("removing host %s: %w", h.state.Name, err)
	}
	return nil
}

// Name is the host's name.
func (h *Host) Name() string { return h.state.Name }

// Dir is the host's directory.
func (h *Host) Dir() string { return h.dir }

// URI is the libvirt URI that reaches the host's libvirtd through its Unix
// socket, from any network namespace.
func (h *Host) URI() string {
	return "qemu+unix:///system?socket=" + h.Socket()
}

// Socket is the path of libvirtd's Unix socket.
func (h *Host) Socket() string { return filepath.Join(h.dir, "run/libvirt/libvirt-sock") }

// Netns is the path of the host's network namespace, valid while it runs.
func (h *Host) Netns() string { return procFile(h.state.Holder, "ns/net") }

// Addr is the host's address on its link to the machine.
func (h *Host) Addr() netip.Addr { return h.state.Addr }

// MachineAddr is the machine's address on its link to the host.
func (h *Host) MachineAddr() netip.Addr { return h.state.MachineAddr }

// Log is the path of libvirtd's log.
func (h *Host) Log() string { return filepath.Join(h.dir, "log/libvirtd.log") }

// Running says whether the host's namespaces exist. Its libvirtd may be down.
func (h *Host) Running() bool { return h.state.holderAlive() }

// Path returns where a path that libvirtd uses, such as that of a volume, is
// found from outside the host.
func (h *Host) Path(inside string) string {
	for mount, dir := range map[string]string{
		"/var/lib/libvirt": "lib", "/etc/libvirt": "etc", "/var/log/libvirt": "log",
		"/var/cache/libvirt": "cache", "/run": "run",
	} {
		if rest, ok := strings.CutPrefix(inside, mount+"/"); ok {
			return filepath.Join(h.dir, dir, rest)
		}
	}
	return inside
}

// Command returns a command that runs in the host's network namespace and
// otherwise on the machine, with virsh talking to the host by default. It runs
// as the returned process itself, so signals reach it. Stop ends it.
func (h *Host) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{"--net=" + h.Netns(), "--", name}, args...)...)
	cmd.Env = append(os.Environ(), "LIBVIRT_DEFAULT_URI="+h.URI())
	return cmd
}

func procFile(pid int, name string) string {
	return filepath.Join("/proc", strconv.Itoa(pid), name)
}
