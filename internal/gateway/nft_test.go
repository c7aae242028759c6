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

package gateway

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files anew")

const webUUID = "0b5c7c8e-6f3b-4c1b-9b7e-2d1c7a4e9a10"

// web is a cluster's network with an ingress range.
func web() Network {
	return Network{
		UUID: webUUID, Name: "default.web", Bridge: "capl-0b5c7c8e6f",
		Ranges:   []netip.Prefix{netip.MustParsePrefix("10.100.0.0/25"), netip.MustParsePrefix("10.100.0.128/25")},
		Gateways: []netip.Addr{netip.MustParseAddr("10.100.0.1"), netip.MustParseAddr("10.100.0.129")},
	}
}

func TestRenderTable(t *testing.T) {
	plain := web()
	plain.Ranges, plain.Gateways = plain.Ranges[:1], plain.Gateways[:1]
	others := []netip.Prefix{netip.MustParsePrefix("10.101.0.0/24"), netip.MustParsePrefix("10.102.0.0/24")}
	for name, got := range map[string]string{
		"nothing-wanted": RenderTable(plain, nil, Wanted{}),
		"both-ways-in":   RenderTable(web(), others, both),
		// A set refuses ranges that contain one another; who lists everybody needs none.
		"overlapping-sources": RenderTable(web(), nil, Wanted{Forwards: []Forward{
			api("10.0.0.0/8", "10.1.0.0/16", "10.0.0.0/8", "192.0.2.7/32"), ingress(80), {
				Name: "dns", Protocol: UDP, External: netip.MustParseAddr("203.0.113.11"), Port: 53,
				Target: netip.MustParseAddr("10.100.0.131"), TargetPort: 5353,
				Sources: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("0.0.0.0/0")},
			},
		}}),
		"linked": RenderTable(web(), others, Wanted{Link: &twoPeers, Forwards: []Forward{ingress(80)}}),
		// As long as no peer's key is known the table is the one without a link.
		"nothing-wanted-yet": RenderTable(web(), nil, Wanted{Link: &Link{Port: 51820, MTU: 1420}}),
	} {
		file := filepath.Join("testdata", name+".nft")
		if *update {
			if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

// The same forwards in another order are the same table, so that nothing is written again.
func TestRenderTableKeepsAnOrder(t *testing.T) {
	turned := Wanted{Forwards: slices.Clone(both.Forwards)}
	slices.Reverse(turned.Forwards)
	if RenderTable(web(), nil, both) != RenderTable(web(), nil, turned) {
		t.Error("the order counts")
	}
}
