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

package hostagent

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/go-logr/logr"

	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/gateway"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/host"
)

// output runs the program in the host's network, as its administrator would.
func (s *site) output(args ...string) string {
	s.t.Helper()
	cmd := s.host.Command(context.Background(), self, append(args, "--uri", s.host.URI())...)
	cmd.Env = append(cmd.Env, asAgent+"=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		s.t.Fatalf("%v: %s", err, out)
	}
	return string(out)
}

// What is installed can be run, and nothing is left after its removal.
func TestInstall(t *testing.T) {
	s := newSite(t)
	script(t, s.host.Netns(), foreign)
	others := s.others()
	root := t.TempDir()
	first := forward("ingress", ingressOutside, 80, "10.100.0.130")
	s.define(webUUID, wants(t, first))

	for range 2 { // the second time is an upgrade
		if out := s.output("install", "--root", root); !strings.Contains(out, "systemctl enable") {
			t.Errorf("install said %s", out)
		}
	}
	unit, err := os.ReadFile(filepath.Join(root, unitPath))
	if err != nil {
		t.Fatal(err)
	}
	if start := "ExecStart=" + programPath + " run --uri=" + s.host.URI() + "\n"; !strings.Contains(string(unit), start) {
		t.Errorf("the unit doesn't have %s in\n%s", start, unit)
	}
	program, err := os.Stat(filepath.Join(root, programPath))
	if err != nil || program.Mode().Perm() != 0o755 {
		t.Fatalf("the program is %v, %v", program, err)
	}

	if out := s.output("run", "--dry-run"); !strings.Contains(out, gateway.RenderTable(readNetworks([]string{definition(t, webUUID, "")})[0].Network, nil,
		gateway.Wanted{Forwards: []gateway.Forward{first}})) || !strings.Contains(out, "# network default.web") {
		t.Errorf("the dry run said %s", out)
	}
	if s.table(webUUID) != "" {
		t.Error("the dry run wrote a table")
	}
	if _, err := s.status(); !errors.Is(err, host.ErrNotFound) {
		t.Errorf("the dry run told something: %v", err)
	}

	s.start()
	s.applied(webUUID, first)
	s.stop(syscall.SIGTERM)
	out := s.output("uninstall", "--root", root, "--state-dir", s.state)
	for _, gone := range []string{unitPath, programPath, gateway.TableName(webUUID), gateway.StatusNetworkName} {
		if !strings.Contains(out, gone) {
			t.Errorf("uninstall doesn't name %s: %s", gone, out)
		}
	}
	for _, path := range []string{unitPath, programPath} {
		if _, err := os.Stat(filepath.Join(root, path)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is still there: %v", path, err)
		}
	}
	if _, err := s.status(); !errors.Is(err, host.ErrNotFound) {
		t.Errorf("the status is still there: %v", err)
	}
	if s.table(webUUID) != "" || s.others() != others {
		t.Errorf("the rules are now\n%s", script(t, s.host.Netns(), "nft list ruleset"))
	}
	s.output("uninstall", "--root", root, "--state-dir", s.state) // nothing is left to do, which is fine
}

func TestCommand(t *testing.T) {
	var out bytes.Buffer
	cmd := NewCommand("v1.2.3")
	cmd.SetOut(&out)
	cmd.SetArgs([]string{"version"})
	if err := cmd.Execute(); err != nil || out.String() != "v1.2.3\n" {
		t.Errorf("got %q, %v", &out, err)
	}
	for args, says := range map[string]string{
		"run --log-level=loud":           "use error, warn, info or debug",
		"install --uri=a\tb --root=/tmp": "blanks",
	} {
		cmd := NewCommand("")
		cmd.SetArgs(strings.Split(args, " "))
		cmd.SetOut(io.Discard)
		cmd.SetErr(io.Discard)
		if err := cmd.Execute(); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: got %v", args, err)
		}
	}
}

// Where there is no libvirt the one-time commands say so, and soon.
func TestNoLibvirt(t *testing.T) {
	err := New(logr.Discard(), "", "qemu+unix:///system?socket="+t.TempDir()+"/none", t.TempDir()).DryRun(t.Context(), io.Discard)
	if !errors.Is(err, host.ErrUnreachable) {
		t.Errorf("got %v", err)
	}
}
