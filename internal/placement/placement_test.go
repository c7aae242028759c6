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

package placement

import (
	"errors"
	"slices"
	"testing"
)

const gib = int64(1) << 30

func TestPick(t *testing.T) {
	host := func(name string, change ...func(*Candidate)) Candidate {
		c := Candidate{Name: name, FailureDomain: name, Capacity: 16 * gib, DomainTypes: []string{"KVM", "QEMU"}}
		for _, f := range change {
			f(&c)
		}
		return c
	}
	promised := func(n int64) func(*Candidate) { return func(c *Candidate) { c.Promised = n } }
	unusable := func(c *Candidate) { c.Unusable = "isn't ready: HostUnreachable" }
	emulates := func(c *Candidate) { c.DomainTypes = []string{"QEMU"} }
	in := func(domain string) func(*Candidate) { return func(c *Candidate) { c.FailureDomain = domain } }
	request := Request{Memory: 4 * gib, DomainType: "KVM"}
	pinned := Request{Memory: 4 * gib, DomainType: "KVM", HostName: "b"}
	inB := Request{Memory: 4 * gib, DomainType: "KVM", FailureDomain: "b"}

	for _, tt := range []struct {
		name       string
		candidates []Candidate
		request    Request
		want       string
		refusal    string
	}{
		{"the only host", []Candidate{host("a")}, request, "a", ""},
		{"the one with the most memory free", []Candidate{host("a", promised(4*gib)), host("b", promised(gib)), host("c", promised(2*gib))}, request, "b", ""},
		{"the first by name among equals", []Candidate{host("c"), host("b"), host("a", promised(gib))}, request, "b", ""},
		{"a host that is exactly full afterwards", []Candidate{host("a", promised(12*gib))}, request, "a", ""},
		{"the host it is pinned to, though another is freer", []Candidate{host("a"), host("b", promised(gib))}, pinned, "b", ""},
		{"the failure domain, though another host is freer", []Candidate{host("a"), host("b", promised(gib))}, inB, "b", ""},
		{"the freest host of the failure domain", []Candidate{host("a"), host("c", in("b")), host("b", promised(gib))}, inB, "c", ""},
		{"not the unusable one", []Candidate{host("a", unusable), host("b", promised(gib))}, request, "b", ""},
		{"not the one that can't run it", []Candidate{host("a", emulates), host("b", promised(gib))}, request, "b", ""},

		{"no host at all", nil, request, "", "the cluster has no host yet"},
		{"an unusable host", []Candidate{host("a", unusable)}, request, "", "a: isn't ready: HostUnreachable"},
		{"another domain type", []Candidate{host("a", emulates)}, request, "", "a: doesn't run domains of type KVM, only QEMU"},
		{"too little memory", []Candidate{host("a", promised(12*gib+1))}, request, "", "a: has 4095 MiB of memory free of 16384 MiB, needs 4096 MiB"},
		{"more promised than there is", []Candidate{host("a", promised(20*gib))}, request, "", "a: has 0 MiB of memory free of 16384 MiB, needs 4096 MiB"},
		{"pinned to a host that isn't there", []Candidate{host("a")}, pinned, "", "a: spec.hostName asks for b"},
		{"pinned to a full host", []Candidate{host("a"), host("b", promised(16*gib))}, pinned, "", "a: spec.hostName asks for b; b: has 0 MiB of memory free of 16384 MiB, needs 4096 MiB"},
		{"pinned outside of its failure domain", []Candidate{host("b", in("elsewhere"))}, Request{Memory: gib, DomainType: "KVM", HostName: "b", FailureDomain: "b"}, "", "b: is in failure domain elsewhere, not b"},
		{"a failure domain without a host", []Candidate{host("c"), host("a")}, inB, "", "a: is in failure domain a, not b; c: is in failure domain c, not b"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := slices.Clone(tt.candidates)
			got, err := Pick(tt.candidates, tt.request)
			if !slices.EqualFunc(before, tt.candidates, func(a, b Candidate) bool { return a.Name == b.Name }) {
				t.Errorf("the candidates were reordered")
			}
			if tt.refusal == "" {
				if err != nil || got != tt.want {
					t.Errorf("got %q, %v, want %q", got, err, tt.want)
				}
				return
			}
			var refused *NoHostFitsError
			if !errors.As(err, &refused) {
				t.Fatalf("got %q, %v, want a NoHostFitsError", got, err)
			}
			if len(refused.Refusals) != len(tt.candidates) {
				t.Errorf("%d hosts were refused, want each of %d", len(refused.Refusals), len(tt.candidates))
			}
			if err.Error() != tt.refusal {
				t.Errorf("got %q, want %q", err, tt.refusal)
			}
		})
	}
}
