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

package controllers

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/go-logr/logr/funcr"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	ipamv1 "sigs.k8s.io/cluster-api/api/ipam/v1beta2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/host"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/hostagent"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/image"
)

// What the tests of this package share: a real API server with the CRDs of Cluster API and ours, and a manager that
// runs the controllers as main does. Each test has a namespace and hosts of its own.
var (
	// apiConfig reaches the API server; api reads and writes there without a cache.
	apiConfig *rest.Config
	api       client.Client
	scheme    = runtime.NewScheme()

	// pool is that of the shared manager. A host of the test driver exists in its connection only, so tests look at
	// such a host through it.
	pool *host.Pool
	// registry has the metrics of the shared manager.
	registry = prometheus.NewRegistry()
	// leaked is a line of the log that had the canary in it.
	leaked atomic.Pointer[string]
	// uploaded holds what the shared manager uploaded to hosts of the test driver, which can't take it.
	uploaded = &uploads{content: map[string]string{}}
)

// canary is what some bootstrap data has in it, and nothing that anybody else reads.
const canary = "canary-3f9d1c27b64e"

// sharedManager is the value of the watch-filter label of what the shared manager reconciles.
const sharedManager = "shared"

// asAgent has this program be a host's agent instead of the tests.
const asAgent = "CONTROLLERS_TEST_HOST_AGENT"

func TestMain(m *testing.M) {
	if os.Getenv(asAgent) != "" {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		err := hostagent.NewCommand("test").ExecuteContext(ctx)
		stop()
		if err != nil {
			fmt.Fprintln(os.Stderr, "Error:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	// The tests wait far more than they compute.
	flag.Parse()
	if flag.Lookup("test.parallel").Value.String() == flag.Lookup("test.parallel").DefValue {
		if err := flag.Set("test.parallel", "16"); err != nil {
			panic(err)
		}
	}
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(code)
}

func run(m *testing.M) (int, error) {
	if os.Getenv("KUBEBUILDER_ASSETS") == "" {
		return 0, errors.New("KUBEBUILDER_ASSETS must name the directory with kube-apiserver and etcd: run make test, or make test TEST_PACKAGES=./internal/controllers/")
	}
	ctrl.SetLogger(funcr.New(func(prefix, line string) {
		if strings.Contains(line, canary) {
			leaked.Store(&line)
		}
		if testing.Verbose() {
			klog.Infof("%s %s", prefix, line)
		}
	}, funcr.Options{Verbosity: 4}))
	for _, add := range []func(*runtime.Scheme) error{
		clientgoscheme.AddToScheme, clusterv1.AddToScheme, ipamv1.AddToScheme, infrav1.AddToScheme,
	} {
		if err := add(scheme); err != nil {
			return 0, err
		}
	}
	clusterAPI, err := moduleDir("sigs.k8s.io/cluster-api")
	if err != nil {
		return 0, err
	}
	env := &envtest.Environment{
		CRDDirectoryPaths: []string{
			filepath.Join("..", "..", "config", "crd", "bases"),
			filepath.Join(clusterAPI, "core", "config", "crd", "bases"),
			filepath.Join(clusterAPI, "bootstrap", "kubeadm", "config", "crd", "bases"),
			filepath.Join(clusterAPI, "controlplane", "kubeadm", "config", "crd", "bases"),
		},
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
	apiConfig.QPS, apiConfig.Burst = 500, 1000
	if api, err = client.New(apiConfig, client.Options{Scheme: scheme}); err != nil {
		return 0, err
	}

	measured, err := NewMetrics(registry)
	if err != nil {
		return 0, err
	}
	pool = host.NewPool(ctrl.Log.WithName("host"), host.WithUpload(uploaded.keep), host.WithObserver(measured.ObserveCall))
	ctx, cancel := context.WithCancel(context.Background())
	ended, err := startManager(ctx, pool, sharedManager, "", nil, func(o *Options) { o.Metrics = measured })
	if err != nil {
		cancel()
		return 0, err
	}
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			fmt.Fprintln(os.Stderr, "running the controllers:", err)
		}
	}()
	code := m.Run()
	if panics, err := reconcilePanics(); err != nil || panics > 0 {
		return 1, errors.Join(err, fmt.Errorf("%v reconciles panicked: see the log with -v", panics))
	}
	return code, nil
}

// reconcilePanics counts the panics of all controllers. The managers recover from them, so that no test need notice.
func reconcilePanics() (float64, error) {
	families, err := metrics.Registry.Gather()
	if err != nil {
		return 0, fmt.Errorf("gathering metrics: %w", err)
	}
	var panics float64
	for _, family := range families {
		if family.GetName() == "controller_runtime_reconcile_panics_total" {
			for _, metric := range family.GetMetric() {
				panics += metric.GetCounter().GetValue()
			}
		}
	}
	return panics, nil
}

// moduleDir is the directory of a module that the tests need files of.
func moduleDir(module string) (string, error) {
	command := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", module)
	command.Stderr = os.Stderr
	output, err := command.Output()
	if err != nil {
		return "", fmt.Errorf("finding the module %s: %w", module, err)
	}
	return strings.TrimSpace(string(output)), nil
}

// startManager runs the controllers until ctx ends, for the objects with the value of the watch-filter label and, unless
// it is empty, in one namespace. What the channel returns is how the manager ended.
func startManager(ctx context.Context, hosts *host.Pool, watchFilter, namespace string, newClient client.NewClientFunc, edits ...func(*Options)) (<-chan error, error) {
	var namespaces map[string]cache.Config
	if namespace != "" {
		namespaces = map[string]cache.Config{namespace: {}}
	}
	mgr, err := ctrl.NewManager(apiConfig, ctrl.Options{
		Scheme:    scheme,
		Metrics:   metricsserver.Options{BindAddress: "0"},
		Cache:     cache.Options{DefaultNamespaces: namespaces},
		Client:    client.Options{Cache: &client.CacheOptions{DisableFor: []client.Object{&corev1.Secret{}}}},
		NewClient: newClient,
		// Several managers run in this process, one after the other and beside each other.
		Controller: config.Controller{UsePriorityQueue: ptr.To(true), SkipNameValidation: ptr.To(true)},
	})
	if err != nil {
		return nil, fmt.Errorf("creating a manager: %w", err)
	}
	options := Options{
		WatchFilterValue: watchFilter, HostWorkers: 20, ClusterWorkers: 10, MachineWorkers: 50,
		// Tests serve images themselves.
		ImagePolicy: image.Policy{AllowHTTP: true, AllowedNetworks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}},
	}
	for _, edit := range edits {
		edit(&options)
	}
	if err := Setup(ctx, mgr, hosts, options); err != nil {
		return nil, err
	}
	ended := make(chan error, 1)
	go func() { ended <- mgr.Start(ctx) }()
	return ended, nil
}

// uploads keeps the content of volumes by their name.
type uploads struct {
	mu      sync.Mutex
	content map[string]string
}

func (u *uploads) keep(_ context.Context, _ *host.Host, _, volume string, _ int64, r io.Reader) error {
	content, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.content[volume] = string(content)
	return nil
}

func (u *uploads) of(volume string) string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.content[volume]
}
