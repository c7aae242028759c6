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
	"bytes"
	"fmt"
	"maps"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/hosttest"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/lab/privatehost"
)

// TestLibvirtdCalls holds the budget of calls: what a machine costs does not depend on how many there are. The daemon's
// own log is the witness.
func TestLibvirtdCalls(t *testing.T) {
	for _, others := range []int{0, 300} {
		t.Run(fmt.Sprintf("beside %d", others), func(t *testing.T) {
			lab := hosttest.Libvirtd(t, func(o *privatehost.Options) { o.Libvirtd = []string{privatehost.CallLog} })
			for n := range others {
				must(t, os.WriteFile(lab.Path(fmt.Sprintf("/var/lib/libvirt/images/other-%d", n)), []byte("x"), 0o600))
			}
			_, h, _ := connect(t, socketURI(lab), seldom)
			ctx, uuid, seed := testContext(t), domainUUID(1), []byte("seed")
			must(t, h.EnsureDirPool(ctx, "seeds", "/var/lib/libvirt/seeds"))
			must(t, h.EnsureNetwork(ctx, networkXML(networkUUID, "nodes", "10.7.0")))
			_, err := h.StoragePool(ctx, "default") // is looked up once per connection
			must(t, err)
			if others > 0 {
				s, err := h.current()
				must(t, err)
				must(t, s.refreshPool(ctx, "default"))
			}
			const mac = "52:54:00:00:00:01"

			count := func(want string, total uint64, sequence ...func() error) {
				t.Helper()
				logged, err := lab.Calls()
				must(t, err)
				before := h.Calls()
				for n, step := range sequence {
					if err := step(); err != nil {
						t.Fatalf("step %d: %v", n, err)
					}
				}
				if n, list := spent(before, h.Calls()); n != total || list != want {
					t.Errorf("%d calls: %s; want %d: %s", n, list, total, want)
				}
				now, err := lab.Calls()
				must(t, err)
				if seen := now[len(logged):]; uint64(len(seen)) != total {
					t.Errorf("the daemon saw %d calls: %v", len(seen), seen)
				}
			}
			// The first machine in a network reads its reservations, which are remembered from then on.
			_, err = h.Reserve(ctx, networkUUID, "52:00:00:00:00:99", "other", pickNext)
			must(t, err)
			create := func() error { return h.CreateVolume(ctx, "default", volumeXML("root", "qcow2", 1<<30)) }
			// connectSupportsFeature is libvirt's own doing, at each networkUpdate.
			count("1 connectSupportsFeature, 1 domainCreateWithFlags, 1 domainDefineXML, 1 domainSetAutostart, 1 networkUpdate, 1 storageVolUpload, 2 storageVolCreateXML", 8,
				func() error {
					_, err = h.Reserve(ctx, networkUUID, mac, "one", pickNext)
					return err
				},
				create,
				func() error { return h.CreateVolume(ctx, "seeds", volumeXML("seed", "raw", len(seed))) },
				func() error { return h.UploadVolume(ctx, "seeds", "seed", int64(len(seed)), bytes.NewReader(seed)) },
				func() error { return h.DefineDomain(ctx, domainXML("qemu", 1)) },
				func() error { return h.SetAutostart(ctx, uuid) },
				func() error { return h.StartDomain(ctx, uuid) },
			)
			count("", 0, func() error {
				_, err := h.Domain(uuid)
				time.Sleep(100 * time.Millisecond) // events cause no calls
				return err
			})
			count("1 connectSupportsFeature, 1 domainDestroy, 1 domainUndefineFlags, 1 networkUpdate, 2 storageVolDelete", 6,
				func() error { return h.DestroyDomain(ctx, uuid) },
				func() error { return h.UndefineDomain(ctx, uuid) },
				func() error { return h.DeleteVolume(ctx, "default", "root") },
				func() error { return h.DeleteVolume(ctx, "seeds", "seed") },
				func() error { return h.Release(ctx, networkUUID, mac) },
			)
			if others > 0 {
				count("1 storagePoolListAllVolumes, 2 storageVolDelete", 3,
					func() error { return h.DeleteVolume(ctx, "default", "other-0") },
					func() error { return h.DeleteVolume(ctx, "default", "other-1") },
				)
			}
			must(t, h.DeleteNetwork(ctx, networkUUID))
			t.Logf("All calls: %v", slices.Sorted(maps.Keys(h.Calls())))
		})
	}
}
