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
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// binDirVariable names the directory of the programs that the test runs.
const binDirVariable = "CAPL_BIN_DIR"

// TestMain lets the test binary play the supervisor, as the lab program does.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "supervise" {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer stop()
		// supervise --dir DIR --report-fd 3
		syscall.CloseOnExec(3)
		if err := Supervise(ctx, os.Args[3], os.NewFile(3, "report")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func testOptions(t *testing.T) Options {
	t.Helper()
	binDir := os.Getenv(binDirVariable)
	if binDir == "" {
		t.Fatalf("%s is not set: build the programs and set it with\n\thack/build/build.sh etcd kube-apiserver kube-controller-manager kustomize capi-core-manager capi-kubeadm-bootstrap-manager capi-kubeadm-control-plane-manager\n\texport %s=$(hack/build/build.sh --bin-dir)", binDirVariable, binDirVariable)
	}
	module, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}} {{.Version}}", "sigs.k8s.io/cluster-api").Output()
	if err != nil {
		t.Fatalf("looking for Cluster API's module: %v", err)
	}
	dir, version, _ := strings.Cut(strings.TrimSpace(string(module)), " ")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return Options{
		Dir:               filepath.Join(t.TempDir(), "plane"),
		BinDir:            binDir,
		ClusterAPIDir:     dir,
		ClusterAPIVersion: version,
		Supervisor:        []string{self, "supervise"},
	}
}

func up(t *testing.T, o Options) (*Plane, context.Context) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 80*time.Second)
	t.Cleanup(cancel)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 45*time.Second)
		defer cancel()
		if err := Down(ctx, o.Dir); err != nil {
			t.Errorf("taking the plane down: %v", err)
		}
	})
	p, err := Up(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	return p, ctx
}

func admin(t *testing.T, p *Plane) client.Client {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", p.Kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.New(config, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func newObject(apiVersion, kind, name string) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": apiVersion, "kind": kind,
		"metadata": map[string]any{"name": name, "namespace": "default"},
	}}
}

// eventually asks every tenth of a second, for half a minute at most.
func eventually(ctx context.Context, t *testing.T, what string, check func() error) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		err := check()
		if err == nil {
			return
		}
		if ctx.Err() != nil || time.Now().After(deadline) {
			t.Fatalf("%s: %v", what, err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func TestPlaneLivesAndDies(t *testing.T) {
	o := testOptions(t)
	p, ctx := up(t, o)

	status, err := p.Status(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if !status.Healthy() || len(status.Processes) != 6 {
		t.Fatalf("status right after Up = %+v, want six healthy processes", status)
	}
	if _, err := Up(ctx, o); err == nil || !strings.Contains(err.Error(), "up in "+o.Dir+" already") {
		t.Errorf("a second Up in the same directory: %v, want a refusal", err)
	}

	t.Run("clusterctl's inventory names the providers", func(t *testing.T) {
		providers := &unstructured.UnstructuredList{}
		providers.SetAPIVersion("clusterctl.cluster.x-k8s.io/v1alpha3")
		providers.SetKind("ProviderList")
		if err := admin(t, p).List(ctx, providers); err != nil {
			t.Fatal(err)
		}
		if len(providers.Items) != 3 {
			t.Errorf("found %d providers, want 3", len(providers.Items))
		}
		for _, provider := range providers.Items {
			if got := provider.Object["version"]; got != o.ClusterAPIVersion {
				t.Errorf("version of %s = %v, want %s", provider.GetName(), got, o.ClusterAPIVersion)
			}
		}
	})

	t.Run("webhooks refuse what is wrong", func(t *testing.T) {
		cluster := newObject("cluster.x-k8s.io/v1beta2", "Cluster", "wrong")
		cluster.Object["spec"] = map[string]any{
			"clusterNetwork": map[string]any{"pods": map[string]any{"cidrBlocks": []any{"not-a-cidr"}}},
			"controlPlaneEndpoint": map[string]any{
				"host": "example.org", "port": int64(6443),
			},
		}
		err := admin(t, p).Create(ctx, cluster)
		if err == nil || !strings.Contains(err.Error(), "admission webhook") {
			t.Errorf("creating a cluster with a broken CIDR: %v, want a refusal by the webhook", err)
		}
	})

	t.Run("a manager has its own permissions only", func(t *testing.T) {
		config, err := clientcmd.BuildConfigFromFlags("", p.dir.kubeconfigOf("capi-kubeadm-bootstrap"))
		if err != nil {
			t.Fatal(err)
		}
		c, err := client.New(config, client.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Get(ctx, client.ObjectKey{Namespace: "default", Name: "none"}, newObject("bootstrap.cluster.x-k8s.io/v1beta2", "KubeadmConfig", "none")); !apierrors.IsNotFound(err) {
			t.Errorf("reading a KubeadmConfig: %v, want not found", err)
		}
		if err := c.Get(ctx, client.ObjectKey{Name: "default"}, newObject("rbac.authorization.k8s.io/v1", "ClusterRole", "default")); !apierrors.IsForbidden(err) {
			t.Errorf("reading a ClusterRole: %v, want forbidden", err)
		}
	})

	t.Run("owned objects are collected", func(t *testing.T) {
		c := admin(t, p)
		owner := newObject("v1", "ConfigMap", "owner")
		if err := c.Create(ctx, owner); err != nil {
			t.Fatal(err)
		}
		owned := newObject("v1", "ConfigMap", "owned")
		owned.Object["metadata"].(map[string]any)["ownerReferences"] = []any{map[string]any{
			"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": string(owner.GetUID()),
		}}
		if err := c.Create(ctx, owned); err != nil {
			t.Fatal(err)
		}
		if err := c.Delete(ctx, owner); err != nil {
			t.Fatal(err)
		}
		eventually(ctx, t, "waiting for the owned object to go", func() error {
			err := c.Get(ctx, client.ObjectKeyFromObject(owned), owned)
			if apierrors.IsNotFound(err) {
				return nil
			}
			return fmt.Errorf("it is still there (%w)", err)
		})
	})

	t.Run("a child that dies comes back", func(t *testing.T) {
		victim := find(t, status, "capi-kubeadm-bootstrap")
		if err := syscall.Kill(victim.PID, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		eventually(ctx, t, "waiting for the manager to come back", func() error {
			now, err := p.Status(ctx)
			if err != nil {
				return err
			}
			again := find(t, now, victim.Name)
			if again.PID == victim.PID || again.Restarts != 1 || !again.Healthy || again.LastExit != "signal: killed" {
				return fmt.Errorf("its status is %+v", again)
			}
			return nil
		})
	})

	status, err = p.Status(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := Down(ctx, o.Dir); err != nil {
		t.Fatal(err)
	}
	requireGone(t, status)
	requireOnlyLogs(t, o.Dir)
	if err := Down(ctx, o.Dir); err != nil {
		t.Errorf("taking down what is down: %v", err)
	}
	if _, err := Open(o.Dir); err == nil {
		t.Error("Open found a plane that was taken down")
	}
}

func TestFailedStartLeavesNothingBehind(t *testing.T) {
	o := testOptions(t)
	broken := filepath.Join(t.TempDir(), "manager")
	if err := os.WriteFile(broken, []byte("#!/bin/sh\necho cannot work\nexit 3\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	o.Providers = []Provider{{Name: "broken", Manager: broken, Config: filepath.Join(o.ClusterAPIDir, "core/config/crd"), Version: "v0.0.1"}}

	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	_, err := Up(ctx, o)
	if err == nil || !strings.Contains(err.Error(), "preparing provider broken") {
		t.Errorf("error = %v, want one that names the provider", err)
	}
	requireOnlyLogs(t, o.Dir)
}

func TestUpNamesWhatIsMissing(t *testing.T) {
	_, err := Up(t.Context(), Options{Dir: t.TempDir(), BinDir: "/nonexistent", ClusterAPIDir: "/nonexistent"})
	for _, want := range []string{"/nonexistent/etcd", "/nonexistent/capi-core-manager", "/nonexistent/core/config/default"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error = %v, want one that names %s", err, want)
		}
	}
}

func find(t *testing.T, status Status, name string) Process {
	t.Helper()
	for _, process := range status.Processes {
		if process.Name == name {
			return process
		}
	}
	t.Fatalf("no process %s in %+v", name, status)
	return Process{}
}

func requireGone(t *testing.T, status Status) {
	t.Helper()
	for _, process := range append(status.Processes, Process{Name: "supervisor", PID: status.PID}) {
		// Who ended is there until somebody has noticed.
		err := syscall.Kill(process.PID, 0)
		for end := time.Now().Add(5 * time.Second); !errors.Is(err, syscall.ESRCH) && time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
			err = syscall.Kill(process.PID, 0)
		}
		if !errors.Is(err, syscall.ESRCH) {
			t.Errorf("%s (pid %d) is still there: %v", process.Name, process.PID, err)
		}
	}
}

func requireOnlyLogs(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if entry.Name() != "logs" {
			t.Errorf("%s was left behind", entry.Name())
		}
	}
}
