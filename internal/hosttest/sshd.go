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
	"context"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/lab/privatehost"
)

// SSH is the way into a private host over SSH.
type SSH struct {
	// Addr is the server's address, without the port, which is 22.
	Addr string
	// Key is the file of a private key that lets root in.
	Key string
	// KnownHosts is the file of known hosts that names the server's key.
	KnownHosts string

	host                         *privatehost.Host
	hostKey, authorized, pidFile string
}

// SSHD starts a real sshd inside a private host. It ends with the host.
func SSHD(t testing.TB, host *privatehost.Host) *SSH {
	t.Helper()
	dir := host.Path("/run/sshd") // where sshd wants an empty directory anyway
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatalf("Configuring sshd: %v", err)
	}
	files := t.TempDir()
	access := &SSH{
		Addr: host.Addr().String(), Key: SSHKey(t), KnownHosts: filepath.Join(files, "known_hosts"),
		host: host, hostKey: SSHKey(t), authorized: filepath.Join(files, "authorized_keys"), pidFile: filepath.Join(files, "sshd.pid"),
	}
	access.Trust(t, access.hostKey)
	access.Authorize(t, access.Key)
	config := filepath.Join(files, "sshd_config")
	writeFile(t, config, `ListenAddress `+access.Addr+`
HostKey `+access.hostKey+`
AuthorizedKeysFile `+access.authorized+`
AuthenticationMethods publickey
PermitRootLogin yes
StrictModes no
UsePAM no
PidFile `+access.pidFile+`
`)
	sshd, err := exec.LookPath("sshd") // which wants to be called by its full path
	if err != nil {
		t.Fatalf("Starting sshd: %v; install the package openssh-server", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	// It goes to the background on its own.
	log := filepath.Join(host.Dir(), "log/sshd.log")
	if out, err := host.Inside(ctx, sshd, "-f", config, "-E", log).CombinedOutput(); err != nil {
		t.Fatalf("Starting sshd: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("The end of sshd's log:\n%s", tail(log, 2<<10))
		}
	})
	for {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort(access.Addr, "22"))
		if err == nil {
			conn.Close()
			return access
		}
		select {
		case <-ctx.Done():
			t.Fatalf("Waiting for sshd: %v", err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// URI is the libvirt URI that reaches the host over SSH; libvirt's client
// carries the protocol, so that no ssh program is needed.
func (s *SSH) URI() string {
	return "qemu+libssh2://root@" + s.Addr + "/system?" + url.Values{
		"keyfile":            {s.Key},
		"known_hosts":        {s.KnownHosts},
		"known_hosts_verify": {"normal"},
		"sshauth":            {"privkey"},
	}.Encode()
}

// Trust makes the key of a private-key file the one that the server is known
// by: with a key of somebody else's, the server is an impostor.
func (s *SSH) Trust(t testing.TB, key string) {
	t.Helper()
	writeFile(t, s.KnownHosts, s.Addr+" "+readFile(t, key+".pub"))
}

// Authorize lets in the owner of a private-key file, and nobody else from now on.
func (s *SSH) Authorize(t testing.TB, key string) {
	t.Helper()
	writeFile(t, s.authorized, readFile(t, key+".pub"))
}

// Rekey gives the server another host key, as when the host is installed anew. Connections that are open stay so.
func (s *SSH) Rekey(t testing.TB) (key string) {
	t.Helper()
	key = SSHKey(t)
	writeFile(t, s.hostKey, readFile(t, key))
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	if out, err := s.host.Inside(ctx, "kill", "-HUP", strings.TrimSpace(readFile(t, s.pidFile))).CombinedOutput(); err != nil {
		t.Fatalf("Restarting sshd: %v: %s", err, out)
	}
	return key
}

// SSHKey makes a new key and returns the file of its private half. The public
// half is beside it, as *.pub.
func SSHKey(t testing.TB) string {
	t.Helper()
	key := filepath.Join(t.TempDir(), "key")
	out, err := exec.CommandContext(t.Context(), "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key).CombinedOutput()
	if err != nil {
		t.Fatalf("Making an SSH key: %v: %s", err, out)
	}
	return key
}

func readFile(t testing.TB, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("Reading a file: %v", err)
	}
	return string(content)
}

func writeFile(t testing.TB, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatalf("Writing a file: %v", err)
	}
}
