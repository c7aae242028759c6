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
	"fmt"
	"slices"
	"strings"
	"testing"
)

const gib = int64(1) << 30

// host is a host with room for sixteen GiB of memory, eight vCPUs and a hundred GiB of disks, in a failure domain of its
// own.
func host(name string, changes ...func(*Candidate)) Candidate {
	c := Candidate{
		Name: name, FailureDomain: name, DomainTypes: []string{"KVM", "QEMU"},
		Room: []Room{
			{Resource: Memory, Capacity: 16 * gib},
			{Resource: VCPUs, Capacity: 8},
			{Resource: DiskPromise, Capacity: 100 * gib},
			{Resource: DiskSpace, Capacity: 50 * gib},
		},
	}
	for _, change := range changes {
		change(&c)
	}
	return c
}

func promised(resource Resource, amount int64) func(*Candidate) {
	return func(c *Candidate) {
		for i := range c.Room {
			if c.Room[i].Resource == resource {
				c.Room[i].Promised = amount
			}
		}
	}
}

func memory(amount int64) func(*Candidate)    { return promised(Memory, amount) }
func unusable(why ...string) func(*Candidate) { return func(c *Candidate) { c.Unusable = why } }
func unknown(c *Candidate)                    { c.Room = nil }
func emulates(c *Candidate)                   { c.DomainTypes = []string{"QEMU"} }
func in(domain string) func(*Candidate)       { return func(c *Candidate) { c.FailureDomain = domain } }
func siblings(count int) func(*Candidate)     { return func(c *Candidate) { c.Siblings = count } }

// request asks for four GiB of memory, two vCPUs and twenty GiB of disk.
func request(changes ...func(*Request)) Request {
	r := Request{DomainType: "KVM", Needs: []Need{{Memory, 4 * gib}, {VCPUs, 2}, {DiskPromise, 20 * gib}, {DiskSpace, 20 * gib}}}
	for _, change := range changes {
		change(&r)
	}
	return r
}

func pinned(name string) func(*Request)   { return func(r *Request) { r.HostName = name } }
func inDomain(name string) func(*Request) { return func(r *Request) { r.FailureDomain = name } }
func controlPlane(r *Request)             { r.ControlPlane = true }

func TestPickChooses(t *testing.T) {
	for _, tt := range []struct {
		name       string
		candidates []Candidate
		request    Request
		want       string
	}{
		{"the only host", []Candidate{host("a")}, request(), "a"},
		{"a host that is exactly full afterwards", []Candidate{
			host("a", memory(12*gib), promised(VCPUs, 6), promised(DiskPromise, 80*gib), promised(DiskSpace, 30*gib)),
		}, request(), "a"},
		{"the host it is pinned to, though another is freer", []Candidate{host("a"), host("b", memory(gib))}, request(pinned("b")), "b"},
		{"the host it is pinned to, though siblings are there", []Candidate{host("a"), host("b", siblings(3))}, request(pinned("b")), "b"},
		{"the failure domain, though another host is freer", []Candidate{host("a"), host("b", memory(gib))}, request(inDomain("b")), "b"},
		{"the freest host of the failure domain", []Candidate{host("a"), host("c", in("b")), host("b", memory(gib))}, request(inDomain("b")), "c"},
		{"not the unusable one", []Candidate{host("a", unusable("is away")), host("b", memory(gib))}, request(), "b"},
		{"not the one of which nothing is known", []Candidate{host("a", unknown), host("b", memory(gib))}, request(), "b"},
		{"not the one that can't run it", []Candidate{host("a", emulates), host("b", memory(gib))}, request(), "b"},
		{"not the one without vCPUs", []Candidate{host("a", promised(VCPUs, 7)), host("b", memory(gib))}, request(), "b"},

		{"the largest share of memory free", []Candidate{host("a", memory(4*gib)), host("b", memory(gib)), host("c", memory(2*gib))}, request(), "b"},
		{"the largest share and not the most", []Candidate{
			host("large", memory(8*gib)),
			host("small", func(c *Candidate) { c.Room[0].Capacity = 6 * gib }, memory(gib)),
		}, request(), "small"},
		{"fewest siblings before memory", []Candidate{host("a", siblings(1)), host("b", memory(12*gib))}, request(), "b"},
		{"memory among hosts with as many siblings", []Candidate{host("a", siblings(1), memory(gib)), host("b", siblings(1))}, request(), "b"},
		{"a host with siblings when no other has room", []Candidate{host("a", siblings(2)), host("b", memory(13*gib))}, request(), "a"},
		{"the first by name among equals", []Candidate{host("c"), host("b"), host("a", memory(gib))}, request(), "b"},

		{"a control plane: the failure domain with the fewest, before hosts", []Candidate{
			host("a1", in("a"), siblings(1)), host("a2", in("a"), siblings(0)), host("b1", in("b"), siblings(0), memory(12*gib)),
		}, request(controlPlane), "b1"},
		{"a control plane: siblings on a full host count for its failure domain", []Candidate{
			host("a1", in("a"), siblings(2), memory(16*gib)), host("a2", in("a")), host("b1", in("b"), siblings(1)),
		}, request(controlPlane), "b1"},
		{"a control plane: hosts within the failure domain", []Candidate{
			host("a1", in("a"), siblings(1)), host("a2", in("a"), memory(gib)), host("b1", in("b"), siblings(1)), host("b2", in("b"), siblings(1)),
		}, request(controlPlane), "a2"},
		{"others: hosts, whatever their failure domain", []Candidate{
			host("a1", in("a"), siblings(1)), host("a2", in("a")), host("b1", in("b"), memory(12*gib)),
		}, request(), "a2"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := slices.Clone(tt.candidates)
			got, err := Pick(tt.candidates, tt.request)
			if err != nil || got != tt.want {
				t.Errorf("got %q, %v, want %q", got, err, tt.want)
			}
			if !slices.EqualFunc(before, tt.candidates, func(a, b Candidate) bool { return a.Name == b.Name }) {
				t.Errorf("the candidates were reordered")
			}
		})
	}
}

func TestPickRefuses(t *testing.T) {
	const full = "has 0 MiB of memory free of 16384 MiB, needs 4096 MiB"
	for _, tt := range []struct {
		name       string
		candidates []Candidate
		request    Request
		want       string
	}{
		{"no host at all", nil, request(), "the cluster has no host yet"},
		{"pin", []Candidate{host("a")}, request(pinned("b")), "a: spec.hostName asks for b"},
		{"failure domain", []Candidate{host("c"), host("a")}, request(inDomain("b")), "a: is in failure domain a, not b; c: is in failure domain c, not b"},
		{"unusable for several reasons", []Candidate{host("a", unusable("is being deleted", "spec.scheduling is Disabled"))}, request(),
			"a: is being deleted, and spec.scheduling is Disabled"},
		{"unknown", []Candidate{host("a", unknown)}, request(), "a: hasn't reported what it has yet"},
		{"unknown because it is away", []Candidate{host("a", unknown, unusable("isn't ready: no route to host"))}, request(), "a: isn't ready: no route to host"},
		{"domain type", []Candidate{host("a", emulates)}, request(), "a: doesn't run domains of type KVM, only QEMU"},
		{"memory", []Candidate{host("a", memory(12*gib+1))}, request(), "a: has 4095 MiB of memory free of 16384 MiB, needs 4096 MiB"},
		{"more promised than there is", []Candidate{host("a", memory(20*gib))}, request(), "a: " + full},
		{"vCPUs", []Candidate{host("a", promised(VCPUs, 7))}, request(), "a: has 1 vCPUs free of 8, needs 2"},
		{"disks promised", []Candidate{host("a", promised(DiskPromise, 81*gib))}, request(),
			"a: has 19456 MiB of the disk pool left to promise of 102400 MiB, needs 20480 MiB"},
		{"disk pool full", []Candidate{host("a", promised(DiskSpace, 31*gib))}, request(), "a: has 19456 MiB available in the disk pool, needs 20480 MiB"},
		{"a resource that the host hasn't", []Candidate{host("a", func(c *Candidate) { c.Room = c.Room[:1] })},
			request(func(r *Request) { r.Needs = r.Needs[:2] }), "a: has 0 vCPUs free of 0, needs 2"},
		{"several at once", []Candidate{host("a", unusable("spec.scheduling is Disabled"), emulates, memory(16*gib), promised(VCPUs, 8))}, request(inDomain("b")),
			"a: is in failure domain a, not b, and spec.scheduling is Disabled, and doesn't run domains of type KVM, only QEMU, and " + full +
				", and has 0 vCPUs free of 8, needs 2"},
		{"the hosts it may be on first", []Candidate{host("a"), host("b", memory(16*gib)), host("c")}, request(pinned("b")),
			"b: " + full + "; a: spec.hostName asks for b; c: spec.hostName asks for b"},
		{"pinned outside of its failure domain", []Candidate{host("b", in("elsewhere"))}, request(pinned("b"), inDomain("b")),
			"b: is in failure domain elsewhere, not b"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Pick(tt.candidates, tt.request)
			var refused *NoHostFitsError
			if !errors.As(err, &refused) {
				t.Fatalf("got %q, %v, want a NoHostFitsError", got, err)
			}
			if len(refused.Refusals) != len(tt.candidates) {
				t.Errorf("%d hosts were refused, want each of %d", len(refused.Refusals), len(tt.candidates))
			}
			if err.Error() != tt.want {
				t.Errorf("got  %q\nwant %q", err, tt.want)
			}
		})
	}
}

// A message is read by people, and the API server refuses one that is too long.
func TestRefusalIsBounded(t *testing.T) {
	var candidates []Candidate
	for k := range 300 {
		candidates = append(candidates, host(fmt.Sprintf("kvm%03d", k), unusable(strings.Repeat("é", 1000)), unknown))
	}
	candidates[299] = host("kvm299", memory(16*gib))
	_, err := Pick(candidates, request(inDomain("kvm299")))
	message := err.Error()
	if characters := len([]rune(message)); characters > 32768/4 {
		t.Errorf("it has %d characters", characters)
	}
	if !strings.HasPrefix(message, "kvm299: has 0 MiB of memory free of 16384 MiB, needs 4096 MiB; kvm000: is in failure domain") {
		t.Errorf("it begins with %.200q", message)
	}
	if !strings.HasSuffix(message, "…; 285 more hosts can't take it either") {
		t.Errorf("it ends with %q", message[max(0, len(message)-100):])
	}
}
