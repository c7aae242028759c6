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
	"path/filepath"
	"strconv"
	"strings"
)

// controllers are those of kube-controller-manager that a cluster without nodes needs: deletion
// of namespaces and of owned objects, service accounts, and aggregated ClusterRoles, which the
// Cluster API managers' permissions are made of.
var controllers = []string{
	"namespace-controller",
	"garbage-collector-controller",
	"serviceaccount-controller",
	"serviceaccount-token-controller",
	"clusterrole-aggregation-controller",
}

// serverPorts are the ports of the Kubernetes servers, all on loopback unless the API server is
// bound elsewhere.
type serverPorts struct {
	etcdClient, etcdPeer, etcdHealth, apiServer, controllerManager int
}

func etcdProcess(l layout, binDir string, ports serverPorts) process {
	client := "https://" + address(loopback, ports.etcdClient)
	peer := "https://" + address(loopback, ports.etcdPeer)
	health := "http://" + address(loopback, ports.etcdHealth)
	cert, key, ca := l.pki("etcd.crt"), l.pki("etcd.key"), l.pki("etcd-ca.crt")
	return process{
		name: "etcd",
		path: filepath.Join(binDir, "etcd"),
		args: []string{
			"--name=plane",
			"--data-dir=" + l.etcdData(),
			"--listen-client-urls=" + client,
			"--advertise-client-urls=" + client,
			"--listen-peer-urls=" + peer,
			"--initial-advertise-peer-urls=" + peer,
			"--initial-cluster=plane=" + peer,
			"--listen-metrics-urls=" + health,
			"--cert-file=" + cert, "--key-file=" + key, "--trusted-ca-file=" + ca, "--client-cert-auth",
			"--peer-cert-file=" + cert, "--peer-key-file=" + key, "--peer-trusted-ca-file=" + ca, "--peer-client-cert-auth",
			// The data does not outlive the plane, so there is no crash to be safe from.
			"--unsafe-no-fsync",
			"--log-level=warn",
		},
		log:       l.log("etcd"),
		healthURL: health + "/readyz",
	}
}

func apiServerProcess(l layout, binDir, bindAddress string, ports serverPorts) process {
	server := "https://" + address(loopback, ports.apiServer)
	return process{
		name: "kube-apiserver",
		path: filepath.Join(binDir, "kube-apiserver"),
		args: []string{
			"--etcd-servers=https://" + address(loopback, ports.etcdClient),
			"--etcd-cafile=" + l.pki("etcd-ca.crt"), "--etcd-certfile=" + l.pki("etcd-client.crt"), "--etcd-keyfile=" + l.pki("etcd-client.key"),
			"--bind-address=" + bindAddress,
			"--secure-port=" + strconv.Itoa(ports.apiServer),
			// Nothing looks for the API server through the Service "kubernetes", and without a
			// default route no address could be found to advertise.
			"--advertise-address=" + loopback,
			"--endpoint-reconciler-type=none",
			"--service-cluster-ip-range=10.0.0.0/24",
			"--tls-cert-file=" + l.pki("apiserver.crt"), "--tls-private-key-file=" + l.pki("apiserver.key"),
			"--client-ca-file=" + l.pki("ca.crt"),
			"--authorization-mode=RBAC",
			"--service-account-issuer=" + server,
			"--service-account-key-file=" + l.pki("service-account.key"),
			"--service-account-signing-key-file=" + l.pki("service-account.key"),
			// Events are most of what there is to read about a lab that went wrong overnight.
			"--event-ttl=24h",
			"--profiling=false",
		},
		log:       l.log("kube-apiserver"),
		healthURL: server + "/readyz",
	}
}

func controllerManagerProcess(l layout, binDir string, ports serverPorts) process {
	return process{
		name: "kube-controller-manager",
		path: filepath.Join(binDir, "kube-controller-manager"),
		args: []string{
			"--kubeconfig=" + l.kubeconfigOf("kube-controller-manager"),
			"--controllers=" + strings.Join(controllers, ","),
			"--use-service-account-credentials",
			"--service-account-private-key-file=" + l.pki("service-account.key"),
			"--root-ca-file=" + l.pki("ca.crt"),
			"--bind-address=" + loopback,
			"--secure-port=" + strconv.Itoa(ports.controllerManager),
			"--tls-cert-file=" + l.pki("controller-manager.crt"), "--tls-private-key-file=" + l.pki("controller-manager.key"),
			"--leader-elect=false",
			"--profiling=false",
		},
		log:       l.log("kube-controller-manager"),
		healthURL: "https://" + address(loopback, ports.controllerManager) + "/healthz",
	}
}

// managerPorts are the ports of one provider's manager.
type managerPorts struct {
	health, webhook, diagnostics int
}

// managerProcess runs a provider's manager the way its Deployment would, less what ties it to a
// Pod: leader election needs the Pod's namespace, and the addresses would clash on one machine.
func managerProcess(l layout, provider Provider, d deployment, ports managerPorts, webhooks bool) process {
	args := withoutFlags(d.args,
		"leader-elect", "health-addr", "diagnostics-address", "insecure-diagnostics",
		"kubeconfig", "webhook-port", "webhook-cert-dir")
	args = append(args,
		"--kubeconfig="+l.kubeconfigOf(provider.Name),
		"--health-addr="+address(loopback, ports.health),
		"--diagnostics-address="+address(loopback, ports.diagnostics),
		"--insecure-diagnostics=true",
	)
	if webhooks {
		args = append(args,
			"--webhook-port="+strconv.Itoa(ports.webhook),
			"--webhook-cert-dir="+l.webhookCertificates(provider.Name),
		)
	}
	return process{
		name:      provider.Name,
		path:      provider.Manager,
		args:      args,
		env:       d.env,
		log:       l.log(provider.Name),
		healthURL: fmt.Sprintf("http://%s/readyz", address(loopback, ports.health)),
	}
}
