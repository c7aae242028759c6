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

// Command golangci-lint is golangci-lint with the linter of Kubernetes API types linked in. Upstream's way to add a
// linter clones golangci-lint's repository; requiring it as a module pins it like every other tool.
package main

import (
	"fmt"
	"os"
	"runtime/debug"
	"strings"

	"github.com/golangci/golangci-lint/v2/pkg/commands"
	"github.com/golangci/golangci-lint/v2/pkg/exitcodes"
	_ "sigs.k8s.io/kube-api-linter" // Registers itself as a module plugin.
)

func main() {
	if err := commands.Execute(buildInfo()); err != nil {
		fmt.Fprintf(os.Stderr, "golangci-lint: %v\n", err)
		os.Exit(exitcodes.Failure)
	}
}

// buildInfo says which golangci-lint this is, as the go.mod beside it has it.
func buildInfo() commands.BuildInfo {
	const module = "github.com/golangci/golangci-lint/v2"
	result := commands.BuildInfo{Version: "unknown", Commit: module, Date: "unknown"}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return result
	}
	result.GoVersion = info.GoVersion
	for _, dependency := range info.Deps {
		if dependency.Path == module {
			result.Version = strings.TrimPrefix(dependency.Version, "v")
		}
	}
	return result
}
