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
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/hosturi"
)

// tlsFinding says what is wrong with a TLS connection; refused, that libvirt found it in the peer's certificate.
func tlsFinding(ctx context.Context, uri hosturi.URI, c Credentials, refused bool, now time.Time) string {
	pair, roots, finding := readTLS(c, now)
	if finding != "" {
		return finding
	}
	dialer := &tls.Dialer{Config: &tls.Config{
		RootCAs: roots, ServerName: uri.Host, Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12,
	}}
	conn, err := dialer.DialContext(ctx, "tcp", uri.Address())
	if err != nil {
		if refused {
			return peerFinding(uri, err)
		}
		return ""
	}
	defer conn.Close()
	if refused {
		return ""
	}
	// A host that accepts the client's certificate says so with one byte before anything else.
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetReadDeadline(deadline)
	}
	_, err = io.ReadFull(conn, make([]byte, 1))
	var slow net.Error
	if err == nil || errors.As(err, &slow) && slow.Timeout() {
		return ""
	}
	return "the host refuses the client certificate (tls.crt): have it signed by the CA in the host's ca_file, and see whether " +
		"tls_allowed_dn_list in its libvirtd.conf has its name"
}

// readTLS reads the certificates that were given, as of now, or says what is wrong with them.
func readTLS(c Credentials, now time.Time) (pair tls.Certificate, roots *x509.CertPool, finding string) {
	pair, err := tls.X509KeyPair(c.TLSClientCert, c.TLSClientKey)
	if err != nil {
		return pair, nil, fmt.Sprintf("the client certificate (tls.crt) and its key (tls.key) can't be used: %s",
			strings.TrimPrefix(err.Error(), "tls: "))
	}
	roots = x509.NewCertPool()
	found := false
	for block, rest := pem.Decode(c.TLSCA); block != nil; block, rest = pem.Decode(rest) {
		ca, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return pair, nil, "ca.crt has a certificate that can't be read"
		}
		if finding := outdated(fmt.Sprintf("the CA certificate of %s in ca.crt", ca.Subject), ca, now); finding != "" {
			return pair, nil, finding
		}
		roots.AddCert(ca)
		found = true
	}
	if !found {
		return pair, nil, "ca.crt has no certificate in PEM format"
	}
	if finding := outdated("the client certificate (tls.crt)", pair.Leaf, now); finding != "" {
		return pair, nil, finding + ": issue a new one"
	}
	_, err = pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	if errors.As(err, &x509.UnknownAuthorityError{}) {
		return pair, nil, "the client certificate (tls.crt) isn't signed by a CA in ca.crt: add its CA there, or have it signed by that one"
	}
	const usage = x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment
	if u := pair.Leaf.KeyUsage; u != 0 && u&usage != usage {
		return pair, nil, "the client certificate (tls.crt) lacks a usage that libvirt wants: issue it for digital signature and key encipherment"
	}
	return pair, roots, ""
}

func outdated(what string, cert *x509.Certificate, now time.Time) string {
	switch {
	case now.After(cert.NotAfter):
		return fmt.Sprintf("%s expired at %s", what, cert.NotAfter.UTC().Format(time.RFC3339))
	case now.Before(cert.NotBefore):
		return fmt.Sprintf("%s is not valid before %s: see whether the clock is right", what, cert.NotBefore.UTC().Format(time.RFC3339))
	}
	return ""
}

// peerFinding says what is wrong with the certificate of a host.
func peerFinding(uri hosturi.URI, err error) string {
	var (
		name    x509.HostnameError
		invalid x509.CertificateInvalidError
		unknown x509.UnknownAuthorityError
	)
	switch {
	case errors.As(err, &unknown):
		return fmt.Sprintf("the certificate of the host %s isn't signed by a CA in ca.crt: see whether it is the right host, and the right CA", uri.Host)
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return fmt.Sprintf("the certificate of the host %s expired at %s, or isn't valid yet: issue a new one for the host",
			uri.Host, invalid.Cert.NotAfter.UTC().Format(time.RFC3339))
	case errors.As(err, &name):
		names := append([]string{}, name.Certificate.DNSNames...)
		for _, ip := range name.Certificate.IPAddresses {
			names = append(names, ip.String())
		}
		return fmt.Sprintf("the certificate of the host is not for %s but for %s: use that name in spec.uri, or issue one for this",
			uri.Host, strings.Join(names, ", "))
	}
	return ""
}
