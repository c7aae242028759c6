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
	"net"
	"net/http"
	"os"
	"strconv"
	"time"
)

// serve answers until ctx ends. By HTTP it answers / with the host name, /client
// with the address the request came from, GET /bytes?n=N with N bytes, and PUT
// /bytes with how many there were. By UDP it sends back what comes.
func serve(ctx context.Context, listen string) error {
	hostname, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("reading the host name: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, hostname)
	})
	mux.HandleFunc("GET /client", func(w http.ResponseWriter, r *http.Request) {
		address, _, err := net.SplitHostPort(r.RemoteAddr)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		fmt.Fprintln(w, address)
	})
	mux.HandleFunc("GET /bytes", func(w http.ResponseWriter, r *http.Request) {
		n, err := strconv.ParseInt(r.URL.Query().Get("n"), 10, 64)
		if err != nil || n < 0 {
			http.Error(w, "n must be a number of bytes", http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Length", strconv.FormatInt(n, 10))
		io.CopyN(w, zeros{}, n) //nolint:errcheck // the client went away
	})
	mux.HandleFunc("PUT /bytes", func(w http.ResponseWriter, r *http.Request) {
		meter := newMeter()
		if _, err := io.Copy(meter, r.Body); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		fmt.Fprintln(w, meter)
	})

	datagrams, err := (&net.ListenConfig{}).ListenPacket(ctx, "udp", listen)
	if err != nil {
		return fmt.Errorf("serving on %s: %w", listen, err)
	}
	go sendBack(datagrams)
	server := &http.Server{Addr: listen, Handler: mux, ReadHeaderTimeout: 30 * time.Second}
	context.AfterFunc(ctx, func() { server.Close(); datagrams.Close() })
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving on %s: %w", listen, err)
	}
	return nil
}

// sendBack sends every datagram back, until the socket is closed. One that is too
// long for the way back is lost.
func sendBack(datagrams net.PacketConn) {
	buffer := make([]byte, 1<<16)
	for {
		n, from, err := datagrams.ReadFrom(buffer)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			datagrams.WriteTo(buffer[:n], from) //nolint:errcheck // whoever asked notices
		}
	}
}

// meter counts what is written to it, and remembers the longest time for which
// nothing came.
type meter struct {
	bytes         int64
	started, last time.Time
	pause         time.Duration
}

func newMeter() *meter {
	now := time.Now()
	return &meter{started: now, last: now}
}

func (m *meter) Write(p []byte) (int, error) {
	now := time.Now()
	m.bytes, m.pause, m.last = m.bytes+int64(len(p)), max(m.pause, now.Sub(m.last)), now
	return len(p), nil
}

func (m *meter) String() string {
	return fmt.Sprintf("%d bytes in %s, longest pause %s", m.bytes, m.last.Sub(m.started).Round(time.Millisecond), m.pause.Round(time.Millisecond))
}

// zeros is an endless stream of zero bytes.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
