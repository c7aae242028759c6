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
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/hosttest"
)

// answer is what comes of dialling a host for the first time.
func answer(t *testing.T, cfg Config) error {
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
	if err != nil {
		t.Logf("the error is: %v", err)
		if strings.Contains(err.Error(), "libvirt-credentials-") {
			t.Error("it tells of a place that is no more")
		}
	}
	return err
}

// expectRefusal makes sure that an error tells what was wrong.
func expectRefusal(t *testing.T, err, kind error, says string) {
	t.Helper()
	if !errors.Is(err, ErrUnreachable) || !errors.Is(err, kind) || !strings.Contains(err.Error(), says) {
		t.Errorf("got %v; want it to be %q and to say %q", err, kind, says)
	}
}

func tlsConfig(t *testing.T, access *hosttest.TLS) Config {
	t.Helper()
	cert, key := access.CA.Issue(t, "manager", false)
	return Config{
		URI:         "qemu+tls://" + access.Addr + "/system",
		Credentials: Credentials{TLSCA: access.CA.Cert, TLSClientCert: cert, TLSClientKey: key},
	}
}

func TestLibvirtdTLS(t *testing.T) {
	access := hosttest.TLSD(t, hosttest.Libvirtd(t, hosttest.ListenTLS))
	right, other := tlsConfig(t, access), hosttest.NewAuthority(t, "others")
	must(t, answer(t, right))
	for _, tt := range []struct {
		name   string
		change func(*Credentials)
		kind   error
		says   string
	}{
		{"none", func(c *Credentials) { *c = Credentials{} }, ErrCredentials, "lack ca.crt, tls.crt or tls.key"},
		{"expired", func(c *Credentials) { c.TLSClientCert, c.TLSClientKey = access.CA.Issue(t, "manager", true) }, ErrAuth,
			"the client certificate (tls.crt) expired at 20"},
		{"by another CA", func(c *Credentials) { c.TLSClientCert, c.TLSClientKey = other.Issue(t, "manager", false) }, ErrAuth,
			"the client certificate (tls.crt) isn't signed by a CA in ca.crt"},
		{"by a CA that the host doesn't know", func(c *Credentials) {
			c.TLSClientCert, c.TLSClientKey = other.Issue(t, "manager", false)
			c.TLSCA = slices.Concat(c.TLSCA, other.Cert)
		}, ErrAuth, "the host refuses the client certificate (tls.crt)"},
		{"with the key of another", func(c *Credentials) { _, c.TLSClientKey = access.CA.Issue(t, "manager", false) }, ErrAuth,
			"the client certificate (tls.crt) and its key (tls.key) can't be used"},
		{"no CA", func(c *Credentials) { c.TLSCA = []byte("none") }, ErrAuth, "ca.crt has no certificate"},
	} {
		t.Run("client certificate "+tt.name, func(t *testing.T) {
			cfg := right
			tt.change(&cfg.Credentials)
			expectRefusal(t, answer(t, cfg), tt.kind, tt.says)
		})
	}
	for _, tt := range []struct {
		name    string
		ca      *hosttest.Authority
		server  string
		expired bool
		says    string
	}{
		{"expired", access.CA, access.Addr, true, "the certificate of the host " + access.Addr + " expired at 20"},
		{"by another CA", other, access.Addr, false, "the certificate of the host " + access.Addr + " isn't signed by a CA in ca.crt"},
		{"for another name", access.CA, "elsewhere", false, "the certificate of the host is not for " + access.Addr + " but for elsewhere"},
	} {
		t.Run("server certificate "+tt.name, func(t *testing.T) {
			access.Serve(t, tt.ca, tt.server, tt.expired)
			expectRefusal(t, answer(t, right), ErrAuth, tt.says)
		})
	}
}

// TestLibvirtdTLSByTheBook makes the certificates by the commands of the how-to.
func TestLibvirtdTLSByTheBook(t *testing.T) {
	access := hosttest.TLSD(t, hosttest.Libvirtd(t, hosttest.ListenTLS))
	book, err := os.ReadFile("../../docs/how-to/add-a-host-by-tls.md")
	must(t, err)
	dir, scripts, allowed := t.TempDir(), 0, ""
	for _, block := range regexp.MustCompile("(?s)```\\w*\n(.*?)```").FindAllStringSubmatch(string(book), -1) {
		switch text := block[1]; {
		case strings.HasPrefix(text, "openssl"):
			cmd := exec.CommandContext(testContext(t), "sh", "-eu", "-c", strings.ReplaceAll(text, "203.0.113.11", access.Addr))
			cmd.Dir = dir
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%s%s%v", text, out, err)
			}
			scripts++
		case strings.HasPrefix(text, "tls_allowed_dn_list"):
			allowed = text
		}
	}
	if scripts != 3 || allowed == "" {
		t.Fatalf("the how-to has %d blocks of openssl, and %q", scripts, allowed)
	}
	read := func(name string) []byte {
		content, err := os.ReadFile(filepath.Join(dir, name))
		must(t, err)
		return content
	}
	access.ServeFiles(t, read("ca.crt"), read("servercert.pem"), read("serverkey.pem"), allowed)
	cfg := Config{
		URI:         "qemu+tls://" + access.Addr + "/system",
		Credentials: Credentials{TLSCA: read("ca.crt"), TLSClientCert: read("tls.crt"), TLSClientKey: read("tls.key")},
	}
	must(t, answer(t, cfg))
	cfg.Credentials.TLSClientCert, cfg.Credentials.TLSClientKey = read("servercert.pem"), read("serverkey.pem")
	expectRefusal(t, answer(t, cfg), ErrAuth, "the client certificate (tls.crt)")
}

// TestLibvirtdRotation has new credentials take the place of old ones while the host is connected: what was known of its
// domains stays known.
func TestLibvirtdRotation(t *testing.T) {
	lab := hosttest.Libvirtd(t, hosttest.ListenTLS)
	access, shell := hosttest.TLSD(t, lab), hosttest.SSHD(t, lab)
	ctx := testContext(t)
	p, events := newPool(t, quickly)
	p.Set(testKey, tlsConfig(t, access))
	h := connected(t, p, testKey)
	must(t, h.DefineDomain(ctx, domainXML("qemu", 1)))
	must(t, h.StartDomain(ctx, domainUUID(1)))
	must(t, h.DestroyDomain(ctx, domainUUID(1)))
	eventually(t, "its events are in", func() error {
		if calls := len(events.seen()); calls > 0 {
			events.forget()
			time.Sleep(100 * time.Millisecond)
			return errors.New("not all")
		}
		return nil
	})
	before, err := h.Domain(domainUUID(1))
	must(t, err)
	again := func(what string) {
		t.Helper()
		connected(t, p, testKey)
		if after, err := h.Domain(domainUUID(1)); err != nil || after != before {
			t.Errorf("%s: got %+v, %v; it was %+v", what, after, err, before)
		}
		if slices.Contains(events.seen(), Event{Host: testKey, Kind: DomainChanged, UUID: domainUUID(1)}) {
			t.Errorf("%s: the domain is said to have changed", what)
		}
		if _, err := h.DomainXML(ctx, domainUUID(1)); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		events.forget()
	}
	swap := func(what string, cfg Config) {
		t.Helper()
		p.Set(testKey, cfg)
		events.expect(t, Event{Kind: HostConnected})
		again(what)
	}
	swap("another certificate", tlsConfig(t, access))
	swap("another way", sshConfig(t, shell))
	shell.Key = hosttest.SSHKey(t)
	shell.Authorize(t, shell.Key)
	swap("another key", sshConfig(t, shell))

	// The host is installed anew, so that its key is another: that is refused, until somebody says that it is right.
	renewed := shell.Rekey(t)
	stopDaemon(t, lab)
	startDaemon(t, lab)
	eventually(t, "the new host key is refused", func() error {
		if _, err := p.Get(testKey); !errors.Is(err, ErrAuth) || !strings.Contains(err.Error(), "is not the one in known_hosts") {
			return errors.Join(errors.New("not yet"), err)
		}
		return nil
	})
	shell.Trust(t, renewed)
	swap("another host key", sshConfig(t, shell))
}
