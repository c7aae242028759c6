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
	"net/netip"
	"slices"
	"testing"
)

func TestPickLink(t *testing.T) {
	free, err := pickLink("/a", nil)
	if err != nil {
		t.Fatal(err)
	}
	if free.Bits() != 30 || !linkSpace.Contains(free.Addr()) || free.Masked() != free {
		t.Errorf("picked %s", free)
	}
	// In use, in whatever size, is not picked again.
	for _, taken := range []string{free.String(), free.Addr().Next().String() + "/32", free.Addr().String() + "/24"} {
		other, err := pickLink("/a", []netip.Prefix{netip.MustParsePrefix(taken).Masked()})
		if err != nil {
			t.Fatal(err)
		}
		if other.Overlaps(netip.MustParsePrefix(taken).Masked()) {
			t.Errorf("picked %s although %s is taken", other, taken)
		}
	}
	if got, err := pickLink("/a", []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}); err != nil || got != free {
		t.Errorf("a default route changes the pick: %s, %v", got, err)
	}
	if got, err := pickLink("/a", []netip.Prefix{netip.MustParsePrefix("198.16.0.0/12")}); err == nil {
		t.Errorf("picked %s although everything is taken", got)
	}
}

func TestParseRoutes(t *testing.T) {
	got, err := parseRoutes([]byte(`[{"dst":"default","gateway":"192.0.2.1"},{"dst":"198.18.0.0/30"},{"type":"local","dst":"198.18.0.1"}]`))
	if err != nil {
		t.Fatal(err)
	}
	want := []netip.Prefix{netip.MustParsePrefix("198.18.0.0/30"), netip.MustParsePrefix("198.18.0.1/32")}
	if !slices.Equal(got, want) {
		t.Errorf("got %s", got)
	}
}
