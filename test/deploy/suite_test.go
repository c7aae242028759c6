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

package deploy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/yaml"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	certutil "k8s.io/client-go/util/cert"
	"k8s.io/klog/v2"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/controller-runtime/pkg/log"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
)

const (
	// system is the namespace that the manifests name.
	system = "capl-system"
	// patience is how long a test waits for what must come.
	patience = time.Minute
)

var (
	env       *envtest.Environment
	apiConfig *rest.Config
	// api is the administrator's client.
	api    client.Client
	scheme = runtime.NewScheme()
	// manager is the path of the program.
	manager string
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
	for _, variable := range []string{"KUBEBUILDER_ASSETS", "CAPL_BIN_DIR"} {
		if os.Getenv(variable) == "" {
			return 0, fmt.Errorf("%s must name the directory with the programs that the tests need: run make test, or make test TEST_PACKAGES=./test/deploy/", variable)
		}
	}
	log.SetLogger(klog.Background())
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, clusterv1.AddToScheme, infrav1.AddToScheme} {
		if err := add(scheme); err != nil {
			return 0, err
		}
	}
	dir, err := os.MkdirTemp("", "deploy")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	manager = filepath.Join(dir, "manager")
	if output, err := exec.Command("go", "build", "-o", manager, "../..").CombinedOutput(); err != nil {
		return 0, fmt.Errorf("building the manager: %w: %s", err, output)
	}
	clusterAPI, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/cluster-api").Output()
	if err != nil {
		return 0, fmt.Errorf("finding Cluster API: %w", err)
	}
	env = &envtest.Environment{
		CRDDirectoryPaths:        []string{"../../config/crd/bases", filepath.Join(strings.TrimSpace(string(clusterAPI)), "core", "config", "crd", "bases")},
		ErrorIfCRDPathMissing:    true,
		ControlPlaneStartTimeout: 2 * time.Minute,
		ControlPlaneStopTimeout:  time.Minute,
	}
	if apiConfig, err = env.Start(); err != nil {
		return 0, fmt.Errorf("starting the API server: %w", errors.Join(err, env.Stop()))
	}
	defer func() {
		if err := env.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, "stopping the API server:", err)
		}
	}()
	if api, err = client.New(apiConfig, client.Options{Scheme: scheme}); err != nil {
		return 0, err
	}
	return m.Run(), nil
}

// rendered is what kustomize makes of a directory under config.
func rendered(t *testing.T, dir string) []*unstructured.Unstructured {
	t.Helper()
	command := exec.CommandContext(t.Context(), filepath.Join(os.Getenv("CAPL_BIN_DIR"), "kustomize"), "build", dir)
	command.Stderr = os.Stderr
	manifests, err := command.Output()
	if err != nil {
		t.Fatalf("Rendering %s: %v", dir, err)
	}
	var objects []*unstructured.Unstructured
	for decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(manifests), 4096); ; {
		object := &unstructured.Unstructured{}
		if err := decoder.Decode(&object.Object); errors.Is(err, io.EOF) {
			return objects
		} else if err != nil {
			t.Fatalf("Reading what %s renders to: %v", dir, err)
		}
		objects = append(objects, object)
	}
}

// install creates those of the objects that are of the kinds.
func install(t *testing.T, objects []*unstructured.Unstructured, kinds ...string) {
	t.Helper()
	for _, object := range objects {
		for _, kind := range kinds {
			if object.GetKind() != kind {
				continue
			}
			if err := api.Create(t.Context(), object.DeepCopy()); err != nil && !apierrors.IsAlreadyExists(err) {
				t.Fatalf("Creating %s %s: %v", kind, object.GetName(), err)
			}
		}
	}
}

// eventually waits until check finds nothing to complain of.
func eventually(t *testing.T, what string, check func() error) {
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

func create(t *testing.T, objects ...client.Object) {
	t.Helper()
	for _, object := range objects {
		if err := api.Create(t.Context(), object); err != nil {
			t.Fatalf("Creating %T %s: %v", object, object.GetName(), err)
		}
	}
}

// freePort is a port of the loopback interface that nobody listens on.
func freePort(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer listener.Close()
	_, port, err := net.SplitHostPort(listener.Addr().String())
	must(t, err)
	return port
}

// runManager runs the manager with the rights of its service account and the arguments of its Deployment until the end of
// the test, and returns the address of its metrics.
func runManager(t *testing.T, deployment *unstructured.Unstructured) string {
	t.Helper()
	user, err := env.AddUser(envtest.User{
		Name: "system:serviceaccount:" + system + ":capl-manager", Groups: []string{"system:serviceaccounts", "system:serviceaccounts:" + system},
	}, nil)
	must(t, err)
	dir := t.TempDir()
	config, err := user.KubeConfig()
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "kubeconfig"), config, 0o600))
	certificate, key, err := certutil.GenerateSelfSignedCertKey("localhost", nil, nil)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "tls.crt"), certificate, 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "tls.key"), key, 0o600))

	containers, _, err := unstructured.NestedSlice(deployment.Object, "spec", "template", "spec", "containers")
	must(t, err)
	given, _, err := unstructured.NestedStringSlice(containers[0].(map[string]any), "args")
	must(t, err)
	health, metrics := "127.0.0.1:"+freePort(t), "127.0.0.1:"+freePort(t)
	args := []string{
		"--kubeconfig=" + filepath.Join(dir, "kubeconfig"), "--webhook-cert-dir=" + dir, "--webhook-port=" + freePort(t),
		"--health-addr=" + health, "--diagnostics-address=" + metrics,
	}
	for _, arg := range given {
		// Those that are left out need a Pod, or are up to who installs it; the addresses are above.
		if !strings.HasPrefix(arg, "--leader-elect") && !strings.Contains(arg, "${") {
			args = append(args, strings.ReplaceAll(arg, "$(POD_NAMESPACE)", system))
		}
	}
	logFile, err := os.Create(filepath.Join(dir, "log"))
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	command := exec.CommandContext(ctx, manager, args...)
	command.Stdout, command.Stderr = logFile, logFile
	command.Cancel = func() error { return command.Process.Signal(os.Interrupt) }
	command.WaitDelay = 30 * time.Second
	must(t, command.Start())
	t.Cleanup(func() {
		cancel()
		_ = command.Wait()
		if content, err := os.ReadFile(logFile.Name()); err == nil {
			if strings.Contains(string(content), "is forbidden") {
				t.Error("The manager lacks a right")
			}
			if t.Failed() {
				t.Logf("The manager's log:\n%s", content)
			}
		}
	})
	eventually(t, "the manager serves", func() error {
		connection, err := net.DialTimeout("tcp", metrics, time.Second)
		if err != nil {
			return err
		}
		return connection.Close()
	})
	return metrics
}

func namespace(t *testing.T, name string) string {
	t.Helper()
	object := &unstructured.Unstructured{}
	object.SetAPIVersion("v1")
	object.SetKind("Namespace")
	object.SetName(name)
	if name == "" {
		object.SetGenerateName("test-")
	}
	if err := api.Create(t.Context(), object); err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	return object.GetName()
}

func meta(namespace, name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: namespace, Name: name}
}
