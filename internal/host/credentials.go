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
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"libvirt.org/go/libvirt"
)

// Config says how to reach a host.
type Config struct {
	// URI is libvirt's connection URI: qemu:///system, qemu+unix:///system?socket=…, qemu+libssh2://root@host/system,
	// qemu+ssh://…, qemu+tls://… or test:///file.xml.
	URI         string
	Credentials Credentials
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

// refusedParameters maps URI parameters that are never accepted to the remedy.
var refusedParameters = map[string]string{
	"no_verify":          "the host must prove its identity: put its key into known_hosts, or its certificate authority into ca.crt",
	"known_hosts_verify": "the host's key is always checked: put it into known_hosts",
	"no_sanity":          "fix the certificates instead",
	"no_tty":             "nothing ever prompts for a password",
	"keyfile":            "put the private key into the host's credentials",
	"known_hosts":        "put the known hosts into the host's credentials",
	"pkipath":            "put the certificates into the host's credentials",
	"authfile":           "put user name and password into the host's credentials",
	"sshauth":            "the private key of the host's credentials is used",
	"command":            "only libvirt's own transports are supported",
	"netcat":             "use proxy=native, or the default",
	"name":               "write the hypervisor's URI as the path",
}

// acceptedParameters maps the URI parameters that may be given to the transports they make sense for.
var acceptedParameters = map[string][]string{
	"socket":       {"unix", "ssh", "libssh2", "libssh"},
	"mode":         {"unix", "ssh", "libssh2", "libssh"},
	"proxy":        {"ssh", "libssh2", "libssh"},
	"tls_priority": {"tls"},
}

// effectiveURI checks a URI and adds the credentials, as files in dir, to it. What it cannot vouch for it refuses, with
// ErrInvalid and the remedy: whoever may write a URI must not reach files or commands of this process through it.
func effectiveURI(cfg Config, dir string) (string, map[string][]byte, error) {
	refuse := func(format string, args ...any) (string, map[string][]byte, error) {
		return "", nil, fmt.Errorf("%w: URI: %s", ErrInvalid, fmt.Sprintf(format, args...))
	}
	u, err := url.Parse(cfg.URI)
	if err != nil {
		return refuse("%v", errors.Unwrap(err)) // the outer error would repeat the whole URI
	}
	driver, transport, _ := strings.Cut(u.Scheme, "+")
	if driver == "test" {
		if transport != "" || u.Host != "" || u.RawQuery != "" {
			return refuse("the test driver is local: use test:///path/of/a/file.xml")
		}
		return cfg.URI, nil, nil
	}
	if driver != "qemu" {
		return refuse("driver %q is not supported: use qemu", driver)
	}
	switch {
	case transport == "" && u.Host == "":
		transport = "unix"
	case transport == "": // libvirt's default for a remote host
		transport = "tls"
	}
	if u.User != nil {
		if _, has := u.User.Password(); has {
			return refuse("a password does not belong there: put it into the host's credentials")
		}
	}
	query := u.Query()
	for parameter := range query {
		if remedy, refused := refusedParameters[parameter]; refused {
			return refuse("parameter %s is refused: %s", parameter, remedy)
		}
		if !slices.Contains(acceptedParameters[parameter], transport) {
			return refuse("parameter %s is not known for transport %s", parameter, transport)
		}
	}
	files := map[string][]byte{}
	add := func(parameter, name string, content []byte) {
		files[name] = content
		query.Set(parameter, filepath.Join(dir, name))
	}
	c := cfg.Credentials
	switch transport {
	case "unix":
		if u.Host != "" {
			return refuse("transport unix is local: leave out the host name %q", u.Host)
		}
	case "libssh2", "libssh":
		if len(c.SSHPrivateKey) == 0 || len(c.KnownHosts) == 0 {
			return refuse("transport %s needs ssh-privatekey and known_hosts in the host's credentials", transport)
		}
		add("keyfile", "ssh-privatekey", c.SSHPrivateKey)
		add("known_hosts", "known_hosts", c.KnownHosts)
		query.Set("known_hosts_verify", "normal")
		query.Set("sshauth", "privkey")
	case "ssh":
		if len(c.KnownHosts) != 0 {
			return refuse("transport ssh runs the ssh client, which takes known hosts from its own files only: use libssh2")
		}
		if len(c.SSHPrivateKey) != 0 {
			add("keyfile", "ssh-privatekey", c.SSHPrivateKey)
		}
		query.Set("no_tty", "1")
	case "tls":
		if len(c.TLSCA) == 0 || len(c.TLSClientCert) == 0 || len(c.TLSClientKey) == 0 {
			return refuse("transport tls needs ca.crt, tls.crt and tls.key in the host's credentials")
		}
		files["cacert.pem"], files["clientcert.pem"], files["clientkey.pem"] = c.TLSCA, c.TLSClientCert, c.TLSClientKey
		query.Set("pkipath", dir)
	case "tcp":
		return refuse("transport tcp is not encrypted: use tls, libssh2 or ssh")
	default:
		return refuse("transport %q is not supported: use unix, libssh2, libssh, ssh or tls", transport)
	}
	u.RawQuery = query.Encode()
	return u.String(), files, nil
}
