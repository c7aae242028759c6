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

// Package hosturi decides which libvirt connection URIs may be used. Whoever may create a LibvirtHost writes the URI,
// and libvirt opens it inside the manager's process: some parameters run programs, read files of the manager or turn
// off the verification of the peer. So what isn't known to be harmless is refused. It is pure.
package hosturi

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Transport is how the libvirt daemon is reached.
type Transport string

const (
	// Local is a UNIX socket of the manager's machine. It is only there if whoever runs the manager put it there.
	Local Transport = "Local"
	// SSH is libvirt's built-in SSH client, by libssh2 or libssh.
	SSH Transport = "SSH"
	// TLS is libvirt's own TLS port.
	TLS Transport = "TLS"
	// Test is libvirt's test driver: a host that lives in the manager's memory.
	Test Transport = "Test"
)

// URI is a connection URI that may be used.
type URI struct {
	// Transport says how the daemon is reached.
	Transport Transport
	// User is the user name in the URI, empty when there is none.
	User string
	// Host is the peer's name or address, empty unless the transport is SSH or TLS.
	Host string

	port, raw string
}

// String is the URI as it was given.
func (u URI) String() string {
	return u.raw
}

// Remote tells whether the daemon is reached over the network, for which credentials are needed.
func (u URI) Remote() bool {
	return u.Transport == SSH || u.Transport == TLS
}

// ports are where a transport's server listens unless the URI says otherwise.
var ports = map[Transport]string{SSH: "22", TLS: "16514"}

// Address is the TCP address of the peer, host:port, empty unless the transport is SSH or TLS.
func (u URI) Address() string {
	switch {
	case !u.Remote():
		return ""
	case u.port != "":
		return net.JoinHostPort(u.Host, u.port)
	default:
		return net.JoinHostPort(u.Host, ports[u.Transport])
	}
}

// With is the URI with more parameters, in the order of their names. They are the manager's own and aren't checked.
func (u URI) With(parameters map[string]string) string {
	extended := u.raw
	for _, name := range slices.Sorted(maps.Keys(parameters)) {
		separator := "&"
		if !strings.Contains(extended, "?") {
			separator = "?"
		}
		// libvirt takes a plus sign for itself and not, as a form does, for a space.
		extended += separator + name + "=" + strings.ReplaceAll(url.QueryEscape(parameters[name]), "+", "%20")
	}
	return extended
}

var (
	transports = map[string]Transport{
		"qemu":         Local,
		"qemu+unix":    Local,
		"qemu+libssh2": SSH,
		"qemu+libssh":  SSH,
		"qemu+tls":     TLS,
		"test":         Test,
	}

	// parameters that may be in a URI, by transport. A socket is one of the machine that runs the daemon.
	parameters = map[Transport][]string{
		Local: {"mode", "socket"},
		SSH:   {"mode", "proxy", "socket"},
	}

	// remedies for what people may expect to work.
	remedies = map[string]string{
		"qemu+ssh": "it runs an ssh program, which the manager hasn't: use qemu+libssh2://",
		"qemu+tcp": "it neither encrypts nor verifies: use qemu+libssh2:// or qemu+tls://",
		"qemu+ext": "it runs a program in the manager: use qemu+libssh2:// or qemu+tls://",

		"authfile":           "it names a file of the manager: put username and password in the Secret of spec.credentialsRef",
		"command":            "it runs a program in the manager: remove it",
		"keyfile":            "it names a file of the manager: put ssh-privatekey in the Secret of spec.credentialsRef",
		"known_hosts":        "it names a file of the manager: put known_hosts in the Secret of spec.credentialsRef",
		"known_hosts_verify": "it turns off the verification of the host: put known_hosts in the Secret of spec.credentialsRef",
		"no_sanity":          "it turns off the verification of certificates: put tls.crt, tls.key and ca.crt in the Secret of spec.credentialsRef",
		"no_verify":          "it turns off the verification of the host: put known_hosts, or ca.crt for TLS, in the Secret of spec.credentialsRef",
		"pkipath":            "it names a directory of the manager: put tls.crt, tls.key and ca.crt in the Secret of spec.credentialsRef",
		"sshauth":            "it follows from the Secret of spec.credentialsRef: remove it",
		"tls_priority":       "it can weaken the encryption: remove it",
	}

	// plain is what a URI may consist of. libvirt and Go would decode escapes each in their own way, and what was
	// checked here could be something else there.
	plain = regexp.MustCompile(`^[A-Za-z0-9+.:/@?&=_~\[\]-]*$`)
)

const forms = "qemu:///system, qemu+libssh2://user@host/system or qemu+tls://host/system"

// Parse reads a URI. The error says what is wrong with it and the remedy, and never repeats a password.
func Parse(raw string) (URI, error) {
	if hasPassword(raw) {
		return URI{}, errors.New("must not contain a password: put it under password in the Secret of spec.credentialsRef")
	}
	if !plain.MatchString(raw) {
		return URI{}, fmt.Errorf("may contain letters, digits and +.:/@?&=_~[]- only, without percent-encoding: use a form like %s", forms)
	}
	transport, known := transports[scheme(raw)]
	if !known {
		if remedy := remedies[scheme(raw)]; remedy != "" {
			return URI{}, fmt.Errorf("%s:// isn't supported, because %s", scheme(raw), remedy)
		}
		return URI{}, fmt.Errorf("must start with %s: use a form like %s", strings.Join(schemes(), ", "), forms)
	}
	parsed, err := url.Parse(raw)
	if err != nil || parsed.Opaque != "" || !strings.HasPrefix(raw, scheme(raw)+"://") {
		return URI{}, fmt.Errorf("is not a URI: use a form like %s", forms)
	}
	u := URI{Transport: transport, User: parsed.User.Username(), Host: parsed.Hostname(), port: parsed.Port(), raw: raw}
	for _, check := range []func(URI, *url.URL) error{checkPeer, checkPath, checkParameters} {
		if err := check(u, parsed); err != nil {
			return URI{}, err
		}
	}
	return u, nil
}

func scheme(raw string) string {
	before, _, _ := strings.Cut(raw, ":")
	return before
}

// hasPassword looks at the text and not at the parsed URI, because a password may be what keeps it from being one.
func hasPassword(raw string) bool {
	_, rest, _ := strings.Cut(raw, "://")
	if end := strings.IndexAny(rest, "/?"); end >= 0 {
		rest = rest[:end]
	}
	at := strings.LastIndex(rest, "@")
	return at >= 0 && strings.Contains(rest[:at], ":")
}

func schemes() []string {
	var found []string
	for name := range transports {
		found = append(found, name+"://")
	}
	slices.Sort(found)
	return found
}

func checkPeer(u URI, parsed *url.URL) error {
	if !u.Remote() {
		if parsed.Host != "" || parsed.User != nil {
			return fmt.Errorf("names a host, which %s:// can't reach: use qemu+libssh2://user@host/system or qemu+tls://host/system",
				parsed.Scheme)
		}
		return nil
	}
	if u.Host == "" || strings.HasPrefix(u.Host, "-") {
		return fmt.Errorf("names no host: use a form like %s://host/system", parsed.Scheme)
	}
	if port := parsed.Port(); port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return fmt.Errorf("has the port %s: use one from 1 to 65535", port)
		}
	}
	return nil
}

func checkPath(u URI, parsed *url.URL) error {
	if u.Transport != Test {
		if parsed.Path != "/system" {
			return fmt.Errorf("must have the path /system, not %q: a session or an embedded hypervisor has no networks", parsed.Path)
		}
		return nil
	}
	if parsed.Path == "/default" {
		return errors.New("test:///default is shared by everything in the manager: use test:// and the path of a file that describes the host")
	}
	// libvirt quotes a line of what it can't parse, so that any file could be read by way of the error.
	if !cleanPath(parsed.Path) || path.Ext(parsed.Path) != ".xml" {
		return fmt.Errorf("must have the absolute path of an .xml file that describes the host, not %q", parsed.Path)
	}
	return nil
}

func checkParameters(u URI, parsed *url.URL) error {
	query, err := url.ParseQuery(parsed.RawQuery)
	if err != nil {
		return errors.New("has parameters that can't be read: use a form like ?name=value&name=value")
	}
	for _, name := range slices.Sorted(maps.Keys(query)) {
		if !slices.Contains(parameters[u.Transport], name) {
			if remedy := remedies[strings.ToLower(name)]; remedy != "" {
				return fmt.Errorf("must not have the parameter %s, because %s", name, remedy)
			}
			return fmt.Errorf("has the parameter %s, which %s:// doesn't take: remove it", name, parsed.Scheme)
		}
		if len(query[name]) != 1 {
			return fmt.Errorf("has the parameter %s more than once: keep one", name)
		}
		if value := query[name][0]; name == "socket" && !cleanPath(value) {
			return fmt.Errorf("has the socket %q: use an absolute path", value)
		}
	}
	return nil
}

// cleanPath tells whether a path is absolute and says plainly where it leads.
func cleanPath(p string) bool {
	return path.IsAbs(p) && path.Clean(p) == p
}
