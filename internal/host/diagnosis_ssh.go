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
	"crypto/ed25519"
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/hosturi"
)

// sshFinding says what is wrong with an SSH connection; refused, that libvirt failed to authenticate one end or the
// other.
func sshFinding(ctx context.Context, uri hosturi.URI, c Credentials, refused bool) string {
	var protected *ssh.PassphraseMissingError
	if _, err := ssh.ParsePrivateKey(c.SSHPrivateKey); errors.As(err, &protected) {
		return "the key (ssh-privatekey) is protected by a passphrase: use one without"
	} else if err != nil {
		return "the key (ssh-privatekey) can't be read: it has to be a private key as ssh-keygen writes it"
	}
	known, err := readKnownHosts(c.KnownHosts)
	if err != nil {
		return fmt.Sprintf("known_hosts can't be read: %s", err)
	}
	types := keyTypes(known, uri.Address())
	if len(types) == 0 {
		return fmt.Sprintf("known_hosts has no key of the host %s: add it, with ssh-keyscan, after comparing its fingerprint with the host's own", uri.Host)
	}
	checked, err := checkHostKey(ctx, uri, known, types)
	var other *knownhosts.KeyError
	switch {
	case errors.As(err, &other):
		return fmt.Sprintf("the host key of %s is not the one in known_hosts: if the host was installed anew, replace it there, "+
			"after comparing its fingerprint with the host's own; if not, something else answers in its place", uri.Host)
	case checked && refused:
		return fmt.Sprintf("the host %s refuses the key (ssh-privatekey) for user %s: add its public half to that user's authorized_keys", uri.Host, user(uri))
	}
	return ""
}

func user(uri hosturi.URI) string {
	if uri.User == "" {
		return "that the manager runs as, because spec.uri names none"
	}
	return uri.User
}

// readKnownHosts reads what is a file for everybody else.
func readKnownHosts(content []byte) (ssh.HostKeyCallback, error) {
	file, err := os.CreateTemp("", "libvirt-credentials-")
	if err != nil {
		return nil, err
	}
	defer os.Remove(file.Name())
	defer file.Close()
	if _, err := file.Write(content); err != nil {
		return nil, err
	}
	return knownhosts.New(file.Name())
}

// keyTypes are the types of the keys that are known of a host: it is asked for one of those, as it may have others.
func keyTypes(known ssh.HostKeyCallback, address string) []string {
	nobodys, err := ssh.NewPublicKey(make(ed25519.PublicKey, ed25519.PublicKeySize))
	if err != nil {
		return nil
	}
	var other *knownhosts.KeyError
	if !errors.As(known(address, &net.TCPAddr{}, nobodys), &other) {
		return nil
	}
	var types []string
	for _, key := range other.Want {
		switch kind := key.Key.Type(); kind {
		case ssh.KeyAlgoRSA: // one key, several signatures
			types = append(types, ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256)
		default:
			types = append(types, kind)
		}
	}
	return types
}

// checkHostKey shakes hands until the host has proved its key, and hangs up. The error is a *knownhosts.KeyError if it
// is not a known one; checked is set if it is.
func checkHostKey(ctx context.Context, uri hosturi.URI, known ssh.HostKeyCallback, types []string) (checked bool, err error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", uri.Address())
	if err != nil {
		return false, err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline)
	}
	enough := errors.New("that is all")
	var verdict error
	_, _, _, _ = ssh.NewClientConn(conn, uri.Address(), &ssh.ClientConfig{ //nolint:dogsled // What the callback found is all that counts.
		User:              uri.User,
		HostKeyAlgorithms: types,
		HostKeyCallback: func(name string, remote net.Addr, key ssh.PublicKey) error {
			verdict = known(name, remote, key)
			checked = verdict == nil
			return enough
		},
	})
	return checked, verdict
}
