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
	"testing"

	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/hosttest"
)

func TestLibvirtdTLS(t *testing.T) {
	access := hosttest.TLSD(t, hosttest.Libvirtd(t, hosttest.ListenTLS))
	other := hosttest.NewAuthority(t, "others")
	cert, key := access.CA.Issue(t, "manager", false)
	right := Config{
		URI:         "qemu+tls://" + access.Addr + "/system",
		Credentials: Credentials{TLSCA: access.CA.Cert, TLSClientCert: cert, TLSClientKey: key},
	}
	answer := func(t *testing.T, cfg Config) error {
		t.Helper()
		p, _ := newPool(t, quickly)
		p.Set(testKey, cfg)
		var err error
		eventually(t, "the answer", func() error {
			if _, err = p.Get(testKey); errors.Is(err, ErrConnecting) {
				return err
			}
			return nil
		})
		var e *Error
		if errors.As(err, &e) {
			t.Logf("code %d domain %d", e.cause.Code, e.cause.Domain)
		}
		t.Logf("the error is: %v", err)
		return err
	}
	t.Run("right", func(t *testing.T) { must(t, answer(t, right)) })
	client := func(ca *hosttest.Authority, expired bool, trusted ...[]byte) Config {
		c := right
		c.Credentials.TLSClientCert, c.Credentials.TLSClientKey = ca.Issue(t, "manager", expired)
		for _, t := range trusted {
			c.Credentials.TLSCA = append(append([]byte{}, c.Credentials.TLSCA...), t...)
		}
		return c
	}
	t.Run("client expired", func(t *testing.T) { answer(t, client(access.CA, true)) })
	t.Run("client other", func(t *testing.T) { answer(t, client(other, false)) })
	t.Run("client other refused", func(t *testing.T) { answer(t, client(other, false, other.Cert)) })
	t.Run("server expired", func(t *testing.T) { access.Serve(t, access.CA, access.Addr, true); answer(t, right) })
	t.Run("server other", func(t *testing.T) { access.Serve(t, other, access.Addr, false); answer(t, right) })
	t.Run("server name", func(t *testing.T) { access.Serve(t, access.CA, "elsewhere", false); answer(t, right) })
}
