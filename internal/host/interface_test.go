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

package host

import (
	"errors"
	"testing"

	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/hosttest"
)

func TestLibvirtdKnowsWhatItHas(t *testing.T) {
	lab := hosttest.Libvirtd(t)
	_, h, _ := connect(t, socketURI(lab))
	ctx := testContext(t)
	must(t, h.EnsureNetwork(ctx, networkXML(networkUUID, "nodes", "10.7.0")))
	if found, err := h.NetworkNamed(ctx, "nodes"); err != nil || found.UUID != networkUUID || !found.Active {
		t.Errorf("got %+v, %v", found, err)
	}
	if found, err := h.NetworkNamed(ctx, networkUUID); !errors.Is(err, ErrNotFound) {
		t.Errorf("a network of no such name: %+v, %v", found, err)
	}

	has := func(name string, want bool) {
		t.Helper()
		if got, err := h.HasInterface(ctx, name); err != nil || got != want {
			t.Errorf("%s: got %t, %v", name, got, err)
		}
	}
	has("br9", false)
	if output, err := lab.Inside(ctx, "ip", "link", "add", "br9", "type", "bridge").CombinedOutput(); err != nil {
		t.Fatalf("Making a bridge: %v: %s", err, output)
	}
	has("br9", true)
	has("nodes", true) // the bridge of the network
}

func TestTestDriverKnowsItsBridges(t *testing.T) {
	_, h, _ := connect(t, hosttest.TestDriver(t, hosttest.Bridge("br0")))
	for name, want := range map[string]bool{"br0": true, "br1": false} {
		if got, err := h.HasInterface(testContext(t), name); err != nil || got != want {
			t.Errorf("%s: got %t, %v", name, got, err)
		}
	}
}
