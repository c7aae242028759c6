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
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"
)

const (
	// stopGrace is how long a child may take to end before it is killed.
	stopGrace = 5 * time.Second
	// firstBackoff doubles with every death until maxBackoff; a child that lived for steadyAfter
	// starts over.
	firstBackoff = time.Second
	maxBackoff   = 30 * time.Second
	steadyAfter  = time.Minute
)

// process says how to run a child and how to tell whether it does its work.
type process struct {
	name string
	path string
	args []string
	env  []string
	log  string
	// healthURL answers 200 when the process does its work.
	healthURL string
}

// child is a process that is kept running until it is stopped.
type child struct {
	process
	stop context.CancelFunc
	done chan struct{}

	mu       sync.Mutex
	pid      int
	started  time.Time
	restarts int
	lastExit string
}

// startChild runs the process and starts it again whenever it ends, with back-off.
func startChild(p process) *child {
	ctx, cancel := context.WithCancel(context.Background())
	c := &child{process: p, stop: cancel, done: make(chan struct{})}
	go func() {
		// The kernel sends the parent-death signal when the thread that forked ends, so that
		// thread must live as long as the child. It is never unlocked: it ends with the goroutine.
		runtime.LockOSThread()
		defer close(c.done)
		c.keepRunning(ctx)
	}()
	return c
}

func (c *child) keepRunning(ctx context.Context) {
	backoff := firstBackoff
	for {
		began := time.Now()
		err := c.runOnce(ctx)
		if ctx.Err() != nil {
			return
		}
		c.died(err)
		if time.Since(began) > steadyAfter {
			backoff = firstBackoff
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(backoff):
		}
		backoff = nextBackoff(backoff)
	}
}

func nextBackoff(last time.Duration) time.Duration {
	return min(2*last, maxBackoff)
}

func (c *child) runOnce(ctx context.Context) error {
	log, err := os.OpenFile(c.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("opening the log of %s: %w", c.name, err)
	}
	defer func() { _ = log.Close() }()

	cmd := exec.CommandContext(ctx, c.path, c.args...)
	cmd.Env = append(os.Environ(), c.env...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Pdeathsig: syscall.SIGKILL,
		// A terminal's interrupt is for the supervisor, which stops its children in order.
		Setpgid: true,
	}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = stopGrace
	if err := cmd.Start(); err != nil {
		return err
	}
	c.mu.Lock()
	c.pid, c.started = cmd.Process.Pid, time.Now()
	c.mu.Unlock()

	err = cmd.Wait()
	if err == nil {
		err = errors.New("exited with status 0")
	}
	return err
}

func (c *child) died(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pid = 0
	c.restarts++
	c.lastExit = err.Error()
}

// end stops the child for good and waits until it is gone.
func (c *child) end() {
	c.stop()
	<-c.done
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pid = 0
}

func (c *child) deaths() (count int, last string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.restarts, c.lastExit
}

// status reports the child as it is now. healthy is what its health URL answered.
func (c *child) status(healthy bool) Process {
	c.mu.Lock()
	defer c.mu.Unlock()
	return Process{
		Name:     c.name,
		PID:      c.pid,
		Since:    c.started,
		Restarts: c.restarts,
		LastExit: c.lastExit,
		Healthy:  healthy && c.pid != 0,
		Log:      c.log,
		LastLine: lastLine(c.log),
	}
}
