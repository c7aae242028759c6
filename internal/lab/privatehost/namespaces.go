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
	"bufio"
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

//go:embed namespaces.sh
var namespacesScript string

// startHolder starts the process that makes and keeps the namespaces, and
// waits until they are ready.
func (h *Host) startHolder(ctx context.Context, endWithProcess bool) error {
	hold := "forever"
	cmd := exec.Command("sh", "-c", namespacesScript, "sh", h.dir, h.state.Name, hold)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setsid:     true,
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWUTS,
	}
	cmd.Dir = "/"
	if endWithProcess {
		cmd.Args[len(cmd.Args)-1] = "parent"
		var pipe [2]int
		if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
			return fmt.Errorf("making the namespaces: %w", err)
		}
		read := os.NewFile(uintptr(pipe[0]), "hold")
		defer read.Close()
		cmd.Stdin, h.hold = read, pipe[1]
	}
	ready, said, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("making the namespaces: %w", err)
	}
	defer ready.Close()
	cmd.Stdout, cmd.Stderr = said, said
	err = cmd.Start()
	said.Close()
	if err != nil {
		return fmt.Errorf("making the namespaces: %w", err)
	}
	go func() { _ = cmd.Wait() }() // reap it: it is meant to be killed

	h.state.Holder, h.state.Netns, h.state.Boot = cmd.Process.Pid, netnsOf(cmd.Process.Pid), bootID()
	if deadline, ok := ctx.Deadline(); ok {
		_ = ready.SetReadDeadline(deadline)
	}
	var output []string
	for lines := bufio.NewScanner(ready); lines.Scan(); {
		if lines.Text() == "ready" {
			return nil
		}
		output = append(output, lines.Text())
	}
	if ctx.Err() != nil {
		return fmt.Errorf("making the namespaces: %w", ctx.Err())
	}
	return fmt.Errorf("making the namespaces: %s", strings.Join(output, "; "))
}

// release lets go of a host that ends with this process.
func (h *Host) release() {
	if h.hold >= 0 {
		_ = unix.Close(h.hold)
		h.hold = -1
	}
}

// Inside returns a command that runs fully inside the host, as its libvirtd
// does: with its network, its /run, /etc/libvirt and /var/lib/libvirt, and its
// processes. Signals don't reach it, but it ends with the host.
func (h *Host) Inside(ctx context.Context, name string, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "nsenter", append([]string{
		"--target", strconv.Itoa(h.state.Holder), "--mount", "--net", "--pid", "--uts", "--wd=/", "--", name}, args...)...)
}

// endProcesses kills the host's processes and waits until they are gone. The
// holder goes first and takes everything inside the process namespace along;
// what is left entered the network from outside.
func (h *Host) endProcesses(ctx context.Context) error {
	if h.state.Boot != bootID() {
		return nil
	}
	if h.state.holderAlive() {
		if err := kill(ctx, h.state.Holder); err != nil {
			return err
		}
	}
	if !h.pluggedIn() && h.state.Addr.IsValid() {
		// The link dies with the network namespace, whose number may already
		// be that of another one.
		return nil
	}
	for {
		pids, err := h.processes()
		if err != nil || len(pids) == 0 {
			return err
		}
		for _, pid := range pids {
			if err := kill(ctx, pid); err != nil {
				return err
			}
		}
	}
}

// processes lists the processes in the host's network namespace, except us.
func (h *Host) processes() ([]int, error) {
	entries, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, entry := range entries {
		pid, err := strconv.Atoi(filepath.Base(entry))
		if err == nil && pid != os.Getpid() && h.state.Netns != "" && netnsOf(pid) == h.state.Netns {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// kill kills a process and waits until it has exited.
func kill(ctx context.Context, pid int) error {
	if err := signal(ctx, pid, unix.SIGKILL, true); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("ending process %d: %w", pid, err)
	}
	return nil
}

// signal sends a signal to a process and, if asked to, waits for its exit.
func signal(ctx context.Context, pid int, sig syscall.Signal, wait bool) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.PidfdSendSignal(fd, sig, nil, 0); err != nil {
		return err
	}
	for wait {
		if err := ctx.Err(); err != nil {
			return err
		}
		// Wakes up now and then only to look at the context.
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(time.Second.Milliseconds()))
		if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		wait = n == 0
	}
	return nil
}

// run runs a command and makes its output part of its error.
func run(cmd *exec.Cmd) ([]byte, error) {
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("running %s: %w: %s", strings.Join(cmd.Args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return stdout.Bytes(), nil
}
