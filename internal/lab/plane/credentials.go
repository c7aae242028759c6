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
	"fmt"
	"os"
)

// credentials are a plane's authorities and the administrator's key pair. etcd has an authority of
// its own, so that no user of the API server can go around it.
type credentials struct {
	ca, etcdCA *authority
	admin      keyPair
	controller keyPair
}

// issueCredentials makes the authorities and writes down the servers' certificates.
func issueCredentials(l layout, serverNames []string) (credentials, error) {
	var c credentials
	var err error
	if c.ca, err = newAuthority("management-plane"); err != nil {
		return c, err
	}
	if c.etcdCA, err = newAuthority("management-plane-etcd"); err != nil {
		return c, err
	}
	local := []string{loopback, "localhost"}
	for _, issue := range []struct {
		name string
		pair func() (keyPair, error)
	}{
		{"etcd", func() (keyPair, error) { return c.etcdCA.server(local...) }},
		{"etcd-client", func() (keyPair, error) { return c.etcdCA.client("kube-apiserver") }},
		{"apiserver", func() (keyPair, error) { return c.ca.server(append(local, serverNames...)...) }},
		{"controller-manager", func() (keyPair, error) { return c.ca.server(local...) }},
	} {
		pair, err := issue.pair()
		if err != nil {
			return c, err
		}
		if err := writePair(pair, l.pki(issue.name+".crt"), l.pki(issue.name+".key")); err != nil {
			return c, err
		}
	}
	if c.admin, err = c.ca.client("management-plane-admin", "system:masters"); err != nil {
		return c, err
	}
	if c.controller, err = c.ca.client("system:kube-controller-manager"); err != nil {
		return c, err
	}
	signingKey, err := newSigningKey()
	if err != nil {
		return c, err
	}
	for file, content := range map[string][]byte{
		"ca.crt": c.ca.bundle(), "etcd-ca.crt": c.etcdCA.bundle(), "service-account.key": signingKey,
	} {
		if err := os.WriteFile(l.pki(file), content, 0o600); err != nil {
			return c, fmt.Errorf("writing %s: %w", file, err)
		}
	}
	return c, nil
}

// writeKubeconfigs writes the administrator's and the controllers' kubeconfigs.
func (c credentials) writeKubeconfigs(l layout, server string) error {
	if err := c.writeKubeconfig(l.kubeconfig(), server, "management-plane-admin", c.admin); err != nil {
		return err
	}
	return c.writeKubeconfig(l.kubeconfigOf("kube-controller-manager"), server, "system:kube-controller-manager", c.controller)
}

// writeManagerCredentials gives a provider's manager the identity of its own service account,
// whose permissions are those in its manifests and no more, and a certificate for its webhooks.
func (c credentials) writeManagerCredentials(l layout, server, name string, d deployment) error {
	client, err := c.ca.client(d.user(), d.groups()...)
	if err != nil {
		return err
	}
	if err := c.writeKubeconfig(l.kubeconfigOf(name), server, d.user(), client); err != nil {
		return err
	}
	serving, err := c.ca.server(loopback)
	if err != nil {
		return err
	}
	dir := layout(l.webhookCertificates(name))
	if err := os.MkdirAll(string(dir), 0o700); err != nil {
		return fmt.Errorf("creating the directory of %s's webhook certificates: %w", name, err)
	}
	return writePair(serving, dir.path("tls.crt"), dir.path("tls.key"))
}

func (c credentials) writeKubeconfig(path, server, user string, pair keyPair) error {
	content, err := renderKubeconfig(server, c.ca.bundle(), user, pair)
	if err != nil {
		return err
	}
	if err := os.WriteFile(path, content, 0o600); err != nil {
		return fmt.Errorf("writing the kubeconfig of %s: %w", user, err)
	}
	return nil
}
