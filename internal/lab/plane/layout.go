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
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// layout is a plane's directory and the names in it.
type layout string

func (l layout) path(elements ...string) string {
	return filepath.Join(append([]string{string(l)}, elements...)...)
}

func (l layout) options() string           { return l.path("options.json") }
func (l layout) supervisor() string        { return l.path("supervisor.json") }
func (l layout) socket() string            { return l.path("control.sock") }
func (l layout) kubeconfig() string        { return l.path("kubeconfig") }
func (l layout) etcdData() string          { return l.path("etcd") }
func (l layout) logs() string              { return l.path("logs") }
func (l layout) log(process string) string { return l.path("logs", process+".log") }
func (l layout) pki(file string) string    { return l.path("pki", file) }

func (l layout) kubeconfigOf(process string) string {
	return l.path("identities", process+".kubeconfig")
}

func (l layout) webhookCertificates(process string) string {
	return l.path("webhooks", process)
}

// create makes the directories, readable by their owner only: they hold keys.
func (l layout) create() error {
	for _, dir := range []string{string(l), l.logs(), l.path("pki"), l.path("identities"), l.path("webhooks")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("creating the plane's directory: %w", err)
		}
	}
	return nil
}

// removeRunState deletes everything but the logs, which are there to be read afterwards.
func (l layout) removeRunState() error {
	for _, entry := range []string{
		l.options(), l.supervisor(), l.socket(), l.kubeconfig(), l.etcdData(),
		l.path("pki"), l.path("identities"), l.path("webhooks"),
	} {
		if err := os.RemoveAll(entry); err != nil {
			return fmt.Errorf("removing the plane's state: %w", err)
		}
	}
	return nil
}

func writePair(pair keyPair, certificateFile, keyFile string) error {
	if err := os.WriteFile(certificateFile, pair.certificate, 0o600); err != nil {
		return fmt.Errorf("writing a certificate: %w", err)
	}
	if err := os.WriteFile(keyFile, pair.key, 0o600); err != nil {
		return fmt.Errorf("writing a private key: %w", err)
	}
	return nil
}

// renderKubeconfig is a self-contained kubeconfig for one identity.
func renderKubeconfig(server string, caBundle []byte, user string, pair keyPair) ([]byte, error) {
	const name = "plane"
	config := clientcmdapi.NewConfig()
	config.Clusters[name] = &clientcmdapi.Cluster{Server: server, CertificateAuthorityData: caBundle}
	config.AuthInfos[user] = &clientcmdapi.AuthInfo{ClientCertificateData: pair.certificate, ClientKeyData: pair.key}
	config.Contexts[name] = &clientcmdapi.Context{Cluster: name, AuthInfo: user}
	config.CurrentContext = name
	content, err := clientcmd.Write(*config)
	if err != nil {
		return nil, fmt.Errorf("rendering the kubeconfig of %s: %w", user, err)
	}
	return content, nil
}

// writeJSON replaces the file in one step, so that a reader never sees half of it.
func writeJSON(path string, value any) error {
	content, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding %s: %w", path, err)
	}
	temporary := path + ".new"
	if err := os.WriteFile(temporary, append(content, '\n'), 0o600); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	if err := os.Rename(temporary, path); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return nil
}

func readJSON(path string, value any) error {
	content, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("reading %s: %w", path, err)
	}
	if err := json.Unmarshal(content, value); err != nil {
		return fmt.Errorf("decoding %s: %w", path, err)
	}
	return nil
}

func address(host string, port int) string {
	return net.JoinHostPort(host, strconv.Itoa(port))
}
