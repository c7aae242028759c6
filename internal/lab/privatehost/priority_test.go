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
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestPrefer(t *testing.T) {
	ctx := deadline(t)
	h := start(ctx, t, "prefers")
	if err := h.Prefer(ctx, "guest"); err == nil {
		t.Error("a domain that isn't there is preferred")
	}
	file := filepath.Join(t.TempDir(), "domain.xml")
	const definition = `<domain type='qemu'><name>guest</name><memory unit='MiB'>32</memory><os><type>hvm</type></os></domain>`
	if err := os.WriteFile(file, []byte(definition), 0o600); err != nil {
		t.Fatal(err)
	}
	virsh(ctx, t, h, "create", "--paused", file)
	if err := h.Prefer(ctx, "guest"); err != nil {
		t.Fatal(err)
	}
	out, err := h.Inside(ctx, "sh", "-c", `cat /proc/$(cat /run/libvirt/qemu/guest.pid)/autogroup || ps -o ni= -p $(cat /run/libvirt/qemu/guest.pid)`).Output()
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(strings.TrimSpace(string(out)), "-10") {
		t.Errorf("its priority is %s", out)
	}
}
