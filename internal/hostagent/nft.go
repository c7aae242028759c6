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

package hostagent

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// nftTimeout bounds one call of nft, on a host with many rules under load.
const nftTimeout = 20 * time.Second

// runScript has nft run a script as one transaction.
func runScript(ctx context.Context, script string) error {
	_, err := run(ctx, script, "nft", "-f", "-")
	return err
}

// listNames lists the tables of the family inet.
func listNames(ctx context.Context) ([]string, error) {
	out, err := run(ctx, "", "nft", "list", "tables", "inet")
	if err != nil {
		return nil, err
	}
	var names []string
	for line := range strings.Lines(string(out)) {
		if fields := strings.Fields(line); len(fields) >= 3 && fields[0] == "table" {
			names = append(names, fields[2])
		}
	}
	return names, nil
}

// listTable is a table of the family inet with its handles and without its counters, nothing when there is none.
func listTable(ctx context.Context, name string) (string, error) {
	for last := false; ; last = true {
		names, err := listNames(ctx)
		if err != nil || !slices.Contains(names, name) {
			return "", err
		}
		out, err := run(ctx, "", "nft", "-s", "-a", "list", "table", "inet", name)
		if err == nil || last { // the first time it may just have gone
			return string(out), err
		}
	}
}

// listRuleset is all there is, as JSON.
func listRuleset(ctx context.Context) ([]byte, error) {
	return run(ctx, "", "nft", "-j", "list", "ruleset")
}

// run runs a program of the host and returns what it prints. Its complaints are part of the error.
func run(ctx context.Context, input, name string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, nftTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(input), &stdout, &stderr
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("running %s: %w: %s", strings.Join(cmd.Args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return stdout.Bytes(), nil
}
