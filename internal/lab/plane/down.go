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

package plane

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// termGrace is how long a supervisor may take to end its children before it is killed, upon which
// the kernel kills them.
const termGrace = 25 * time.Second

// identity tells a process from another that got the same pid later.
type identity struct {
	PID int `json:"pid"`
	// StartTicks is the process's start in clock ticks since boot.
	StartTicks uint64 `json:"startTicks"`
}

// handle refers to one process for as long as it is open, whatever becomes of its pid.
type handle struct {
	pid int
	fd  int
}

func (h *handle) close() { _ = unix.Close(h.fd) }

// ended waits until the process is gone, or for the given time at most.
func (h *handle) ended(ctx context.Context, timeout time.Duration) (bool, error) {
	deadline := time.Now().Add(timeout)
	for {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		left := time.Until(deadline)
		if left < 0 {
			return false, nil
		}
		// Waking up now and then is for the context's sake only.
		slice := min(left, 500*time.Millisecond)
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(h.fd), Events: unix.POLLIN}}, int(slice.Milliseconds())+1)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return false, fmt.Errorf("waiting for process %d: %w", h.pid, err)
		case n > 0:
			return true, nil
		}
	}
}

// open returns a handle on the process, or nil if it is gone.
func (id identity) open() (*handle, error) {
	fd, err := unix.PidfdOpen(id.PID, 0)
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("opening process %d: %w", id.PID, err)
	}
	h := &handle{pid: id.PID, fd: fd}
	// The start time is read after the handle was opened: if it matches, so does the handle.
	stat, err := readStat(id.PID)
	if err != nil || stat.startTicks != id.StartTicks || stat.state == "Z" {
		h.close()
		return nil, nil //nolint:nilerr // A process without a stat file has ended.
	}
	return h, nil
}

// stat is what is used of /proc/PID/stat.
type stat struct {
	state      string
	parent     int
	startTicks uint64
}

func readStat(pid int) (stat, error) {
	content, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return stat{}, fmt.Errorf("reading the state of process %d: %w", pid, err)
	}
	return parseStat(content)
}

// parseStat reads the fields after the command name, which may itself hold spaces and parentheses.
func parseStat(content []byte) (stat, error) {
	end := bytes.LastIndexByte(content, ')')
	if end < 0 {
		return stat{}, fmt.Errorf("parsing a process's state: no command name in %q", content)
	}
	fields := strings.Fields(string(content[end+1:]))
	const stateField, parentField, startField = 0, 1, 19
	if len(fields) <= startField {
		return stat{}, fmt.Errorf("parsing a process's state: %d fields after the command name", len(fields))
	}
	parent, err := strconv.Atoi(fields[parentField])
	if err != nil {
		return stat{}, fmt.Errorf("parsing a process's parent: %w", err)
	}
	start, err := strconv.ParseUint(fields[startField], 10, 64)
	if err != nil {
		return stat{}, fmt.Errorf("parsing a process's start time: %w", err)
	}
	return stat{state: fields[stateField], parent: parent, startTicks: start}, nil
}

// childrenOf opens a handle on every child of the process.
func childrenOf(pid int) ([]*handle, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("listing processes: %w", err)
	}
	var children []*handle
	for _, entry := range entries {
		candidate, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		s, err := readStat(candidate)
		if err != nil || s.parent != pid {
			continue
		}
		h, err := identity{PID: candidate, StartTicks: s.startTicks}.open()
		if err != nil {
			return children, err
		}
		if h != nil {
			children = append(children, h)
		}
	}
	return children, nil
}

// findSupervisor returns a handle on the supervisor of the plane, or nil if it isn't running.
func findSupervisor(l layout) (*handle, error) {
	var id identity
	if err := readJSON(l.supervisor(), &id); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	return id.open()
}

// Down ends the plane in dir, waits until every process of it is gone, and removes its keys and
// data; the logs stay. It is no error if nothing is up.
func Down(ctx context.Context, dir string) error {
	absolute, err := filepath.Abs(dir)
	if err != nil {
		return fmt.Errorf("resolving %s: %w", dir, err)
	}
	l := layout(absolute)
	supervisor, err := findSupervisor(l)
	if err != nil {
		return err
	}
	if supervisor != nil {
		defer supervisor.close()
		if err := endSupervisor(ctx, supervisor); err != nil {
			return fmt.Errorf("taking down the management plane in %s: %w", absolute, err)
		}
	}
	return l.removeRunState()
}

func endSupervisor(ctx context.Context, supervisor *handle) error {
	children, err := childrenOf(supervisor.pid)
	defer func() {
		for _, child := range children {
			child.close()
		}
	}()
	if err != nil {
		return err
	}
	if err := unix.PidfdSendSignal(supervisor.fd, unix.SIGTERM, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("stopping the supervisor (pid %d): %w", supervisor.pid, err)
	}
	gone, err := supervisor.ended(ctx, termGrace)
	if err != nil {
		return err
	}
	if !gone {
		if err := unix.PidfdSendSignal(supervisor.fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("killing the supervisor (pid %d): %w", supervisor.pid, err)
		}
	}
	for _, process := range append([]*handle{supervisor}, children...) {
		gone, err := process.ended(ctx, stopGrace)
		if err != nil {
			return err
		}
		if !gone {
			return fmt.Errorf("process %d is still there", process.pid)
		}
	}
	return nil
}
