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

package main

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/pflag"
	"k8s.io/component-base/logs"
)

// TestFlagsAreDocumented compares the reference with the flags that are our own.
func TestFlagsAreDocumented(t *testing.T) {
	page, err := os.ReadFile("docs/reference/flags.md")
	if err != nil {
		t.Fatal(err)
	}
	options := &options{logs: logs.NewOptions()}
	flags := pflag.NewFlagSet("manager", pflag.ContinueOnError)
	options.addFlags(flags)
	flags.VisitAll(func(flag *pflag.Flag) {
		for _, own := range []string{"image-", "libvirt", "orphan-"} {
			if strings.HasPrefix(flag.Name, own) && !strings.Contains(string(page), "| `--"+flag.Name+"` |") {
				t.Errorf("docs/reference/flags.md doesn't have --%s", flag.Name)
			}
		}
	})
	for _, row := range regexp.MustCompile("\\| `--([a-z-]+)` \\| `?([^`|]*?)`? \\|").FindAllStringSubmatch(string(page), -1) {
		flag := flags.Lookup(row[1])
		if flag == nil {
			t.Errorf("docs/reference/flags.md has --%s, which is none", row[1])
			continue
		}
		got := strings.TrimSuffix(flag.DefValue, "0s")
		if got == "[]" {
			got = "none"
		}
		if got != row[2] {
			t.Errorf("docs/reference/flags.md has the default %s of --%s, which is %s", row[2], row[1], flag.DefValue)
		}
	}
}
