//go:build faults

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

package controllers

import (
	"fmt"
	"strings"
	"testing"
)

// TestDaemonDiesAtAnyWrite kills the daemon at each write of the making and of the removal of a machine.
func TestDaemonDiesAtAnyWrite(t *testing.T) {
	for mode, answerLost := range modes {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			d := newDying(t, answerLost)
			more := true
			for fatal := 1; more; fatal++ {
				more = d.lifeOf(fmt.Sprintf("green-%d", fatal), func(write int, _ string) bool { return write == fatal })
			}
			if len(d.points) < 10 {
				t.Errorf("There are few writes: %v", d.points)
			}
			t.Logf("The daemon was killed at %d writes: %s", len(d.points), strings.Join(d.points, ", "))
		})
	}
}
