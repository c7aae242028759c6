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

package plane

import (
	"fmt"
	"net"
)

// loopback is the address of everything in a plane that only its own processes call.
const loopback = "127.0.0.1"

// freePorts asks the kernel for n TCP ports that nobody listens on. They are held together, so
// that no port is given twice, and released before the processes that will listen on them start.
func freePorts(n int) ([]int, error) {
	ports := make([]int, 0, n)
	for range n {
		listener, err := net.Listen("tcp", net.JoinHostPort(loopback, "0"))
		if err != nil {
			return nil, fmt.Errorf("looking for a free port on %s: %w", loopback, err)
		}
		defer func() { _ = listener.Close() }()
		ports = append(ports, listener.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}

// requireLoopback fails with the remedy where the loopback interface is down, as it is in a
// network namespace that was just created.
func requireLoopback(netns string) error {
	lo, err := net.InterfaceByName("lo")
	if err != nil {
		return fmt.Errorf("looking up the loopback interface: %w", err)
	}
	if lo.Flags&net.FlagUp == 0 {
		return fmt.Errorf("the loopback interface is down: run \"nsenter --net=%s ip link set lo up\"", netnsPath(netns))
	}
	return nil
}
