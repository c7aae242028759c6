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
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/lab/privatehost"
)

func virsh(t *testing.T, uri string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "virsh", append([]string{"--connect", uri}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("virsh %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

func assertContains(t *testing.T, got string, want ...string) {
	t.Helper()
	for _, w := range want {
		if !strings.Contains(strings.Join(strings.Fields(got), " "), w) {
			t.Errorf("%q isn't in:\n%s", w, got)
		}
	}
}

func TestTestDriver(t *testing.T) {
	uri := TestDriver(t)
	assertContains(t, virsh(t, uri, "nodeinfo"), "CPU(s): 8", "Memory size: 33554432 KiB")
	if got := virsh(t, uri, "pool-list", "--name"); got != "default" {
		t.Errorf("the pools are %q", got)
	}
	if got := virsh(t, uri, "list", "--all", "--name") + virsh(t, uri, "net-list", "--all", "--name"); got != "" {
		t.Errorf("domains and networks: %q", got)
	}

	uri = TestDriver(t, Memory(4), CPUs(2), Pool("capi-seeds"), Volume("default", "image", "qcow2", 3<<30))
	assertContains(t, virsh(t, uri, "nodeinfo"), "CPU(s): 2", "Memory size: 4194304 KiB")
	assertContains(t, virsh(t, uri, "pool-list", "--name"), "default", "capi-seeds")
	assertContains(t, virsh(t, uri, "vol-dumpxml", "image", "default"),
		"<capacity unit='bytes'>3221225472</capacity>", "<format type='qcow2'/>", "<path>/pools/default/image</path>")
}

func TestLibvirtd(t *testing.T) {
	host := Libvirtd(t, func(o *privatehost.Options) {
		o.Libvirtd = []string{`host_uuid="7a5f0a30-6c2c-4b6e-9b52-0f7f4a3d6c11"`}
	})
	assertContains(t, virsh(t, host.URI(), "version"), "Using API: QEMU")
	assertContains(t, virsh(t, host.URI(), "hostname"), "testlibvirtd")

	// A guest without a disk gets as far as its firmware.
	guest := filepath.Join(t.TempDir(), "guest.xml")
	writeFile(t, guest, `<domain type='qemu'>
  <name>guest</name>
  <memory unit='MiB'>64</memory>
  <os><type arch='x86_64' machine='q35'>hvm</type></os>
  <devices><serial type='pty'><log file='/var/log/libvirt/qemu/guest-serial.log'/></serial></devices>
</domain>`)
	virsh(t, host.URI(), "create", guest)
	if got := virsh(t, host.URI(), "domstate", "guest"); got != "running" {
		t.Errorf("the guest is %s", got)
	}
}

// TestSSHD shows what libvirt's own SSH clients accept. Each connects without
// anybody to answer questions.
func TestSSHD(t *testing.T) {
	host := Libvirtd(t)
	access := SSHD(t, host)
	connect := func(access *SSH, transport, parameters string) string {
		uri := strings.Replace(access.URI(), "libssh2", transport, 1) + parameters
		out, err := exec.CommandContext(t.Context(), "virsh", "--quiet", "--connect", uri, "hostname").CombinedOutput()
		if err != nil {
			return "refused: " + string(out)
		}
		return strings.TrimSpace(string(out))
	}
	for _, transport := range []string{"libssh2", "libssh"} {
		// The private half of a key is enough.
		key := SSHKey(t)
		writeFile(t, key, readFile(t, access.Key))
		if err := os.Remove(key + ".pub"); err != nil {
			t.Fatal(err)
		}
		private := &SSH{Addr: access.Addr, Key: key, KnownHosts: access.KnownHosts}
		if got := connect(private, transport, ""); got != host.Name() {
			t.Errorf("%s: %s", transport, got)
		}

		stranger := &SSH{Addr: access.Addr, Key: SSHKey(t), KnownHosts: access.KnownHosts}
		assertContains(t, connect(stranger, transport, ""), "refused", "authenti")

		impostor := &SSH{Addr: access.Addr, Key: access.Key, KnownHosts: filepath.Join(t.TempDir(), "known_hosts")}
		impostor.Trust(t, SSHKey(t))
		assertContains(t, connect(impostor, transport, ""), "refused", "SSH HOST KEY VERIFICATION FAILED")

		writeFile(t, impostor.KnownHosts, "")
		assertContains(t, connect(impostor, transport, ""), "refused", "was not accepted")
		if known := readFile(t, impostor.KnownHosts); known != "" {
			t.Errorf("%s trusts from now on: %s", transport, known)
		}
	}
}

func TestHostName(t *testing.T) {
	for test, want := range map[string]string{
		"TestA/Sub_test#01":                          "testa-sub-test-01",
		"Test" + strings.Repeat("Long", 20) + "/End": "long" + strings.Repeat("long", 8) + "-end",
	} {
		if got := hostName(test); got != want {
			t.Errorf("%s: got %q, want %q", test, got, want)
		}
	}
}
