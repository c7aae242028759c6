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

package quickstart

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/wait"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/cluster-api/util/yaml"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
)

// createCluster generates the cluster's manifests with clusterctl and applies them with kubectl, as a user would.
func (q *Quickstart) createCluster(ctx context.Context) error {
	url, err := q.serveImage(ctx)
	if err != nil {
		return err
	}
	version, err := q.kubernetesVersion()
	if err != nil {
		return err
	}
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: q.options.Namespace}}
	if err := q.client.Create(ctx, namespace); err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("creating the namespace: %w", err)
	}
	if err := q.declareHosts(ctx); err != nil {
		return err
	}
	args := []string{
		"generate", "cluster", q.options.Name, "--infrastructure", "libvirt", "--target-namespace", q.options.Namespace,
		"--config", filepath.Join(q.options.Repository, "out", "clusterctl.yaml"), "--kubeconfig", q.Kubeconfig(),
		"--control-plane-machine-count", strconv.Itoa(q.options.ControlPlanes),
		"--worker-machine-count", strconv.Itoa(q.options.Workers),
	}
	flavor := q.options.Flavor
	if flavor == "" && q.onLAN() {
		flavor = "bridge"
	}
	if flavor != "" {
		args = append(args, "--flavor", flavor)
	}
	generate := exec.CommandContext(ctx, filepath.Join(q.binDir, "clusterctl"), args...)
	generate.Env = withDefaults(os.Environ(), q.variables(url, version))
	var stderr strings.Builder
	generate.Stderr = &stderr
	manifests, err := generate.Output()
	if err != nil {
		return fmt.Errorf("clusterctl generate cluster: %w: %s", err, strings.TrimSpace(stderr.String()))
	}
	if q.options.Change != nil {
		if manifests, err = change(manifests, q.options.Change); err != nil {
			return err
		}
	}
	path := q.path(q.options.Name + ".yaml")
	if err := os.WriteFile(path, manifests, 0o600); err != nil {
		return fmt.Errorf("writing the manifests: %w", err)
	}
	q.out.say("clusterctl generate cluster %s --infrastructure libvirt >%s", q.options.Name, path)
	return q.kubectl(ctx, "apply", "-f", path)
}

// kubectl runs kubectl against the management plane.
func (q *Quickstart) kubectl(ctx context.Context, args ...string) error {
	command := exec.CommandContext(ctx, filepath.Join(q.binDir, "kubectl"), append([]string{"--kubeconfig", q.Kubeconfig()}, args...)...)
	if output, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(output)))
	}
	return nil
}

// variables are those of the cluster template, as the machine needs them.
func (q *Quickstart) variables(imageURL, version string) map[string]string {
	variables := map[string]string{
		"KUBERNETES_VERSION":        version,
		"CONTROL_PLANE_ENDPOINT_IP": "10.100.0.2",
		"LIBVIRT_URI":               q.state.LibvirtURI,
		"LIBVIRT_HOST_NAME":         hostName,
		"LIBVIRT_IMAGE_URL":         imageURL,
		"LIBVIRT_IMAGE_CHECKSUM":    "sha256:" + q.state.ImageSHA256,
		"LIBVIRT_DOMAIN_TYPE":       "KVM",
	}
	if q.onLAN() {
		maps.Copy(variables, lanVariables())
	}
	if emulated() {
		// Emulated machines are slow: give them time, and let nothing give up its lead on the way.
		variables["LIBVIRT_DOMAIN_TYPE"] = "QEMU"
		variables["LIBVIRT_DISK_CACHE"] = "Unsafe"
		variables["LIBVIRT_BOOT_TIMEOUT_SECONDS"] = "1200"
		variables["LIBVIRT_PROBE_TIMEOUT_SECONDS"] = "120"
		variables["LIBVIRT_PROBE_FAILURES"] = "60"
		variables["LIBVIRT_LEASE_SECONDS"] = "120"
		variables["LIBVIRT_RENEW_SECONDS"] = "90"
		variables["LIBVIRT_RETRY_SECONDS"] = "5"
		variables["LIBVIRT_KEY_ALGORITHM"] = "ECDSA-P256"
		variables["COREDNS_REPLICAS"] = "1"
		variables["LIBVIRT_WORKER_VCPUS"] = "1"
		variables["LIBVIRT_WORKER_MEMORY"] = "2Gi"
	}
	maps.Copy(variables, q.options.Variables)
	return variables
}

// change calls f with each of some manifests.
func change(manifests []byte, f func(*unstructured.Unstructured) error) ([]byte, error) {
	objects, err := yaml.ToUnstructured(manifests)
	if err != nil {
		return nil, fmt.Errorf("reading the manifests: %w", err)
	}
	for i := range objects {
		if err := f(&objects[i]); err != nil {
			return nil, fmt.Errorf("changing %s %s: %w", objects[i].GetKind(), objects[i].GetName(), err)
		}
	}
	return yaml.FromUnstructured(objects)
}

// emulated tells whether this machine can't run guests on its own processors. /dev/kvm alone proves nothing: inside
// some virtual machines it is there and guests hang on it.
func emulated() bool {
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return true
	}
	if _, err := os.Stat("/dev/kvm"); err != nil {
		return true
	}
	flags := string(info)
	return !strings.Contains(flags, " vmx ") && !strings.Contains(flags, " svm ")
}

// withDefaults adds variables that the environment doesn't set.
func withDefaults(environment []string, defaults map[string]string) []string {
	for name, value := range defaults {
		if os.Getenv(name) == "" {
			environment = append(environment, name+"="+value)
		}
	}
	return environment
}

// kubernetesVersion is the version of Kubernetes in the node image, from the file that pins all versions.
func (q *Quickstart) kubernetesVersion() (string, error) {
	data, err := os.ReadFile(filepath.Join(q.options.Repository, "hack", "versions.env"))
	if err != nil {
		return "", fmt.Errorf("reading the versions: %w", err)
	}
	for line := range strings.SplitSeq(string(data), "\n") {
		if version, ok := strings.CutPrefix(line, "KUBERNETES_VERSION="); ok {
			return version, nil
		}
	}
	return "", errors.New("hack/versions.env has no KUBERNETES_VERSION")
}

// serveImage serves the node image by HTTP until ctx ends: the way that images come to users' hosts, too. Only the host
// can reach it.
func (q *Quickstart) serveImage(ctx context.Context) (string, error) {
	file, err := os.Open(q.nodeImage)
	if err != nil {
		return "", fmt.Errorf("opening the node image: %w", err)
	}
	defer file.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, file); err != nil {
		return "", fmt.Errorf("reading the node image: %w", err)
	}
	q.state.ImageSHA256 = fmt.Sprintf("%x", hash.Sum(nil))
	if err := q.save(); err != nil {
		return "", err
	}
	address := "127.0.0.1"
	if q.host != nil {
		address = q.host.MachineAddr().String()
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort(address, "0"))
	if err != nil {
		return "", fmt.Errorf("serving the node image: %w", err)
	}
	name := filepath.Base(q.nodeImage)
	server := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/"+name {
			http.NotFound(w, r)
			return
		}
		http.ServeFile(w, r, q.nodeImage)
	})}
	go func() { _ = server.Serve(listener) }()
	context.AfterFunc(ctx, func() { _ = server.Close() })
	return fmt.Sprintf("http://%s/%s", listener.Addr(), name), nil
}

// deleteCluster deletes the cluster and its host by Cluster API's means, and the image, from an existing libvirt daemon.
func (q *Quickstart) deleteCluster(ctx context.Context) error {
	q.options.Name, q.options.Namespace = q.state.Name, q.state.Namespace
	if _, err := os.Stat(q.Kubeconfig()); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err := q.connect(); err != nil {
		return err
	}
	for _, object := range []client.Object{
		&clusterv1.Cluster{ObjectMeta: metav1.ObjectMeta{Namespace: q.state.Namespace, Name: q.state.Name}},
		&infrav1.LibvirtHost{ObjectMeta: metav1.ObjectMeta{Namespace: q.state.Namespace, Name: hostName}},
	} {
		if err := q.deleteAndWait(ctx, object); err != nil {
			return err
		}
	}
	for _, args := range [][]string{
		{"vol-delete", "--pool", "default", "image-" + q.state.ImageSHA256},
		{"vol-delete", "--pool", "default", "image-" + q.state.ImageSHA256 + ".verified"},
		{"pool-destroy", "capi-seeds"},
		{"pool-undefine", "capi-seeds"},
	} {
		if output, err := exec.CommandContext(ctx, "virsh", append([]string{"-c", q.state.LibvirtURI}, args...)...).CombinedOutput(); err != nil {
			q.out.say("virsh %s: %s", strings.Join(args, " "), strings.TrimSpace(string(output)))
		}
	}
	return nil
}

func (q *Quickstart) deleteAndWait(ctx context.Context, object client.Object) error {
	if err := q.client.Delete(ctx, object); client.IgnoreNotFound(err) != nil {
		return err
	}
	return wait.PollUntilContextTimeout(ctx, time.Second, 15*time.Minute, true, func(ctx context.Context) (bool, error) {
		err := q.client.Get(ctx, client.ObjectKeyFromObject(object), object)
		return apierrors.IsNotFound(err), client.IgnoreNotFound(err)
	})
}
