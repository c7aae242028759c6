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
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/lab/privatehost"
)

// ListenTLS is an option of Libvirtd for hosts that TLS is going to be asked of.
func ListenTLS(o *privatehost.Options) {
	o.Listen = true
	o.Libvirtd = append(o.Libvirtd, noTLS)
}

// noTLS is replaced once the host has an address, which its certificate has to name.
const noTLS = "listen_tls=0"

// TLS is the way into a private host over TLS.
type TLS struct {
	// Addr is the server's address, without the port, which is 16514.
	Addr string
	// CA signed the server's certificate, and is the one whose clients the server lets in.
	CA *Authority

	host *privatehost.Host
	dir  string
}

// TLSD has a private host's libvirtd, which must have been started with ListenTLS, listen on TLS.
func TLSD(t testing.TB, host *privatehost.Host) *TLS {
	t.Helper()
	access := &TLS{Addr: host.Addr().String(), CA: NewAuthority(t, "hosts"), host: host, dir: t.TempDir()}
	config := host.Path("/etc/libvirt/libvirtd.conf")
	writeFile(t, config, strings.Replace(readFile(t, config), noTLS, strings.Join([]string{
		`listen_tls=1`,
		`listen_addr="` + access.Addr + `"`,
		`auth_tls="none"`,
		`ca_file="` + filepath.Join(access.dir, "ca.pem") + `"`,
		`cert_file="` + filepath.Join(access.dir, "cert.pem") + `"`,
		`key_file="` + filepath.Join(access.dir, "key.pem") + `"`,
		`tls_no_sanity_certificate=1`, // or it wouldn't start with a bad one
	}, "\n"), 1))
	access.Serve(t, access.CA, access.Addr, false)
	return access
}

// Serve has libvirtd restarted with a certificate of that authority, for that address or name, expired or not.
func (a *TLS) Serve(t testing.TB, ca *Authority, name string, expired bool) {
	t.Helper()
	cert, key := ca.Issue(t, name, expired)
	a.ServeFiles(t, a.CA.Cert, cert, key)
}

// ServeFiles has libvirtd restarted with these files as PEM: the CA whose clients it lets in, its certificate and key;
// and with further lines of its configuration.
func (a *TLS) ServeFiles(t testing.TB, ca, cert, key []byte, lines ...string) {
	t.Helper()
	writeFile(t, filepath.Join(a.dir, "ca.pem"), string(ca))
	writeFile(t, filepath.Join(a.dir, "cert.pem"), string(cert))
	writeFile(t, filepath.Join(a.dir, "key.pem"), string(key))
	config := a.host.Path("/etc/libvirt/libvirtd.conf")
	writeFile(t, config, strings.Join(append([]string{readFile(t, config)}, lines...), "\n"))
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	if err := a.host.StopDaemon(ctx, syscall.SIGTERM); err != nil {
		t.Fatalf("Restarting libvirtd: %v", err)
	}
	if err := a.host.StartDaemon(ctx); err != nil {
		t.Fatalf("Restarting libvirtd: %v", err)
	}
}

// Authority is a certificate authority.
type Authority struct {
	// Cert is its certificate as PEM.
	Cert []byte

	parsed *x509.Certificate
	key    *ecdsa.PrivateKey
}

// NewAuthority makes a certificate authority.
func NewAuthority(t testing.TB, name string) *Authority {
	t.Helper()
	a := &Authority{key: newKey(t), parsed: &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             time.Now().Add(-48 * time.Hour),
		NotAfter:              time.Now().Add(48 * time.Hour),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign,
	}}
	raw, err := x509.CreateCertificate(rand.Reader, a.parsed, a.parsed, a.key.Public(), a.key)
	if err != nil {
		t.Fatalf("Making a certificate authority: %v", err)
	}
	a.Cert = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw})
	return a
}

// Issue makes a certificate for a server or a client, and its key, as PEM.
func (a *Authority) Issue(t testing.TB, name string, expired bool) (cert, key []byte) {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    time.Now().Add(-24 * time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
		// libvirt 9.0 wants the second for every kind of key.
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if expired {
		template.NotAfter = time.Now().Add(-time.Hour)
	}
	if ip := net.ParseIP(name); ip != nil {
		template.IPAddresses = []net.IP{ip}
	} else {
		template.DNSNames = []string{name}
	}
	private := newKey(t)
	raw, err := x509.CreateCertificate(rand.Reader, template, a.parsed, private.Public(), a.key)
	if err != nil {
		t.Fatalf("Making a certificate: %v", err)
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatalf("Encoding a key: %v", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded})
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatalf("Making a key: %v", err)
	}
	return key
}
