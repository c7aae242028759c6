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

package network

import (
	"fmt"
	"net"
	"testing"
)

func TestMAC(t *testing.T) {
	const uuid = "7d3f0a52-62a5-4b3b-9d1f-0c1f5a3c9f10"
	// The address must never change with a new version: guests and reservations know it.
	const want = "52:6e:64:3c:53:fc"
	if got := MAC(uuid); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	parsed, err := net.ParseMAC(want)
	if err != nil {
		t.Fatal(err)
	}
	// String is in lower case, which cloud-init matches on.
	if got := MAC(uuid); got != parsed.String() {
		t.Errorf("%s isn't in lower case", got)
	}
	if parsed[0]&1 != 0 || parsed[0]&2 == 0 {
		t.Errorf("%s isn't a locally administered unicast address", want)
	}
}

func TestMACsDiffer(t *testing.T) {
	const machines = 100_000
	seen := make(map[string]int, machines)
	for i := range machines {
		mac := MAC(fmt.Sprintf("%08x-0000-4000-8000-%012x", i, i*7919))
		if before, ok := seen[mac]; ok {
			t.Fatalf("machines %d and %d share %s", before, i, mac)
		}
		seen[mac] = i
	}
}
