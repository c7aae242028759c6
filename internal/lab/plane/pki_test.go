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

package plane

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net"
	"testing"
	"time"
)

// handshake connects a client and a server over a pipe and returns both sides' errors.
func handshake(t *testing.T, server, client *tls.Config) (serverErr, clientErr error) {
	t.Helper()
	a, b := net.Pipe()
	deadline := time.Now().Add(10 * time.Second)
	if err := a.SetDeadline(deadline); err != nil {
		t.Fatal(err)
	}
	if err := b.SetDeadline(deadline); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		done <- tls.Server(a, server).Handshake()
		_ = a.Close()
	}()
	clientErr = tls.Client(b, client).Handshake()
	_ = b.Close()
	return <-done, clientErr
}

func mustPair(t *testing.T) func(keyPair, error) tls.Certificate {
	return func(p keyPair, err error) tls.Certificate {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		pair, err := tls.X509KeyPair(p.certificate, p.key)
		if err != nil {
			t.Fatal(err)
		}
		return pair
	}
}

func pool(t *testing.T, a *authority) *x509.CertPool {
	t.Helper()
	p := x509.NewCertPool()
	if !p.AppendCertsFromPEM(a.bundle()) {
		t.Fatal("the authority's bundle holds no certificate")
	}
	return p
}

func TestCertificatesServeTheirNames(t *testing.T) {
	ours, err := newAuthority("ours")
	if err != nil {
		t.Fatal(err)
	}
	other, err := newAuthority("other")
	if err != nil {
		t.Fatal(err)
	}
	server := mustPair(t)(ours.server("127.0.0.1", "localhost", "10.100.0.1"))
	goodClient := mustPair(t)(ours.client("admin", "system:masters"))
	foreignClient := mustPair(t)(other.client("admin", "system:masters"))

	for name, tc := range map[string]struct {
		serverName string
		client     tls.Certificate
		roots      *authority
		wantOK     bool
	}{
		"address":                {"127.0.0.1", goodClient, ours, true},
		"name":                   {"localhost", goodClient, ours, true},
		"extra address":          {"10.100.0.1", goodClient, ours, true},
		"address not asked for":  {"10.100.0.2", goodClient, ours, false},
		"server of another CA":   {"localhost", goodClient, other, false},
		"client of another CA":   {"localhost", foreignClient, ours, false},
		"server used as client":  {"localhost", server, ours, true},
		"client without any key": {"localhost", tls.Certificate{}, ours, false},
	} {
		t.Run(name, func(t *testing.T) {
			serverErr, clientErr := handshake(t,
				&tls.Config{Certificates: []tls.Certificate{server}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool(t, ours), MinVersion: tls.VersionTLS12, MaxVersion: tls.VersionTLS12},
				&tls.Config{Certificates: []tls.Certificate{tc.client}, RootCAs: pool(t, tc.roots), ServerName: tc.serverName, MinVersion: tls.VersionTLS12},
			)
			if ok := serverErr == nil && clientErr == nil; ok != tc.wantOK {
				t.Errorf("handshake succeeded = %v, want %v (server: %v, client: %v)", ok, tc.wantOK, serverErr, clientErr)
			}
		})
	}
}

func TestClientCertificateNamesUserAndGroups(t *testing.T) {
	ca, err := newAuthority("ca")
	if err != nil {
		t.Fatal(err)
	}
	pair, err := ca.client("system:serviceaccount:capi-system:capi-manager", "system:serviceaccounts", "system:serviceaccounts:capi-system")
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(pair.certificate)
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := certificate.Subject.CommonName, "system:serviceaccount:capi-system:capi-manager"; got != want {
		t.Errorf("user = %q, want %q", got, want)
	}
	if got := certificate.Subject.Organization; len(got) != 2 {
		t.Errorf("groups = %q, want two", got)
	}
	if certificate.IsCA {
		t.Error("a client certificate must not be an authority")
	}
}
