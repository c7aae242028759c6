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
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// Status is a plane as its supervisor sees it.
type Status struct {
	// PID is the supervisor's.
	PID   int       `json:"pid"`
	Since time.Time `json:"since"`
	// Ready is true once everything has come up.
	Ready     bool      `json:"ready"`
	Netns     string    `json:"netns,omitempty"`
	Server    string    `json:"server,omitempty"`
	Processes []Process `json:"processes"`
}

// Process is one child of the supervisor.
type Process struct {
	Name string `json:"name"`
	// PID is zero while the process isn't running.
	PID int `json:"pid,omitempty"`
	// Since is when the process was last started.
	Since time.Time `json:"since"`
	// Healthy is what its health endpoint answered when the status was asked for.
	Healthy  bool   `json:"healthy"`
	Restarts int    `json:"restarts"`
	LastExit string `json:"lastExit,omitempty"`
	Log      string `json:"log"`
	LastLine string `json:"lastLine,omitempty"`
}

// Healthy tells whether the plane is ready and every process of it answers.
func (s Status) Healthy() bool {
	for _, process := range s.Processes {
		if !process.Healthy {
			return false
		}
	}
	return s.Ready
}

// Status asks the supervisor. Its answer comes over a socket in the plane's directory and so
// reaches out of a network namespace.
func (p *Plane) Status(ctx context.Context) (Status, error) {
	client := &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return inDirectory(string(p.dir), func(dir string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(dir, filepath.Base(p.dir.socket())))
			})
		},
		DisableKeepAlives: true,
	}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://plane/status", nil)
	if err != nil {
		return Status{}, fmt.Errorf("asking the supervisor: %w", err)
	}
	response, err := client.Do(request)
	if err != nil {
		return Status{}, fmt.Errorf("asking the supervisor: %w", err)
	}
	defer func() { _ = response.Body.Close() }()
	var status Status
	if err := json.NewDecoder(response.Body).Decode(&status); err != nil {
		return Status{}, fmt.Errorf("decoding the supervisor's answer: %w", err)
	}
	return status, nil
}

// serveStatus answers status requests until the returned function is called.
func serveStatus(l layout, status func(context.Context) Status) (func(), error) {
	if err := os.Remove(l.socket()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("removing a stale socket: %w", err)
	}
	listener, err := inDirectory(string(l), func(dir string) (net.Listener, error) {
		return net.Listen("unix", filepath.Join(dir, filepath.Base(l.socket())))
	})
	if err != nil {
		return nil, fmt.Errorf("listening for status requests: %w", err)
	}
	// The name it was bound by is gone once the directory is closed.
	listener.(*net.UnixListener).SetUnlinkOnClose(false)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		// A caller that went away is no concern of the supervisor's.
		_ = json.NewEncoder(w).Encode(status(r.Context()))
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: probeTimeout}
	go func() { _ = server.Serve(listener) }()
	return func() { _ = server.Close() }, nil
}

// inDirectory calls f with a short name for the directory, because the path of a socket may not
// be longer than about a hundred bytes.
func inDirectory[T any](dir string, f func(shortDir string) (T, error)) (T, error) {
	handle, err := os.Open(dir)
	if err != nil {
		var none T
		return none, fmt.Errorf("opening %s: %w", dir, err)
	}
	defer func() { _ = handle.Close() }()
	return f(fmt.Sprintf("/proc/self/fd/%d", handle.Fd()))
}
