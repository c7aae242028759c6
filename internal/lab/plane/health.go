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
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
)

const (
	probeInterval = 250 * time.Millisecond
	probeTimeout  = 5 * time.Second
	// readyTimeout is generous because a busy machine is slow to start an API server.
	readyTimeout = 3 * time.Minute
	// deathsForgiven is how often a child may die before it counts as broken while starting.
	deathsForgiven = 2
)

// newProbeClient trusts the plane's own authority and keeps no connection, so that every answer
// is a fresh one.
func newProbeClient(ca *authority) *http.Client {
	roots := x509.NewCertPool()
	roots.AddCert(ca.certificate)
	return &http.Client{
		Timeout: probeTimeout,
		Transport: &http.Transport{
			TLSClientConfig:   &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
			DisableKeepAlives: true,
		},
	}
}

// probe asks a health URL once. It returns nil for status 200.
func probe(ctx context.Context, client *http.Client, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return fmt.Errorf("asking %s: %w", url, err)
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode == http.StatusOK {
		return nil
	}
	body, _ := io.ReadAll(io.LimitReader(response.Body, 512))
	return fmt.Errorf("%s answered %s: %s", url, response.Status, strings.TrimSpace(string(body)))
}

// awaitReady waits until the child's health URL answers. It gives up early on a child that keeps
// dying, and its error carries the child's own last words.
func awaitReady(ctx context.Context, client *http.Client, c *child) error {
	var last error
	err := wait.PollUntilContextTimeout(ctx, probeInterval, readyTimeout, true, func(ctx context.Context) (bool, error) {
		if count, exit := c.deaths(); count > deathsForgiven {
			return false, fmt.Errorf("it died %d times (%s)", count, exit)
		}
		last = probe(ctx, client, c.healthURL)
		return last == nil, nil
	})
	if err == nil {
		return nil
	}
	if wait.Interrupted(err) && last != nil {
		err = fmt.Errorf("%w: %w", err, last)
	}
	return fmt.Errorf("waiting for %s: %w; its last log line: %q; see %s", c.name, err, lastLine(c.log), c.log)
}

// lastLine is the last line of a log that says something, or empty when there is none.
func lastLine(path string) string {
	const tail = 8 << 10
	file, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	if err != nil {
		return ""
	}
	end := make([]byte, min(info.Size(), tail))
	if _, err := file.ReadAt(end, info.Size()-int64(len(end))); err != nil {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(string(end)), "\n")
	return strings.TrimSpace(lines[len(lines)-1])
}
