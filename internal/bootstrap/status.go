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

package bootstrap

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// Files in a guest that tell how its bootstrap goes.
const (
	// Sentinel is there once the bootstrap has succeeded. It is part of the Cluster API contract.
	Sentinel = "/run/cluster-api/bootstrap-success.complete"
	// Begun is there from when a guest takes its bootstrap data until it is started anew. Without it the absence of the
	// sentinel says nothing.
	Begun = "/run/cluster-api/bootstrap-begun"
	// CloudInitResult is there once cloud-init has ended.
	CloudInitResult = "/run/cloud-init/result.json"
	// CloudInitOutput is what the commands of the bootstrap data wrote.
	CloudInitOutput = "/var/log/cloud-init-output.log"
	// FailureLog is there once kubeadm has failed in a guest with Ignition, and has its last lines.
	FailureLog = "/run/cluster-api/bootstrap-failed.log"
)

// MaxOutputBytes is how much of the end of an output is worth reading.
const MaxOutputBytes = 4 << 10

// maxExcerptBytes and maxExcerptLines bound what is told of an output.
const (
	maxExcerptBytes = 1 << 10
	maxExcerptLines = 12
)

// CloudInitErrors are the errors in the content of CloudInitResult. None doesn't mean that the bootstrap succeeded:
// cloud-init knows the outcome of the last command only.
func CloudInitErrors(result []byte) ([]string, error) {
	var parsed struct {
		V1 struct {
			Errors []string `json:"errors"`
		} `json:"v1"`
	}
	if err := json.Unmarshal(result, &parsed); err != nil {
		return nil, fmt.Errorf("reading %s: %w", CloudInitResult, err)
	}
	return parsed.V1.Errors, nil
}

// Excerpt is the last lines of an output, at most 1 KiB of them, without what is secret in them.
func Excerpt(output []byte) string {
	lines := strings.Split(strings.TrimRight(scrub(string(output)), "\n"), "\n")
	var kept []string
	size := 0
	for _, line := range slices.Backward(lines) {
		line = strings.TrimRight(line, " \t\r")
		if line == "" {
			continue
		}
		if len(kept) > 0 && (len(kept) == maxExcerptLines || size+len(line) >= maxExcerptBytes) {
			break
		}
		if len(line) > maxExcerptBytes {
			line = strings.ToValidUTF8(line[:maxExcerptBytes], "")
		}
		kept = append(kept, line)
		size += len(line) + 1
	}
	slices.Reverse(kept)
	return strings.Join(kept, "\n")
}
