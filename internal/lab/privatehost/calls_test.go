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

package privatehost

import (
	"slices"
	"strings"
	"testing"
)

func TestCalls(t *testing.T) {
	ctx := deadline(t)
	h := start(ctx, t, "calls", func(o *Options) { o.Libvirtd = []string{CallLog} })
	virsh(ctx, t, h, "vol-create-as", "default", "disk", "1M")
	defineNetwork(ctx, t, h)
	got, err := h.Calls()
	if err != nil {
		t.Fatal(err)
	}
	for call, want := range map[string]int{
		"virStorageVolCreateXML": 1, "virNetworkDefineXML": 1, "virNetworkCreate": 1, "virDomainDefineXML": 0,
	} {
		count := 0
		for _, name := range got {
			if name == call {
				count++
			}
		}
		if count != want {
			t.Errorf("%s was called %d times instead of %d; all calls: %s", call, count, want, got)
		}
	}
}

func TestParseCalls(t *testing.T) {
	// What libvirtd calls on its own has no request before it.
	got, err := parseCalls(strings.NewReader(`2026-11-23 04:15:19.066+0000: 23: debug : virNetServerProgramDispatch:280 : prog=536903814 ver=1 type=0 status=0 serial=7 proc=9
2026-11-23 04:15:19.066+0000: 22: debug : virNetworkLookupByName:449 : conn=0x56369d88c690, name=d
2026-11-23 04:15:19.066+0000: 23: debug : virDomainCreate:7004 : dom=0x7f9554004150, (VM: name=d, uuid=0e020c72)
2026-11-23 04:15:19.066+0000: 23: debug : virNetworkLookupByName:449 : conn=0x56369d88c690, name=d
2026-11-23 04:15:19.073+0000: 23: error : virNetClientProgramDispatchError:172 : Unable to open file
2026-11-23 04:15:19.085+0000: 24: debug : virNetServerProgramDispatch:280 : prog=536903814 ver=1 type=0 status=0 serial=8 proc=361
`))
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"virDomainCreate"}; !slices.Equal(got, want) {
		t.Errorf("got %s, want %s", got, want)
	}
}
