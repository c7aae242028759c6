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
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

const natNetwork = `<network>
  <name>cluster</name>
  <forward mode='nat'/>
  <bridge name='capltest0'/>
  <ip address='10.100.0.1' netmask='255.255.255.0'>
    <dhcp><range start='10.100.0.100' end='10.100.0.200'/></dhcp>
  </ip>
</network>
`

// start starts a host for a test in a short directory of its own.
func start(ctx context.Context, t *testing.T, name string, edit ...func(*Options)) *Host {
	t.Helper()
	dir, err := os.MkdirTemp("", "capl-")
	if err != nil {
		t.Fatal(err)
	}
	opts := Options{Name: name, Dir: dir, EndWithProcess: true}
	for _, e := range edit {
		e(&opts)
	}
	h, err := Start(ctx, opts)
	if err != nil {
		os.RemoveAll(dir)
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := h.Remove(ctx); err != nil {
			t.Error(err)
		}
	})
	return h
}

func deadline(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func virsh(ctx context.Context, t *testing.T, h *Host, args ...string) string {
	t.Helper()
	out, err := run(exec.CommandContext(ctx, "virsh", append([]string{"--connect", h.URI()}, args...)...))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

func defineNetwork(ctx context.Context, t *testing.T, h *Host) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "network.xml")
	if err := os.WriteFile(file, []byte(natNetwork), 0o600); err != nil {
		t.Fatal(err)
	}
	virsh(ctx, t, h, "net-define", file)
	virsh(ctx, t, h, "net-start", "cluster")
}

// assertNothingLeft looks for anything of a stopped host on the machine.
func assertNothingLeft(t *testing.T, h *Host) {
	t.Helper()
	if pids, err := h.processes(); err != nil || len(pids) > 0 {
		t.Errorf("processes of host %s are left: %v, %v", h.Name(), pids, err)
	}
	links, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		if link.Name == linkName(h.Dir()) || link.Name == "capltest0" {
			t.Errorf("interface %s is left", link.Name)
		}
	}
	mountinfos, err := filepath.Glob("/proc/[0-9]*/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range mountinfos {
		mounts, err := os.ReadFile(path)
		if err == nil && bytes.Contains(mounts, []byte(h.Dir()+"/")) {
			t.Errorf("a mount is left: %s names %s", path, h.Dir())
		}
	}
}

func TestTwoHostsSideBySide(t *testing.T) {
	ctx := deadline(t)
	one, two := start(ctx, t, "one"), start(ctx, t, "two")

	if one.Addr() == two.Addr() || !linkSpace.Contains(one.Addr()) {
		t.Errorf("the addresses are %s and %s", one.Addr(), two.Addr())
	}
	for _, h := range []*Host{one, two} {
		// The same subnet and the same bridge in both.
		defineNetwork(ctx, t, h)
		if got := virsh(ctx, t, h, "hostname"); got != h.Name() {
			t.Errorf("libvirtd of %s says its host is %s", h.Name(), got)
		}
		if got := virsh(ctx, t, h, "pool-list", "--name"); got != "default" {
			t.Errorf("the pools of %s are %q", h.Name(), got)
		}
		virsh(ctx, t, h, "vol-create-as", "default", "disk", "1M")
		if _, err := os.Stat(h.Path(Images + "/disk")); err != nil {
			t.Error(err)
		}
		out, err := h.Command(ctx, "ip", "-brief", "link", "show", "dev", "capltest0").CombinedOutput()
		if err != nil {
			t.Errorf("looking for the bridge in %s: %v: %s", h.Name(), err, out)
		}
		out, err = h.Command(ctx, "virsh", "net-list", "--name").CombinedOutput()
		if err != nil || strings.TrimSpace(string(out)) != "cluster" {
			t.Errorf("virsh in %s: %v: %s", h.Name(), err, out)
		}
	}
	if _, err := net.InterfaceByName("capltest0"); err == nil {
		t.Error("the bridge is on the machine")
	}
	running, err := List()
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range []*Host{one, two} {
		if !slices.ContainsFunc(running, func(l *Host) bool { return l.Dir() == h.Dir() }) {
			t.Errorf("host %s isn't listed", h.Name())
		}
	}

	// A process that came in from outside must not survive its host either.
	visitor := one.Command(ctx, "sleep", "600")
	if err := visitor.Start(); err != nil {
		t.Fatal(err)
	}
	if err := one.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	if err := visitor.Wait(); err == nil {
		t.Error("a process in a stopped host went on")
	}
	assertNothingLeft(t, one)
	if got := virsh(ctx, t, two, "net-list", "--name"); got != "cluster" {
		t.Errorf("stopping one host changed the networks of the other to %q", got)
	}
	if err := two.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	assertNothingLeft(t, two)
}

func TestDaemonDies(t *testing.T) {
	ctx := deadline(t)
	h := start(ctx, t, "dies")
	defineNetwork(ctx, t, h)

	if err := h.StopDaemon(ctx, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := h.SignalDaemon(syscall.SIGTERM); !errors.Is(err, ErrNotRunning) {
		t.Errorf("signalling a dead libvirtd: %v", err)
	}
	if err := h.StartDaemon(ctx); err != nil {
		t.Fatal(err)
	}
	if got := virsh(ctx, t, h, "net-list", "--name"); got != "cluster" {
		t.Errorf("after a restart the active networks are %q", got)
	}

	if _, err := Start(ctx, Options{Name: "dies", Dir: h.Dir()}); !errors.Is(err, ErrRunning) {
		t.Errorf("starting a running host: %v", err)
	}

	// Start on what is left of a host whose libvirtd died: a power cut.
	if err := h.StopDaemon(ctx, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	again, err := Start(ctx, Options{Name: "dies", Dir: h.Dir(), EndWithProcess: true})
	if err != nil {
		t.Fatal(err)
	}
	if h.Running() {
		t.Error("the old namespaces are left")
	}
	if got := virsh(ctx, t, again, "net-list", "--all", "--name"); got != "cluster" {
		t.Errorf("after a boot the defined networks are %q", got)
	}
	if got := virsh(ctx, t, again, "net-list", "--name"); got != "" {
		t.Errorf("after a boot the active networks are %q", got)
	}
	if err := again.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	assertNothingLeft(t, again)
}

func TestEndsWithItsProcess(t *testing.T) {
	if dir := os.Getenv("PRIVATEHOST_TEST_DIR"); dir != "" {
		// The process below: start a host and be killed.
		h, err := Start(t.Context(), Options{Name: "orphan", Dir: dir, EndWithProcess: true})
		if err != nil {
			t.Fatal(err)
		}
		defineNetwork(t.Context(), t, h)
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}
	ctx := deadline(t)
	dir, err := os.MkdirTemp("", "capl-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	child := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestEndsWithItsProcess$")
	child.Env = append(os.Environ(), "PRIVATEHOST_TEST_DIR="+dir)
	out, err := child.CombinedOutput()
	if err == nil || !strings.Contains(err.Error(), "killed") {
		t.Fatalf("the child should have been killed: %v: %s", err, out)
	}
	h, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	for h.Running() || h.pluggedIn() {
		select {
		case <-ctx.Done():
			t.Fatal("the host outlives its process")
		case <-time.After(10 * time.Millisecond):
		}
	}
	assertNothingLeft(t, h)
	if err := h.Remove(ctx); err != nil {
		t.Fatal(err)
	}
}

func TestForward(t *testing.T) {
	ctx := deadline(t)
	h := start(ctx, t, "forward")
	web := h.Command(ctx, "python3", "-c", `
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b"inside")
server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
`)
	stdout, err := web.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := web.Start(); err != nil {
		t.Fatal(err)
	}
	var port int
	if _, err := fmt.Fscan(stdout, &port); err != nil {
		t.Fatal(err)
	}
	addr, err := h.Forward(ctx, "127.0.0.1:0", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.Get("http://" + addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var body bytes.Buffer
	if _, err := body.ReadFrom(response.Body); err != nil || body.String() != "inside" {
		t.Errorf("through the forwarder: %v: %q", err, &body)
	}
}

func TestOptionsAreChecked(t *testing.T) {
	for _, opts := range []Options{
		{Name: "", Dir: "/tmp/x"},
		{Name: "Upper", Dir: "/tmp/x"},
		{Name: "ok", Dir: "relative"},
		{Name: "ok", Dir: "/tmp/" + strings.Repeat("x", 80)},
	} {
		if _, err := Start(t.Context(), opts); err == nil {
			t.Errorf("%+v was accepted", opts)
		}
	}
}
