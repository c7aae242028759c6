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

package topology

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/clientcmd"
	bootstrapv1 "sigs.k8s.io/cluster-api/api/bootstrap/kubeadm/v1beta2"
	controlplanev1 "sigs.k8s.io/cluster-api/api/controlplane/kubeadm/v1beta2"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/lab/plane"
)

// patience is how long a test waits for what must come.
const patience = time.Minute

// TestMain lets the test binary play the supervisor of the management plane, as the lab program does.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "supervise" {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer stop()
		// supervise --dir DIR --report-fd 3
		syscall.CloseOnExec(3)
		if err := plane.Supervise(ctx, os.Args[3], os.NewFile(3, "report")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	ctrl.SetLogger(logr.Discard())
	os.Exit(m.Run())
}

// management is a management plane with a release of ours for clusterctl.
type management struct {
	t                          *testing.T
	api                        client.Client
	binDir, config, kubeconfig string
}

// manage brings a management plane up until the end of the test, with a manager built from this clone.
func manage(t *testing.T) *management {
	t.Helper()
	m := &management{t: t, binDir: os.Getenv("CAPL_BIN_DIR")}
	if m.binDir == "" {
		t.Fatal("CAPL_BIN_DIR must name the directory with the programs that the tests need: run make test, or make test TEST_PACKAGES=./test/topology/")
	}
	dir := t.TempDir()
	manager := filepath.Join(dir, "manager")
	m.command(nil, "go", "build", "-o", manager, "../..")

	release := filepath.Join(dir, "infrastructure-libvirt", "v0.1.0")
	m.command([]string{"VERSION=v0.1.0", "IMAGE=ghcr.io/cluster-api-provider-libvirt/cluster-api-provider-libvirt", "KUSTOMIZE=" + filepath.Join(m.binDir, "kustomize")},
		"../../hack/release.sh", release)
	m.config = filepath.Join(dir, "clusterctl.yaml")
	must(t, os.WriteFile(m.config, []byte(m.command(nil, "../../hack/clusterctl-config.sh", release)), 0o600))

	clusterAPI, version, _ := strings.Cut(strings.TrimSpace(m.command(nil, "go", "list", "-m", "-f", "{{.Dir}} {{.Version}}", "sigs.k8s.io/cluster-api")), " ")
	self, err := os.Executable()
	must(t, err)
	options := plane.Options{
		Dir: filepath.Join(dir, "plane"), BinDir: m.binDir, ClusterAPIDir: clusterAPI, ClusterAPIVersion: version,
		Supervisor: []string{self, "supervise"},
		Providers:  []plane.Provider{{Name: "capi-libvirt", Manager: manager, Config: "../../config/default", Version: "v0.1.0"}},
	}
	t.Cleanup(func() {
		if t.Failed() {
			m.logs(options.Dir)
		}
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := plane.Down(ctx, options.Dir); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Errorf("Taking the management plane down: %v", err)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	up, err := plane.Up(ctx, options)
	must(t, err)
	m.kubeconfig = up.Kubeconfig()
	config, err := clientcmd.BuildConfigFromFlags("", m.kubeconfig)
	must(t, err)
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		clientgoscheme.AddToScheme, clusterv1.AddToScheme, controlplanev1.AddToScheme, bootstrapv1.AddToScheme, infrav1.AddToScheme,
	} {
		must(t, add(scheme))
	}
	m.api, err = client.New(config, client.Options{Scheme: scheme})
	must(t, err)
	return m
}

// command runs a program and returns what it prints.
func (m *management) command(environment []string, name string, args ...string) string {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), 5*time.Minute)
	defer cancel()
	command := exec.CommandContext(ctx, name, args...)
	command.Env = append(os.Environ(), environment...)
	var stderr strings.Builder
	command.Stderr = &stderr
	output, err := command.Output()
	if err != nil {
		m.t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, stderr.String())
	}
	return string(output)
}

// generate is what "clusterctl generate cluster" prints for a flavor of our template.
func (m *management) generate(cluster, flavor string, variables map[string]string) string {
	m.t.Helper()
	args := []string{
		"generate", "cluster", cluster, "--infrastructure", "libvirt", "--target-namespace", "default", "--config", m.config,
		"--kubeconfig", m.kubeconfig, "--kubernetes-version", "v1.36.3", "--control-plane-machine-count", "1", "--worker-machine-count", "2",
	}
	if flavor != "" {
		args = append(args, "--flavor", flavor)
	}
	var environment []string
	for name, value := range variables {
		environment = append(environment, name+"="+value)
	}
	return m.command(environment, filepath.Join(m.binDir, "clusterctl"), args...)
}

// logs shows the ends of the managers' logs.
func (m *management) logs(dir string) {
	files, _ := filepath.Glob(filepath.Join(dir, "logs", "capi-*"))
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		m.t.Logf("The end of %s:\n%s", filepath.Base(file), content[max(0, len(content)-8<<10):])
	}
}

// eventually waits until check finds nothing to complain of.
func eventually(t *testing.T, what string, check func() error) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(200 * time.Millisecond) {
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
