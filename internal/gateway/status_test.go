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
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestStatusRoundTrip(t *testing.T) {
	for _, want := range []Status{
		{Agent: "v0.1.0", Reads: Version, Renewed: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)},
		{
			Agent: `v"<&>`, Reads: Version, Renewed: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
			Networks: []NetworkStatus{
				{UUID: "a", Generation: both.Generation(), Applied: &both},
				{UUID: "b", Problems: []Problem{
					{Kind: ProblemClash, Message: "taken by network x"},
					{Kind: ProblemAddress, External: "203.0.113.10", Message: "the host doesn't have it"},
				}},
			},
			Blocking: []string{"table ip filter, chain FORWARD: stops everything"},
		},
	} {
		text, err := RenderStatusNetwork(want)
		if err != nil {
			t.Fatal(err)
		}
		got, err := ReadStatus(text)
		if err != nil {
			t.Fatalf("%v in %s", err, text)
		}
		if diff := cmp.Diff(want, got, compareAddresses); diff != "" {
			t.Error(diff)
		}
	}
}

// What a later agent writes beside that is skipped, and so is what it applied if that is unreadable.
func TestReadStatusIsPatient(t *testing.T) {
	text, err := RenderStatusNetwork(Status{Agent: "v9", Reads: "v2", Networks: []NetworkStatus{{UUID: "a", Generation: "x", Applied: &both}}})
	if err != nil {
		t.Fatal(err)
	}
	text = strings.Replace(text, `name="ingress"`, `name="ingress" weight="3"`, 1)
	text = strings.Replace(text, `reads="v2"`, `reads="v2" peers="2"`, 1)
	got, err := ReadStatus(text)
	if err != nil || got.Reads != "v2" || got.Networks[0].Generation != "x" || got.Networks[0].Applied != nil {
		t.Errorf("got %+v, %v", got, err)
	}
	if _, err := ReadStatus("<network/>"); !errors.Is(err, ErrNone) {
		t.Errorf("got %v", err)
	}
	if _, err := ReadStatus(strings.Replace(text, `renewed="`, `renewed="soon`, 1)); err == nil {
		t.Error("a time that is none was read")
	}
}
