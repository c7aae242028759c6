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

package host

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/hosttest"
)

func sshConfig(t *testing.T, access *hosttest.SSH) Config {
	t.Helper()
	return Config{
		URI:         "qemu+libssh2://root@" + access.Addr + "/system",
		Credentials: Credentials{SSHPrivateKey: content(t, access.Key), KnownHosts: content(t, access.KnownHosts)},
	}
}

func TestLibvirtdSSH(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	access := hosttest.SSHD(t, hosttest.Libvirtd(t))
	right := sshConfig(t, access)
	for _, tt := range []struct {
		name   string
		change func(*Config)
		kind   error
		says   string
	}{
		{"right", func(*Config) {}, nil, ""},
		{"libssh", func(c *Config) { c.URI = strings.Replace(c.URI, "libssh2", "libssh", 1) }, nil, ""},
		{"wrong key", func(c *Config) { c.Credentials.SSHPrivateKey = content(t, hosttest.SSHKey(t)) }, ErrAuth,
			"the host " + access.Addr + " refuses the key (ssh-privatekey) for user root"},
		{"broken key", func(c *Config) { c.Credentials.SSHPrivateKey = []byte("key") }, ErrAuth, "the key (ssh-privatekey) can't be read"},
		{"impostor", func(c *Config) {
			c.Credentials.KnownHosts = append([]byte(access.Addr+" "), content(t, hosttest.SSHKey(t)+".pub")...)
		}, ErrAuth, "the host key of " + access.Addr + " is not the one in known_hosts"},
		{"unknown", func(c *Config) { c.Credentials.KnownHosts = []byte("# nobody\n") }, ErrAuth, "known_hosts has no key of the host " + access.Addr},
		{"no key", func(c *Config) { c.Credentials.SSHPrivateKey = nil }, ErrCredentials, "they lack ssh-privatekey or known_hosts"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := right
			tt.change(&cfg)
			if err := answer(t, cfg); tt.kind != nil {
				expectRefusal(t, err, tt.kind, tt.says)
			} else if err != nil {
				t.Error(err)
			}
			eventually(t, "no credentials are left on the disk", func() error {
				left, err := os.ReadDir(os.Getenv("TMPDIR"))
				for _, entry := range left {
					if strings.HasPrefix(entry.Name(), "libvirt-credentials-") {
						return errors.New(entry.Name())
					}
				}
				return err
			})
		})
	}
}

func content(t *testing.T, path string) []byte {
	t.Helper()
	content, err := os.ReadFile(path)
	must(t, err)
	return content
}
