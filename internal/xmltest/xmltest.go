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

// Package xmltest checks, in tests, documents that are meant for libvirt.
package xmltest

import (
	"context"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write what the tests render into testdata instead of comparing it")

// Golden compares a document with the file testdata/<name>, or writes that file when the test is run with -update.
func Golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll(filepath.Dir(file), 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v: run go test with -update to write it, and review it", err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("differs from %s; if that is intended, run go test with -update (-want +got):\n%s", file, diff)
	}
}

// Accepts fails the test unless libvirt takes a document by way of a virsh command, for example "define", "--validate".
// The name of the file with the document is the command's last argument. It is libvirt's test driver that takes it: a
// host in the memory of virsh.
func Accepts(t *testing.T, document string, command ...string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "document.xml")
	if err := os.WriteFile(file, []byte(document), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	virsh := exec.CommandContext(ctx, "virsh", append(append([]string{"--connect", "test:///default"}, command...), file)...)
	if output, err := virsh.CombinedOutput(); err != nil {
		t.Errorf("virsh %v: %v (hack/install-packages.sh libvirt installs virsh)\n%s\n%s", command, err, output, document)
	}
}
