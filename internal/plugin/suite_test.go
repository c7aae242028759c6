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

package plugin

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/utils/ptr"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/host"
)

var (
	// api is the administrator's client of a real API server, kubeconfig the path of a file that leads to it.
	api        client.Client
	kubeconfig string
)

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(code)
}

func run(m *testing.M) (int, error) {
	if os.Getenv("KUBEBUILDER_ASSETS") == "" {
		return 0, errors.New("KUBEBUILDER_ASSETS must name the directory with kube-apiserver and etcd: run make test, or make test TEST_PACKAGES=./internal/plugin/")
	}
	ctrl.SetLogger(logr.Discard())
	clusterAPI, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/cluster-api").Output()
	if err != nil {
		return 0, fmt.Errorf("finding Cluster API: %w", err)
	}
	env := &envtest.Environment{
		CRDDirectoryPaths: []string{
			filepath.Join("..", "..", "config", "crd", "bases"),
			filepath.Join(strings.TrimSpace(string(clusterAPI)), "core", "config", "crd", "bases"),
		},
		ErrorIfCRDPathMissing:    true,
		ControlPlaneStartTimeout: 2 * time.Minute,
		ControlPlaneStopTimeout:  time.Minute,
	}
	config, err := env.Start()
	if err != nil {
		return 0, fmt.Errorf("starting the API server: %w", errors.Join(err, env.Stop()))
	}
	defer func() {
		if err := env.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, "stopping the API server:", err)
		}
	}()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, clusterv1.AddToScheme, infrav1.AddToScheme} {
		if err := add(scheme); err != nil {
			return 0, err
		}
	}
	if api, err = client.New(config, client.Options{Scheme: scheme}); err != nil {
		return 0, err
	}
	admin, err := env.AddUser(envtest.User{Name: "admin", Groups: []string{"system:masters"}}, nil)
	if err != nil {
		return 0, err
	}
	content, err := admin.KubeConfig()
	if err != nil {
		return 0, err
	}
	dir, err := os.MkdirTemp("", "plugin")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	kubeconfig = filepath.Join(dir, "kubeconfig")
	if err := os.WriteFile(kubeconfig, content, 0o600); err != nil {
		return 0, err
	}
	return m.Run(), nil
}

// scene is a namespace of the management cluster.
type scene struct {
	t         *testing.T
	namespace string
}

func newScene(t *testing.T) *scene {
	t.Helper()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "test-"}}
	must(t, api.Create(t.Context(), namespace))
	return &scene{t, namespace.Name}
}

// create creates an object in the namespace and writes its status.
func (s *scene) create(object client.Object, status func()) {
	s.t.Helper()
	object.SetNamespace(s.namespace)
	must(s.t, api.Create(s.t.Context(), object))
	if status != nil {
		status()
		must(s.t, api.Status().Update(s.t.Context(), object))
	}
}

// createMachine creates a Machine, and its LibvirtMachine with that spec.
func (s *scene) createMachine(cluster, name string, labels map[string]string, spec infrav1.LibvirtMachineSpec) *infrav1.LibvirtMachine {
	s.t.Helper()
	all := map[string]string{clusterv1.ClusterNameLabel: cluster}
	for key, value := range labels {
		all[key] = value
	}
	machine := &clusterv1.Machine{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: all},
		Spec: clusterv1.MachineSpec{
			ClusterName: cluster, Version: "v1.36.3", Bootstrap: clusterv1.Bootstrap{DataSecretName: ptr.To(name)},
			InfrastructureRef: clusterv1.ContractVersionedObjectReference{APIGroup: infrav1.GroupVersion.Group, Kind: "LibvirtMachine", Name: "infra-" + name},
		},
	}
	s.create(machine, func() { machine.Status.Phase = string(clusterv1.MachinePhaseRunning) })
	libvirtMachine := &infrav1.LibvirtMachine{ObjectMeta: metav1.ObjectMeta{Name: "infra-" + name, Labels: all}, Spec: spec}
	s.create(libvirtMachine, nil)
	return libvirtMachine
}

// plugin runs "kubectl libvirt" with the arguments, and returns what it wrote.
func (s *scene) plugin(args ...string) (string, error) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 2*time.Minute)
	defer cancel()
	out := &transcript{}
	err := s.pluginWith(ctx, strings.NewReader(""), out, args...)
	return out.String(), err
}

func (s *scene) pluginWith(ctx context.Context, in io.Reader, out io.Writer, args ...string) error {
	s.t.Helper()
	command := NewCommand(genericiooptions.IOStreams{In: in, Out: out, ErrOut: out})
	command.SetArgs(append([]string{"--kubeconfig", kubeconfig, "--namespace", s.namespace}, args...))
	return command.ExecuteContext(ctx)
}

// transcript keeps what is written, for somebody who reads along.
type transcript struct {
	mu      sync.Mutex
	content bytes.Buffer
}

func (t *transcript) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.content.Write(p)
}

func (t *transcript) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.content.String()
}

// connect is the test's own connection to a host.
func connect(t *testing.T, uri string) *host.Host {
	t.Helper()
	pool := host.NewPool(logr.Discard())
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- pool.Start(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	pool.Set("host", host.Config{URI: uri})
	var found *host.Host
	eventually(t, time.Minute, "the host is connected", func() (err error) {
		found, err = pool.Get("host")
		return err
	})
	return found
}

func eventually(t *testing.T, patience time.Duration, what string, check func() error) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("Not within %s: %s: %v", patience, what, err)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
