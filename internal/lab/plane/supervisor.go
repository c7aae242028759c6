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
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// trial are the objects whose creation on trial proves that the stock webhooks answer.
//
//go:embed trial.yaml
var trial []byte

// supervisor brings up the plane described by its options and keeps it running.
type supervisor struct {
	layout
	options  Options
	began    time.Time
	identity credentials
	server   string

	mu       sync.Mutex
	children []*child
	ready    bool
}

// Supervise brings up the plane that was prepared in dir and keeps it running until the context
// ends; then it stops every child, in reverse order, and removes everything but the logs. When the start has succeeded or failed, that
// is written to the report, if there is one.
func Supervise(ctx context.Context, dir string, report io.Writer) error {
	s := &supervisor{layout: layout(dir), began: time.Now()}
	if err := readJSON(s.layout.options(), &s.options); err != nil {
		return err
	}
	err := errors.Join(s.run(ctx, report), s.removeRunState())
	if err != nil && report != nil {
		err = tell(report, err)
	}
	return err
}

// run returns nil if the plane came up and was later asked to end.
func (s *supervisor) run(ctx context.Context, report io.Writer) error {
	defer s.stopAll()
	stat, err := readStat(os.Getpid())
	if err != nil {
		return err
	}
	if err := writeJSON(s.supervisor(), identity{PID: os.Getpid(), StartTicks: stat.startTicks}); err != nil {
		return err
	}
	if err := requireLoopback(s.options.Netns); err != nil {
		return err
	}
	if s.identity, err = issueCredentials(s.layout, s.options.ServerNames); err != nil {
		return err
	}
	closeStatus, err := serveStatus(s.layout, s.status)
	if err != nil {
		return err
	}
	defer closeStatus()

	if err := s.bringUp(ctx); err != nil {
		return err
	}
	slog.Info("Management plane is ready", "server", s.server, "after", time.Since(s.began).Round(time.Millisecond))
	s.mu.Lock()
	s.ready = true
	s.mu.Unlock()
	if report != nil {
		if err := tell(report, nil); err != nil {
			return err
		}
	}
	<-ctx.Done()
	slog.Info("Taking down the management plane")
	return nil
}

// tell writes how the start went and returns the error it was given, or its own.
func tell(report io.Writer, start error) error {
	var o outcome
	if start != nil {
		o.Error = start.Error()
	}
	if err := json.NewEncoder(report).Encode(o); err != nil {
		return fmt.Errorf("reporting how the start went: %w", err)
	}
	return start
}

// bringUp starts the servers while the providers' components are rendered, applies these, and
// starts the managers.
func (s *supervisor) bringUp(ctx context.Context) error {
	const ownPorts, portsPerManager = 5, 3
	providers := s.options.providers()
	ports, err := freePorts(ownPorts + portsPerManager*len(providers))
	if err != nil {
		return err
	}
	servers := serverPorts{etcdClient: ports[0], etcdPeer: ports[1], etcdHealth: ports[2], apiServer: ports[3], controllerManager: ports[4]}
	if s.options.APIPort != 0 {
		servers.apiServer = s.options.APIPort
	}
	s.setServer("https://" + address(loopback, servers.apiServer))

	installations := make([]installation, len(providers))
	group, groupCtx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.startServers(groupCtx, servers) })
	group.Go(func() error {
		for i, provider := range providers {
			p := ports[ownPorts+portsPerManager*i:]
			var err error
			installations[i], err = s.prepare(groupCtx, provider, managerPorts{health: p[0], webhook: p[1], diagnostics: p[2]})
			if err != nil {
				return fmt.Errorf("preparing provider %s: %w", provider.Name, err)
			}
		}
		return nil
	})
	if err := group.Wait(); err != nil {
		return err
	}

	config, err := clientcmd.BuildConfigFromFlags("", s.kubeconfig())
	if err != nil {
		return fmt.Errorf("reading the plane's kubeconfig: %w", err)
	}
	config.QPS, config.Burst = 200, 400
	c, err := client.New(config, client.Options{})
	if err != nil {
		return fmt.Errorf("connecting to the API server: %w", err)
	}
	if err := s.install(ctx, c, installations); err != nil {
		return err
	}
	if err := s.startManagers(ctx, installations); err != nil {
		return err
	}
	trials, err := decode(trial)
	if err != nil {
		return err
	}
	return awaitWebhooks(ctx, c, trials)
}

// startServers starts etcd, the API server and the controllers, and waits until each answers. The
// API server waits for etcd by itself.
func (s *supervisor) startServers(ctx context.Context, ports serverPorts) error {
	if err := s.identity.writeKubeconfigs(s.layout, s.server); err != nil {
		return err
	}
	probes := newProbeClient(s.identity.ca)
	etcd := s.start(etcdProcess(s.layout, s.options.BinDir, ports))
	if err := awaitReady(ctx, probes, etcd); err != nil {
		return err
	}
	apiServer := s.start(apiServerProcess(s.layout, s.options.BinDir, s.options.BindAddress, ports))
	if err := awaitReady(ctx, probes, apiServer); err != nil {
		return err
	}
	return awaitReady(ctx, probes, s.start(controllerManagerProcess(s.layout, s.options.BinDir, ports)))
}

// installation is a provider, ready to be applied and run.
type installation struct {
	deployment
	objects []*unstructured.Unstructured
	version string
	process process
}

// prepare renders a provider's components and gives its manager an identity and certificates.
func (s *supervisor) prepare(ctx context.Context, provider Provider, ports managerPorts) (installation, error) {
	rendered, err := components(ctx, s.options.BinDir, provider, s.options.Variables)
	if err != nil {
		return installation{}, err
	}
	d, err := findDeployment(rendered)
	if err != nil {
		return installation{}, err
	}
	objects, err := localize(rendered, endpoint{port: ports.webhook, caBundle: s.identity.ca.bundle()})
	if err != nil {
		return installation{}, err
	}
	if err := s.identity.writeManagerCredentials(s.layout, s.server, provider.Name, d); err != nil {
		return installation{}, err
	}
	return installation{
		deployment: d,
		objects:    objects,
		version:    provider.Version,
		process:    managerProcess(s.layout, provider, d, ports, hasWebhooks(rendered)),
	}, nil
}

// install applies every provider's components and records them in clusterctl's inventory.
func (s *supervisor) install(ctx context.Context, c client.Client, installations []installation) error {
	inventory, err := readObjects(layout(s.options.ClusterAPIDir).path(clusterctlAPI))
	if err != nil {
		return err
	}
	inventory = inventoryDefinition(inventory)
	if err := applyAll(ctx, c, inventory); err != nil {
		return err
	}
	for _, i := range installations {
		if err := applyAll(ctx, c, i.objects); err != nil {
			return err
		}
	}
	if err := awaitEffect(ctx, c, inventory); err != nil {
		return err
	}
	for _, i := range installations {
		if err := awaitEffect(ctx, c, i.objects); err != nil {
			return err
		}
		entry := inventoryEntry(i.manifestLabel, i.namespace, i.version)
		if err := applyAll(ctx, c, []*unstructured.Unstructured{entry}); err != nil {
			return err
		}
	}
	return nil
}

// startManagers starts the managers together and waits until each is ready, webhooks included.
func (s *supervisor) startManagers(ctx context.Context, installations []installation) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, i := range installations {
		manager := s.start(i.process)
		group.Go(func() error { return awaitReady(ctx, newProbeClient(s.identity.ca), manager) })
	}
	return group.Wait()
}

func (s *supervisor) start(p process) *child {
	slog.Info("Starting process", "name", p.name, "log", p.log)
	c := startChild(p)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.children = append(s.children, c)
	return c
}

// stopAll ends the managers, then what they depend on.
func (s *supervisor) stopAll() {
	s.mu.Lock()
	children := s.children
	s.mu.Unlock()
	var managers sync.WaitGroup
	const servers = 3
	for _, manager := range children[min(servers, len(children)):] {
		managers.Go(manager.end)
	}
	managers.Wait()
	for i := min(servers, len(children)) - 1; i >= 0; i-- {
		children[i].end()
	}
}

func (s *supervisor) setServer(url string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.server = url
}

// status asks every child's health endpoint, all at once.
func (s *supervisor) status(ctx context.Context) Status {
	s.mu.Lock()
	status := Status{PID: os.Getpid(), Since: s.began, Ready: s.ready, Netns: s.options.Netns, Server: s.server}
	children := append([]*child(nil), s.children...)
	s.mu.Unlock()

	probes := newProbeClient(s.identity.ca)
	status.Processes = make([]Process, len(children))
	var answers sync.WaitGroup
	for i, c := range children {
		answers.Go(func() { status.Processes[i] = c.status(healthy(ctx, probes, c)) })
	}
	answers.Wait()
	return status
}

func healthy(ctx context.Context, probes *http.Client, c *child) bool {
	return probe(ctx, probes, c.healthURL) == nil
}
