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
	"bufio"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
)

// CallLog is the line for Options.Libvirtd that makes libvirtd log what Calls
// reads.
const CallLog = `log_filters="1:rpc.netserverprogram 1:libvirt"`

// Calls lists what clients have called so far, in order, by the names of
// libvirt's API such as virDomainCreate. What a client library says on its own
// to negotiate a connection isn't among it. The host must have been started
// with CallLog.
func (h *Host) Calls() ([]string, error) {
	log, err := os.Open(h.Log())
	if err != nil {
		return nil, fmt.Errorf("reading the calls to host %s: %w", h.state.Name, err)
	}
	defer log.Close()
	calls, err := parseCalls(log)
	if err != nil {
		return nil, fmt.Errorf("reading the calls to host %s: %w", h.state.Name, err)
	}
	return calls, nil
}

var (
	// The time, the thread, and what a function logged of itself.
	logLine = regexp.MustCompile(`^\S+ \S+ (\d+): debug : (vir\w+):\d+ : (.*)$`)
	// A request (not a reply or a stream's data) of the main protocol or of
	// QEMU's additions to it.
	request = regexp.MustCompile(`^prog=(536903814|536903815) ver=1 type=0 `)
)

// parseCalls finds requests in libvirtd's log, which gives only their number;
// the API function that the same thread enters next has the name.
func parseCalls(log io.Reader) ([]string, error) {
	var calls []string
	asked := map[string]bool{}
	lines := bufio.NewScanner(log)
	lines.Buffer(nil, 1<<20) // an XML document may be on one line
	for lines.Scan() {
		line := logLine.FindStringSubmatch(lines.Text())
		if line == nil {
			continue
		}
		thread, function, text := line[1], line[2], line[3]
		switch {
		case function == "virNetServerProgramDispatch":
			asked[thread] = request.MatchString(text)
		case asked[thread] && !strings.HasPrefix(function, "virNetServer"):
			asked[thread] = false
			calls = append(calls, function)
		}
	}
	return calls, lines.Err()
}
