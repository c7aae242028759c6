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

// The manager of cluster-api-provider-libvirt: it turns KVM hosts into Kubernetes clusters by the v1beta2 contract of
// Cluster API.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/spf13/pflag"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	cliflag "k8s.io/component-base/cli/flag"
	"k8s.io/component-base/logs"
	logsv1 "k8s.io/component-base/logs/api/v1"
	_ "k8s.io/component-base/logs/json/register"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	ipamv1 "sigs.k8s.io/cluster-api/api/ipam/v1beta2"
	"sigs.k8s.io/cluster-api/controllers/crdmigrator"
	"sigs.k8s.io/cluster-api/controllers/remote"
	"sigs.k8s.io/cluster-api/feature"
	"sigs.k8s.io/cluster-api/util/flags"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	"sigs.k8s.io/controller-runtime/pkg/webhook"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/controllers"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/host"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/webhooks"
)

const controllerName = "cluster-api-provider-libvirt-manager"

// +kubebuilder:rbac:groups=authentication.k8s.io,resources=tokenreviews,verbs=create
// +kubebuilder:rbac:groups=authorization.k8s.io,resources=subjectaccessreviews,verbs=create
// +kubebuilder:rbac:groups=apiextensions.k8s.io,resources=customresourcedefinitions,verbs=get;list;watch
// +kubebuilder:rbac:groups=apiextensions.k8s.io,resources=customresourcedefinitions;customresourcedefinitions/status,verbs=patch,resourceNames=libvirthosts.infrastructure.cluster.x-k8s.io;libvirtclusters.infrastructure.cluster.x-k8s.io;libvirtclustertemplates.infrastructure.cluster.x-k8s.io;libvirtmachines.infrastructure.cluster.x-k8s.io;libvirtmachinetemplates.infrastructure.cluster.x-k8s.io
// +kubebuilder:rbac:groups=infrastructure.cluster.x-k8s.io,resources=libvirtclustertemplates;libvirtmachinetemplates,verbs=list;patch

// options are what the flags set.
type options struct {
	leaderElect                           bool
	leaseDuration, renewDeadline, retry   time.Duration
	watchFilter, namespace                string
	profilerAddress, healthAddress        string
	syncPeriod                            time.Duration
	qps                                   float32
	burst                                 int
	webhookPort                           int
	webhookCertDir                        string
	hostWorkers, clusterWorkers, machines int
	orphanInterval                        time.Duration
	images                                imageOptions
	skipMigrationPhases                   []string
	manager                               flags.ManagerOptions
	logs                                  *logs.Options
}

func (o *options) addFlags(fs *pflag.FlagSet) {
	logsv1.AddFlags(o.logs, fs)
	fs.BoolVar(&o.leaderElect, "leader-elect", false, "Let one of several managers be active at a time.")
	fs.DurationVar(&o.leaseDuration, "leader-elect-lease-duration", 15*time.Second, "How long a candidate waits before it takes the lead by force.")
	fs.DurationVar(&o.renewDeadline, "leader-elect-renew-deadline", 10*time.Second, "How long the leader tries to renew its lead before it gives up.")
	fs.DurationVar(&o.retry, "leader-elect-retry-period", 2*time.Second, "How long a candidate waits between tries.")
	fs.StringVar(&o.namespace, "namespace", "", "Namespace to watch; all when empty.")
	fs.StringVar(&o.watchFilter, "watch-filter", "", fmt.Sprintf("Value of the label %s of the objects to reconcile; all when empty.", clusterv1.WatchLabel))
	fs.StringVar(&o.profilerAddress, "profiler-address", "", "Address of the pprof profiler, for example localhost:6060.")
	fs.StringVar(&o.healthAddress, "health-addr", ":9440", "Address of the health endpoint.")
	fs.DurationVar(&o.syncPeriod, "sync-period", 10*time.Minute, "How often everything is reconciled even if nothing happened.")
	fs.Float32Var(&o.qps, "kube-api-qps", 100, "Requests per second to the API server.")
	fs.IntVar(&o.burst, "kube-api-burst", 200, "Requests to the API server in one burst.")
	fs.IntVar(&o.webhookPort, "webhook-port", 9443, "Port of the webhook server.")
	fs.StringVar(&o.webhookCertDir, "webhook-cert-dir", "/tmp/k8s-webhook-server/serving-certs/", "Directory with tls.crt and tls.key of the webhook server.")
	fs.IntVar(&o.hostWorkers, "libvirthost-concurrency", 20, "LibvirtHosts to reconcile at once.")
	fs.IntVar(&o.clusterWorkers, "libvirtcluster-concurrency", 10, "LibvirtClusters to reconcile at once.")
	fs.IntVar(&o.machines, "libvirtmachine-concurrency", 50, "LibvirtMachines to reconcile at once.")
	fs.DurationVar(&o.orphanInterval, "orphan-interval", controllers.DefaultOrphanInterval, "How often hosts are looked over for orphans, and how long something must have been one before spec.orphanPolicy Delete of its LibvirtHost removes it.")
	o.images.addFlags(fs)
	fs.StringSliceVar(&o.skipMigrationPhases, "skip-crd-migration-phases", nil, "CRD migration phases to skip: StorageVersionMigration, CleanupManagedFields.")
	flags.AddManagerOptions(fs, &o.manager)
	feature.MutableGates.AddFlag(fs)
}

func main() {
	opts := &options{logs: logs.NewOptions()}
	opts.addFlags(pflag.CommandLine)
	pflag.CommandLine.SetNormalizeFunc(cliflag.WordSepNormalizeFunc)
	pflag.CommandLine.AddGoFlagSet(flag.CommandLine)
	utilruntime.Must(pflag.CommandLine.Set("v", "2"))
	pflag.Parse()
	if err := logsv1.ValidateAndApply(opts.logs, nil); err != nil {
		fmt.Fprintln(os.Stderr, "Unable to set up logging:", err)
		os.Exit(1)
	}
	ctrl.SetLogger(klog.Background())
	if err := run(ctrl.SetupSignalHandler(), opts); err != nil {
		ctrl.Log.Error(err, "Manager failed")
		os.Exit(1)
	}
}

// run sets the manager up and runs it until ctx ends.
func run(ctx context.Context, opts *options) error {
	mgr, err := newManager(opts)
	if err != nil {
		return err
	}
	if err := mgr.AddReadyzCheck("webhook", mgr.GetWebhookServer().StartedChecker()); err != nil {
		return fmt.Errorf("adding the readiness check: %w", err)
	}
	if err := mgr.AddHealthzCheck("webhook", mgr.GetWebhookServer().StartedChecker()); err != nil {
		return fmt.Errorf("adding the health check: %w", err)
	}
	images, err := opts.images.policy()
	if err != nil {
		return err
	}
	measured, err := controllers.NewMetrics(metrics.Registry)
	if err != nil {
		return err
	}
	hosts := host.NewPool(ctrl.Log.WithName("host"), host.WithObserver(measured.ObserveCall))
	if err := controllers.Setup(ctx, mgr, hosts, controllers.Options{
		WatchFilterValue: opts.watchFilter,
		HostWorkers:      opts.hostWorkers,
		ClusterWorkers:   opts.clusterWorkers,
		MachineWorkers:   opts.machines,
		OrphanInterval:   opts.orphanInterval,
		ImagePolicy:      images,
		Metrics:          measured,
	}); err != nil {
		return err
	}
	if err := webhooks.Setup(mgr, images); err != nil {
		return fmt.Errorf("setting up the webhooks: %w", err)
	}
	if err := addMigrator(ctx, mgr, opts); err != nil {
		return err
	}
	ctrl.Log.Info("Starting manager")
	return mgr.Start(ctx)
}

func newManager(opts *options) (ctrl.Manager, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		clientgoscheme.AddToScheme, apiextensionsv1.AddToScheme, clusterv1.AddToScheme, ipamv1.AddToScheme, infrav1.AddToScheme,
	} {
		utilruntime.Must(add(scheme))
	}
	tlsOptions, diagnostics, err := flags.GetManagerOptions(opts.manager)
	if err != nil {
		return nil, fmt.Errorf("reading the flags: %w", err)
	}
	restConfig, err := ctrl.GetConfig()
	if err != nil {
		return nil, fmt.Errorf("finding the management cluster: %w", err)
	}
	restConfig.QPS, restConfig.Burst = opts.qps, opts.burst
	restConfig.UserAgent = remote.DefaultClusterAPIUserAgent(controllerName)
	var namespaces map[string]cache.Config
	if opts.namespace != "" {
		namespaces = map[string]cache.Config{opts.namespace: {}}
	}
	mgr, err := ctrl.NewManager(restConfig, ctrl.Options{
		Scheme:                 scheme,
		LeaderElection:         opts.leaderElect,
		LeaderElectionID:       "controller-leader-election-capl",
		LeaseDuration:          &opts.leaseDuration,
		RenewDeadline:          &opts.renewDeadline,
		RetryPeriod:            &opts.retry,
		HealthProbeBindAddress: opts.healthAddress,
		PprofBindAddress:       opts.profilerAddress,
		Metrics:                *diagnostics,
		Cache:                  cache.Options{DefaultNamespaces: namespaces, SyncPeriod: &opts.syncPeriod},
		// Secrets are read one by one, so that the manager needs no right to list them.
		Client: client.Options{Cache: &client.CacheOptions{DisableFor: []client.Object{&corev1.Secret{}}}},
		Controller: config.Controller{
			UsePriorityQueue: ptr.To(feature.Gates.Enabled(feature.PriorityQueue)),
			CacheSyncTimeout: 5 * time.Minute,
		},
		WebhookServer: webhook.NewServer(webhook.Options{Port: opts.webhookPort, CertDir: opts.webhookCertDir, TLSOpts: tlsOptions}),
	})
	if err != nil {
		return nil, fmt.Errorf("creating the manager: %w", err)
	}
	return mgr, nil
}

// addMigrator adds what moves stored objects to the newest API version. The RBAC markers above name the same kinds.
func addMigrator(ctx context.Context, mgr ctrl.Manager, opts *options) error {
	var skip []crdmigrator.Phase
	for _, phase := range opts.skipMigrationPhases {
		skip = append(skip, crdmigrator.Phase(phase))
	}
	if err := (&crdmigrator.CRDMigrator{
		Client:                 mgr.GetClient(),
		APIReader:              mgr.GetAPIReader(),
		SkipCRDMigrationPhases: skip,
		Config: map[client.Object]crdmigrator.ByObjectConfig{
			&infrav1.LibvirtHost{}:            {UseCache: true, UseStatusForStorageVersionMigration: true},
			&infrav1.LibvirtCluster{}:         {UseCache: true, UseStatusForStorageVersionMigration: true},
			&infrav1.LibvirtMachine{}:         {UseCache: true, UseStatusForStorageVersionMigration: true},
			&infrav1.LibvirtClusterTemplate{}: {UseCache: false},
			&infrav1.LibvirtMachineTemplate{}: {UseCache: true, UseStatusForStorageVersionMigration: true},
		},
	}).SetupWithManager(ctx, mgr, controller.Options{MaxConcurrentReconciles: 1}); err != nil {
		return fmt.Errorf("setting up the CRD migrator: %w", err)
	}
	return nil
}
