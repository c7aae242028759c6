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

package hosttest

import (
	"bytes"
	"context"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/lab/privatehost"
)

// startTimeout bounds the start and the stop of a host, each, on a busy
// machine. On an idle one they take a fraction of a second.
const startTimeout = time.Minute

// Libvirtd starts a private libvirtd, with the QEMU driver and a pool called
// default, and removes it when the test ends; it needs root. The host also
// ends with the test process, should that be killed. Edit changes its options.
func Libvirtd(t testing.TB, edit ...func(*privatehost.Options)) *privatehost.Host {
	t.Helper()
	// Not t.TempDir, which is too long for the Unix sockets below it.
	dir, err := os.MkdirTemp("", "capl-")
	if err != nil {
		t.Fatalf("Making the private host's directory: %v", err)
	}
	opts := privatehost.Options{Name: hostName(t.Name()), Dir: dir, EndWithProcess: true}
	for _, e := range edit {
		e(&opts)
	}
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	host, err := privatehost.Start(ctx, opts)
	if err != nil {
		os.RemoveAll(dir)
		t.Fatalf("Starting a private libvirtd: %v", err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("The end of libvirtd's log:\n%s", tail(host.Log(), 4<<10))
		}
		ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
		defer cancel()
		if err := host.Remove(ctx); err != nil {
			t.Errorf("Stopping a private libvirtd: %v", err)
		}
	})
	return host
}

var notInNames = regexp.MustCompile(`[^a-z0-9]+`)

// hostName makes a host's name of a test's name.
func hostName(test string) string {
	name := notInNames.ReplaceAllString(strings.ToLower(test), "-")
	return strings.Trim(name[max(0, len(name)-40):], "-")
}

// tail returns the last lines of a file, up to so many bytes.
func tail(path string, size int) []byte {
	content, err := os.ReadFile(path)
	if err != nil {
		return []byte(err.Error())
	}
	if len(content) <= size {
		return content
	}
	content = content[len(content)-size:]
	return content[bytes.IndexByte(content, '\n')+1:]
}
