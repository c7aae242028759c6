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
	key, err := os.ReadFile(access.Key)
	must(t, err)
	known, err := os.ReadFile(access.KnownHosts)
	must(t, err)
	return Config{
		URI:         "qemu+libssh2://root@" + access.Addr + "/system",
		Credentials: Credentials{SSHPrivateKey: key, KnownHosts: known},
	}
}

func TestLibvirtdSSH(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	access := hosttest.SSHD(t, hosttest.Libvirtd(t))
	right := sshConfig(t, access)
	for _, tt := range []struct {
		name   string
		change func(*Config)
		want   error
	}{
		{"right", func(*Config) {}, nil},
		{"libssh", func(c *Config) { c.URI = strings.Replace(c.URI, "libssh2", "libssh", 1) }, nil},
		{"wrong key", func(c *Config) {
			key, err := os.ReadFile(hosttest.SSHKey(t))
			must(t, err)
			c.Credentials.SSHPrivateKey = key
		}, ErrAuth},
		{"impostor", func(c *Config) {
			public, err := os.ReadFile(hosttest.SSHKey(t) + ".pub")
			must(t, err)
			c.Credentials.KnownHosts = append([]byte(access.Addr+" "), public...)
		}, ErrUnreachable},
		{"unknown", func(c *Config) { c.Credentials.KnownHosts = []byte("# nobody\n") }, ErrUnreachable},
		{"no key", func(c *Config) { c.Credentials.SSHPrivateKey = nil }, ErrInvalid},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := right
			tt.change(&cfg)
			p, _ := newPool(t, quickly)
			p.Set(testKey, cfg)
			var err error
			eventually(t, "the answer", func() error {
				if _, err = p.Get(testKey); errors.Is(err, ErrConnecting) {
					return err
				}
				return nil
			})
			if !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			t.Logf("the error is: %v", err)
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
