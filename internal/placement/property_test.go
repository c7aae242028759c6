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
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// FuzzPick checks what holds whatever the hosts are like.
func FuzzPick(f *testing.F) {
	for seed := range uint64(200) {
		f.Add(seed, uint8(seed%12))
	}
	f.Fuzz(func(t *testing.T, seed uint64, hosts uint8) {
		random := rand.New(rand.NewPCG(seed, 1))
		candidates, request := anyCandidates(random, int(hosts)), anyRequest(random)
		chosen, err := Pick(candidates, request)

		possible := slices.DeleteFunc(slices.Clone(candidates), func(c Candidate) bool { return len(refuse(&c, &request)) > 0 })
		if (err == nil) != (len(possible) > 0) {
			t.Fatalf("%d hosts can take it, and Pick says %v", len(possible), err)
		}
		if err == nil && !slices.ContainsFunc(possible, func(c Candidate) bool { return c.Name == chosen }) {
			t.Errorf("%s was chosen, which can't take it", chosen)
		}
		for range 5 {
			random.Shuffle(len(candidates), func(i, k int) { candidates[i], candidates[k] = candidates[k], candidates[i] })
			again, errAgain := Pick(candidates, request)
			if again != chosen || fmt.Sprint(errAgain) != fmt.Sprint(err) {
				t.Errorf("in another order %q, %v was chosen, and not %q, %v", again, errAgain, chosen, err)
			}
		}
		if err != nil {
			return
		}
		// No host that can take it is better by the rules, each of which is spelled out here once more.
		best := possible[slices.IndexFunc(possible, func(c Candidate) bool { return c.Name == chosen })]
		for _, other := range possible {
			if inDomain, there := together(candidates, other), together(candidates, best); request.ControlPlane && inDomain != there {
				if inDomain < there {
					t.Errorf("%s was chosen, though %s has fewer siblings in its failure domain", chosen, other.Name)
				}
				continue
			}
			if other.Siblings < best.Siblings {
				t.Errorf("%s was chosen, though %s has fewer siblings", chosen, other.Name)
			}
		}
	})
}

// together counts the siblings in the failure domain of a host.
func together(candidates []Candidate, host Candidate) int {
	sum := 0
	for _, c := range candidates {
		if c.FailureDomain == host.FailureDomain {
			sum += c.Siblings
		}
	}
	return sum
}

// anyCandidates are hosts with all that may be the matter with a host.
func anyCandidates(random *rand.Rand, count int) []Candidate {
	one := func(of ...string) string { return of[random.IntN(len(of))] }
	var candidates []Candidate
	for k := range count {
		c := Candidate{Name: fmt.Sprintf("kvm%d", k), FailureDomain: one("a", "b", "c"), Siblings: random.IntN(3)}
		for range random.IntN(6) / 4 {
			c.Unusable = append(c.Unusable, one("is being deleted", "spec.scheduling is Disabled"))
		}
		c.DomainTypes = [][]string{{"KVM", "QEMU"}, {"KVM", "QEMU"}, {"QEMU"}, nil}[random.IntN(4)]
		for _, resource := range []Resource{Memory, VCPUs, DiskPromise, DiskSpace} {
			if random.IntN(20) > 0 {
				c.Room = append(c.Room, Room{resource, random.Int64N(10), random.Int64N(6)})
			}
		}
		candidates = append(candidates, c)
	}
	return candidates
}

func anyRequest(random *rand.Rand) Request {
	r := Request{DomainType: "KVM", ControlPlane: random.IntN(2) == 0}
	if random.IntN(8) == 0 {
		r.HostName = fmt.Sprintf("kvm%d", random.IntN(8))
	}
	if random.IntN(3) == 0 {
		r.FailureDomain = "b"
	}
	for _, resource := range []Resource{Memory, VCPUs, DiskPromise, DiskSpace} {
		r.Needs = append(r.Needs, Need{resource, random.Int64N(4)})
	}
	return r
}

// BenchmarkPick chooses among 1,000 hosts, and tells how many times as long that takes as one look at each of their
// amounts, which nobody can do without.
func BenchmarkPick(b *testing.B) {
	random := rand.New(rand.NewPCG(1, 1))
	var candidates []Candidate
	for k := range 1000 {
		candidates = append(candidates, host(fmt.Sprintf("kvm%03d", k), memory(random.Int64N(12)*gib), siblings(random.IntN(3))))
	}
	asked := request()
	for b.Loop() {
		if _, err := Pick(candidates, asked); err != nil {
			b.Fatal(err)
		}
	}
	took := b.Elapsed() / time.Duration(b.N)

	const passes = 1000
	found := 0
	begun := time.Now()
	for range passes {
		found = cmp.Or(onePass(candidates, asked), found)
	}
	floor := time.Since(begun) / passes
	if found == 0 {
		b.Fatal("No host has room")
	}
	b.ReportMetric(float64(took)/float64(floor), "x-one-pass")
}

// onePass counts the hosts with room, and does nothing else.
func onePass(candidates []Candidate, request Request) int {
	count := 0
	for i := range candidates {
		fits := true
		for k, room := range candidates[i].Room {
			fits = fits && room.Capacity-room.Promised >= request.Needs[k].Amount
		}
		if fits {
			count++
		}
	}
	return count
}
