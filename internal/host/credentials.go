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
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"libvirt.org/go/libvirt"

	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/hosturi"
)

// Config says how to reach a host.
type Config struct {
	// URI is libvirt's connection URI, in a form that package hosturi accepts.
	URI         string
	Credentials Credentials
	// Identity is what is expected of the host, if anything. It counts from the next connection on.
	Identity Identity
}

// Equal reports whether both lead to the same connection.
func (c Config) Equal(other Config) bool {
	return c.URI == other.URI && c.Credentials.equal(other.Credentials)
}

// Credentials authenticate to a host. They touch the disk, readable by this process alone, only while it is dialled.
type Credentials struct {
	// SSHPrivateKey and KnownHosts are for the ssh transports; the host's key must be among the known ones.
	SSHPrivateKey, KnownHosts []byte
	// TLSClientCert, TLSClientKey and TLSCA are PEM, for the tls transport.
	TLSClientCert, TLSClientKey, TLSCA []byte
	// Username and Password are for SASL.
	Username, Password string
}

// ReadCredentials takes them from the data of a Secret. Its keys are those of the well-known types kubernetes.io/ssh-auth,
// kubernetes.io/tls and kubernetes.io/basic-auth, with known_hosts and ca.crt beside them.
func ReadCredentials(data map[string][]byte) Credentials {
	return Credentials{
		SSHPrivateKey: data["ssh-privatekey"],
		KnownHosts:    data["known_hosts"],
		TLSClientCert: data["tls.crt"],
		TLSClientKey:  data["tls.key"],
		TLSCA:         data["ca.crt"],
		Username:      string(data["username"]),
		Password:      string(data["password"]),
	}
}

func (c Credentials) equal(other Credentials) bool {
	return c.Username == other.Username && c.Password == other.Password &&
		bytes.Equal(c.SSHPrivateKey, other.SSHPrivateKey) && bytes.Equal(c.KnownHosts, other.KnownHosts) &&
		bytes.Equal(c.TLSClientCert, other.TLSClientCert) && bytes.Equal(c.TLSClientKey, other.TLSClientKey) &&
		bytes.Equal(c.TLSCA, other.TLSCA)
}

// endpoint is what is handed to libvirt.
type endpoint struct {
	uri                string
	dir                string
	username, password string
}

// prepare writes the credentials into files and names them in the URI. The caller removes the endpoint after dialling.
func prepare(cfg Config) (*endpoint, error) {
	dir, err := os.MkdirTemp("", "libvirt-credentials-")
	if err != nil {
		return nil, fmt.Errorf("making a directory for the credentials: %w", err)
	}
	e := &endpoint{dir: dir, username: cfg.Credentials.Username, password: cfg.Credentials.Password}
	var files map[string][]byte
	if e.uri, files, err = effectiveURI(cfg, dir); err == nil {
		for name, content := range files {
			err = errors.Join(err, os.WriteFile(filepath.Join(dir, name), content, 0o600))
		}
	}
	if err != nil {
		e.remove()
		return nil, err
	}
	return e, nil
}

func (e *endpoint) remove() { _ = os.RemoveAll(e.dir) }

// tell gives an error of dialling its kind, and leaves out of its text where the credentials were for a moment: that
// would be another place next time.
func (e *endpoint) tell(err error) error {
	var cause libvirt.Error
	if errors.As(err, &cause) {
		cause.Message = strings.ReplaceAll(cause.Message, e.dir+"/", "")
		err = cause
	}
	return classify(err)
}

// auth answers libvirt's questions for a name and a password. Without a password it is nil, so that nothing can ask.
func (e *endpoint) auth() *libvirt.ConnectAuth {
	if e.password == "" {
		return nil
	}
	return &libvirt.ConnectAuth{
		CredType: []libvirt.ConnectCredentialType{
			libvirt.CRED_AUTHNAME, libvirt.CRED_USERNAME, libvirt.CRED_PASSPHRASE, libvirt.CRED_NOECHOPROMPT,
		},
		Callback: func(questions []*libvirt.ConnectCredential) {
			for _, q := range questions {
				switch q.Type {
				case libvirt.CRED_AUTHNAME, libvirt.CRED_USERNAME:
					q.Result = e.username
				case libvirt.CRED_PASSPHRASE, libvirt.CRED_NOECHOPROMPT:
					q.Result = e.password
				default:
					continue
				}
				q.ResultLen = len(q.Result)
			}
		},
	}
}

// effectiveURI checks a URI and adds the credentials to it, as the files in dir that it returns.
func effectiveURI(cfg Config, dir string) (string, map[string][]byte, error) {
	uri, err := hosturi.Parse(cfg.URI)
	if err != nil {
		return "", nil, fmt.Errorf("%w: the URI %w", ErrInvalid, err)
	}
	c := cfg.Credentials
	switch uri.Transport {
	case hosturi.SSH:
		if len(c.SSHPrivateKey) == 0 || len(c.KnownHosts) == 0 {
			return "", nil, fmt.Errorf("%w: they lack ssh-privatekey or known_hosts, without which %s can't be reached: add both", ErrCredentials, uri.Host)
		}
		return uri.With(map[string]string{
			"keyfile":            filepath.Join(dir, "ssh-privatekey"),
			"known_hosts":        filepath.Join(dir, "known_hosts"),
			"known_hosts_verify": "normal",
			"sshauth":            "privkey",
		}), map[string][]byte{"ssh-privatekey": c.SSHPrivateKey, "known_hosts": c.KnownHosts}, nil
	case hosturi.TLS:
		if len(c.TLSCA) == 0 || len(c.TLSClientCert) == 0 || len(c.TLSClientKey) == 0 {
			return "", nil, fmt.Errorf("%w: they lack ca.crt, tls.crt or tls.key, without which %s can't be reached: add all three", ErrCredentials, uri.Host)
		}
		return uri.With(map[string]string{"pkipath": dir}),
			map[string][]byte{"cacert.pem": c.TLSCA, "clientcert.pem": c.TLSClientCert, "clientkey.pem": c.TLSClientKey}, nil
	default:
		return uri.String(), nil, nil
	}
}
