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

package crdtest

import (
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestSpec has specs made of random bytes: most can be, and every field is in one of them, unless it is one of those that
// depend on another.
func TestSpec(t *testing.T) {
	for kind, least := range map[string]int{"libvirtmachines": 500, "libvirtclusters": 10, "libvirthosts": 500} {
		schema := Load(t, filepath.Join("..", "..", "config", "crd", "bases", "infrastructure.cluster.x-k8s.io_"+kind+".yaml"))
		random := rand.NewChaCha8([32]byte{1})
		seen, made := map[string]int{}, 0
		const tries = 1000
		for range tries {
			data := make([]byte, 400)
			_, _ = random.Read(data)
			spec, ok := schema.Spec(t, data)
			if !ok {
				continue
			}
			made++
			if err := schema.Admits(t, spec); err != nil {
				t.Fatalf("%s: %v\n%s", kind, err, String(spec))
			}
			for name := range spec {
				seen[name]++
			}
		}
		t.Logf("%s: %d of %d; %v", kind, made, tries, seen)
		if made < least {
			t.Errorf("%s: only %d of %d specs were made", kind, made, tries)
		}
		for _, name := range schema.Fields() {
			if seen[name] == 0 {
				t.Errorf("%s: no spec has %s", kind, name)
			}
		}
	}
}

func TestAdmitsRefuses(t *testing.T) {
	schema := Load(t, filepath.Join("..", "..", "config", "crd", "bases", "infrastructure.cluster.x-k8s.io_libvirtmachines.yaml"))
	good := map[string]any{"vcpus": int64(2), "memory": "1Gi", "rootDisk": map[string]any{"size": "2Gi"}, "image": map[string]any{"volume": "node"}}
	if err := schema.Admits(t, good); err != nil {
		t.Errorf("as documented: %v", err)
	}
	for want, image := range map[string]map[string]any{
		"should match":   {"volume": "../secret"},                           // by the schema
		"set either url": {"checksum": "sha256:" + strings.Repeat("0", 64)}, // by a rule
	} {
		good["image"] = image
		if err := schema.Admits(t, good); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v", image, err)
		}
	}
}

func TestHarmless(t *testing.T) {
	got := Harmless(map[string]any{"a": []any{"<b>", int64(1)}, "c": `"d"`}).(map[string]any)
	if list := got["a"].([]any); !slices.Equal(list, []any{"xbx", int64(1)}) || got["c"] != "xdx" {
		t.Errorf("got %v", got)
	}
}
