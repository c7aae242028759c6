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
	"errors"
	"net"
	"strings"
	"syscall"
	"testing"

	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/lab/privatehost"
)

func stopDaemon(t *testing.T, lab *privatehost.Host) {
	t.Helper()
	must(t, lab.StopDaemon(testContext(t), syscall.SIGKILL))
}

func startDaemon(t *testing.T, lab *privatehost.Host) {
	t.Helper()
	must(t, lab.StartDaemon(testContext(t)))
}

// TestKnock has nobody listen at an address, and then somebody.
func TestKnock(t *testing.T) {
	// Not 127.0.0.1, whose ports may connect to themselves.
	listener, err := net.Listen("tcp", "127.0.0.2:0")
	must(t, err)
	address := listener.Addr().String()
	must(t, listener.Close())
	if err := knock(t.Context(), address); !errors.Is(err, errNoAnswer) || !strings.Contains(err.Error(), "refuses connections") {
		t.Errorf("got %v", err)
	}
	answered := make(chan error, 1)
	go func() { answered <- knock(t.Context(), address) }()
	listener, err = net.Listen("tcp", address)
	must(t, err)
	defer listener.Close()
	must(t, <-answered)
}
