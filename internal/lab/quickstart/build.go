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
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// programs are those of others that the management plane and its user need; the node image builds its own.
var programs = []string{
	"etcd", "kube-apiserver", "kube-controller-manager", "kubectl", "kustomize", "clusterctl",
	"capi-core-manager", "capi-kubeadm-bootstrap-manager", "capi-kubeadm-control-plane-manager",
}

func (q *Quickstart) buildPrograms(ctx context.Context) error {
	dir, err := q.script(ctx, "bin-dir", "hack/build/build.sh", "--bin-dir")
	if err != nil {
		return err
	}
	q.binDir = dir
	_, err = q.script(ctx, "build", "hack/build/build.sh", programs...)
	return err
}

func (q *Quickstart) buildNodeImage(ctx context.Context) error {
	path, err := q.script(ctx, "node-image", "hack/node-image/build.sh", "node")
	q.nodeImage = path
	return err
}

func (q *Quickstart) writeRelease(ctx context.Context) error {
	_, err := q.script(ctx, "release", "make", "--no-print-directory", "clusterctl-config")
	return err
}

// script runs a script of the repository, shows what it says on standard error as progress, keeps it in a log, and
// returns the last line of its standard output.
func (q *Quickstart) script(ctx context.Context, logName, name string, args ...string) (string, error) {
	if strings.Contains(name, "/") {
		name = filepath.Join(q.options.Repository, name)
	}
	path := q.path("logs", logName+".log")
	log, err := os.Create(path)
	if err != nil {
		return "", fmt.Errorf("making the log: %w", err)
	}
	defer log.Close()

	command := exec.CommandContext(ctx, name, args...)
	command.Dir = q.options.Repository
	stderr, err := command.StderrPipe()
	if err != nil {
		return "", fmt.Errorf("running %s: %w", name, err)
	}
	var stdout strings.Builder
	command.Stdout = io.MultiWriter(&stdout, log)
	if err := command.Start(); err != nil {
		return "", fmt.Errorf("running %s: %w", name, err)
	}
	lines := bufio.NewScanner(io.TeeReader(stderr, log))
	lines.Buffer(nil, 1<<20)
	last := ""
	for lines.Scan() {
		if text := strings.TrimSpace(lines.Text()); text != "" {
			last = text
			if strings.HasPrefix(text, "building ") || strings.HasPrefix(text, "making ") {
				q.out.say("%s", text)
			}
		}
	}
	if err := errors.Join(lines.Err(), command.Wait()); err != nil {
		return "", fmt.Errorf("running %s: %w: %s (all of it: %s)", filepath.Base(name), err, last, path)
	}
	output := strings.Split(strings.TrimSpace(stdout.String()), "\n")
	return output[len(output)-1], nil
}
