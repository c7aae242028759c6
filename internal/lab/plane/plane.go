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

// Package plane runs an ephemeral Cluster API management cluster as a handful of processes: etcd,
// kube-apiserver, kube-controller-manager, and the managers of the providers. It plays the part
// that a kind cluster plays elsewhere, and needs no containers and no network but loopback.
//
// A supervisor process of its own brings everything up, keeps it running and takes it down; Up
// starts that process in the background and Down ends it.
package plane

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"k8s.io/client-go/tools/clientcmd"
)

// Options say what to bring up and where.
type Options struct {
	// Dir is the plane's directory: kubeconfig, keys, data, logs.
	Dir string `json:"dir"`
	// Netns is the network namespace that everything runs in: a path, or a name known to "ip
	// netns". Empty is this process's own.
	Netns string `json:"netns,omitempty"`
	// BinDir holds etcd, kube-apiserver, kube-controller-manager, kustomize and Cluster API's
	// managers.
	BinDir string `json:"binDir"`
	// ClusterAPIDir is the directory of the module sigs.k8s.io/cluster-api, which holds the
	// manifests of its providers.
	ClusterAPIDir string `json:"clusterAPIDir"`
	// ClusterAPIVersion is that module's version, such as v1.14.2.
	ClusterAPIVersion string `json:"clusterAPIVersion"`
	// Providers run besides Cluster API's core, kubeadm bootstrap and kubeadm control plane
	// providers, which always run.
	Providers []Provider `json:"providers,omitempty"`
	// Variables replace ${NAME:=default} in the providers' manifests, as clusterctl's do. Those
	// of DefaultVariables hold unless set here.
	Variables map[string]string `json:"variables,omitempty"`
	// BindAddress is where the API server listens; loopback by default.
	BindAddress string `json:"bindAddress,omitempty"`
	// APIPort is the API server's port; by default one that is free.
	APIPort int `json:"apiPort,omitempty"`
	// ServerNames are further addresses and names by which the API server may be called.
	ServerNames []string `json:"serverNames,omitempty"`
	// Supervisor is the command that runs Supervise for the directory given as its last
	// arguments "--dir DIR"; by default this executable's "plane supervise".
	Supervisor []string `json:"-"`
}

// Provider is one Cluster API provider.
type Provider struct {
	// Name names the process, its log and its kubeconfig.
	Name string `json:"name"`
	// Manager is the path of the provider's manager.
	Manager string `json:"manager"`
	// Config is the kustomization of the provider's components (config/default).
	Config string `json:"config"`
	// Version is what clusterctl's inventory says is installed, such as v1.14.2.
	Version string `json:"version"`
}

// DefaultVariables hold where Options.Variables says nothing: ClusterClass is on, a join token
// outlives the boot of an emulated machine, and images are served by this machine: on loopback or on
// its links to private hosts.
var DefaultVariables = map[string]string{
	"CLUSTER_TOPOLOGY":            "true",
	"KUBEADM_BOOTSTRAP_TOKEN_TTL": "60m",
	"CAPL_IMAGE_ALLOW_HTTP":       "true",
	"CAPL_IMAGE_ALLOWED_CIDRS":    "127.0.0.0/8,198.18.0.0/15",
}

// stockProviders are Cluster API's own.
func stockProviders(dir, version, binDir string) []Provider {
	stock := func(name, path string) Provider {
		return Provider{
			Name:    name,
			Manager: filepath.Join(binDir, name+"-manager"),
			Config:  filepath.Join(dir, path, "config/default"),
			Version: version,
		}
	}
	return []Provider{
		stock("capi-core", "core"),
		stock("capi-kubeadm-bootstrap", "bootstrap/kubeadm"),
		stock("capi-kubeadm-control-plane", "controlplane/kubeadm"),
	}
}

// providers are all that the plane runs.
func (o Options) providers() []Provider {
	return append(stockProviders(o.ClusterAPIDir, o.ClusterAPIVersion, o.BinDir), o.Providers...)
}

// validate fills in defaults and refuses what can't work before anything is started.
func (o *Options) validate() error {
	var problems []error
	if o.Dir == "" {
		problems = append(problems, errors.New("no directory given"))
	}
	for _, path := range []*string{&o.Dir, &o.BinDir, &o.ClusterAPIDir} {
		if absolute, err := filepath.Abs(*path); err == nil && *path != "" {
			*path = absolute
		}
	}
	needed := []string{filepath.Join(o.ClusterAPIDir, clusterctlAPI)}
	for _, name := range []string{"etcd", "kube-apiserver", "kube-controller-manager", "kustomize"} {
		needed = append(needed, filepath.Join(o.BinDir, name))
	}
	for i := range o.Providers {
		for _, path := range []*string{&o.Providers[i].Manager, &o.Providers[i].Config} {
			if absolute, err := filepath.Abs(*path); err == nil {
				*path = absolute
			}
		}
	}
	names := map[string]bool{}
	for i, p := range o.providers() {
		if p.Name == "" || names[p.Name] {
			problems = append(problems, fmt.Errorf("provider %d needs a name of its own, not %q", i, p.Name))
		}
		names[p.Name] = true
		needed = append(needed, p.Manager, p.Config)
	}
	for _, path := range needed {
		if _, err := os.Stat(path); err != nil {
			problems = append(problems, fmt.Errorf("needed by the management plane: %w", err))
		}
	}
	variables := maps.Clone(DefaultVariables)
	maps.Copy(variables, o.Variables)
	o.Variables = variables
	if o.BindAddress == "" {
		o.BindAddress = loopback
	}
	return errors.Join(problems...)
}

// Prepare validates the options, writes them down in the plane's directory and returns the command
// that supervises it. It fails if a plane is up there already.
func Prepare(o Options) ([]string, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	l := layout(o.Dir)
	if running, err := findSupervisor(l); err != nil {
		return nil, err
	} else if running != nil {
		defer running.close()
		return nil, fmt.Errorf("a management plane is up in %s already (pid %d): take it down first", o.Dir, running.pid)
	}
	// Logs of an earlier plane are read until the next one starts.
	if err := os.RemoveAll(l.logs()); err != nil {
		return nil, fmt.Errorf("removing the logs of an earlier plane: %w", err)
	}
	if err := l.create(); err != nil {
		return nil, err
	}
	if err := writeJSON(l.options(), o); err != nil {
		return nil, err
	}
	command := o.Supervisor
	if len(command) == 0 {
		self, err := os.Executable()
		if err != nil {
			return nil, fmt.Errorf("finding this executable: %w", err)
		}
		command = []string{self, "plane", "supervise"}
	}
	if o.Netns != "" {
		command = append([]string{"nsenter", "--net=" + netnsPath(o.Netns), "--"}, command...)
	}
	return append(command, "--dir", o.Dir), nil
}

func netnsPath(netns string) string {
	if strings.Contains(netns, "/") {
		return netns
	}
	return filepath.Join("/run/netns", netns)
}

// Plane is a management cluster that is up.
type Plane struct {
	dir layout
}

// Up brings a management plane up in the background and returns when all of it answers. It fails
// with the reason and the log to read, and then leaves no process behind. A context that ends
// takes a half-started plane down; one that ends later does not.
func Up(ctx context.Context, o Options) (*Plane, error) {
	command, err := Prepare(o)
	if err != nil {
		return nil, err
	}
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("resolving %s: %w", o.Dir, err)
	}
	l := layout(dir)
	d, err := startDetached(l, command)
	if err != nil {
		return nil, err
	}
	outcome := make(chan error, 1)
	go func() { outcome <- readReport(d.report, l) }()
	select {
	case err = <-outcome:
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		d.end()
		return nil, errors.Join(fmt.Errorf("bringing up the management plane: %w", err), l.removeRunState())
	}
	return &Plane{dir: l}, nil
}

// Open returns the plane that is up in dir.
func Open(dir string) (*Plane, error) {
	absolute, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("resolving %s: %w", dir, err)
	}
	running, err := findSupervisor(layout(absolute))
	if err != nil {
		return nil, err
	}
	if running == nil {
		return nil, fmt.Errorf("no management plane is up in %s", absolute)
	}
	defer running.close()
	return &Plane{dir: layout(absolute)}, nil
}

// Kubeconfig is the path of the administrator's kubeconfig. Its server is on loopback, within the
// plane's network namespace.
func (p *Plane) Kubeconfig() string {
	return p.dir.kubeconfig()
}

// KubeconfigFor is the administrator's kubeconfig with another server URL, for callers that reach
// the API server through a forwarder. The URL's host must be loopback, localhost or one of
// Options.ServerNames.
func (p *Plane) KubeconfigFor(server string) ([]byte, error) {
	config, err := clientcmd.LoadFromFile(p.Kubeconfig())
	if err != nil {
		return nil, fmt.Errorf("reading the plane's kubeconfig: %w", err)
	}
	for _, cluster := range config.Clusters {
		cluster.Server = server
	}
	content, err := clientcmd.Write(*config)
	if err != nil {
		return nil, fmt.Errorf("rendering the kubeconfig for %s: %w", server, err)
	}
	return content, nil
}

// detached is a supervisor that was started in a session of its own.
type detached struct {
	// report is where it says how the start went.
	report *os.File
	cancel context.CancelFunc
	done   chan struct{}
}

func startDetached(l layout, command []string) (*detached, error) {
	log, err := os.OpenFile(l.log("supervisor"), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the supervisor's log: %w", err)
	}
	defer func() { _ = log.Close() }()
	read, write, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("opening a pipe to the supervisor: %w", err)
	}
	defer func() { _ = write.Close() }()

	// The supervisor outlives the caller's context: only a start that failed ends it.
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, command[0], append(command[1:], "--report-fd", "3")...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = []*os.File{write}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = termGrace
	if err := cmd.Start(); err != nil {
		cancel()
		_ = read.Close()
		return nil, fmt.Errorf("starting the supervisor: %w", err)
	}
	d := &detached{report: read, cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(d.done)
		defer func() { _ = read.Close() }()
		// How it ended is in its report or its log.
		_ = cmd.Wait()
	}()
	return d, nil
}

// end stops the supervisor, and with it everything that it started.
func (d *detached) end() {
	d.cancel()
	<-d.done
}

// outcome is what a supervisor reports once.
type outcome struct {
	Error string `json:"error,omitempty"`
}

func readReport(report io.Reader, l layout) error {
	line, err := bufio.NewReader(report).ReadString('\n')
	if err != nil {
		return fmt.Errorf("the supervisor ended without a word; its last log line: %q; see %s", lastLine(l.log("supervisor")), l.log("supervisor"))
	}
	var o outcome
	if err := json.Unmarshal([]byte(line), &o); err != nil {
		return fmt.Errorf("decoding the supervisor's report %q: %w", strings.TrimSpace(line), err)
	}
	if o.Error != "" {
		return errors.New(o.Error)
	}
	return nil
}
