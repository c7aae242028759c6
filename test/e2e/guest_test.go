//go:build e2e

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

package e2e

import (
	"context"
	"encoding/json"
	"os/exec"
	"strconv"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
)

// inGuest has the agent in a machine's guest run a script of the shell, and returns what it prints. The script must
// succeed.
func inGuest(ctx context.Context, machine *infrav1.LibvirtMachine, script string) string {
	GinkgoHelper()
	output, status := tryInGuest(ctx, machine, script)
	Expect(status).To(BeZero(), "%s:\n%s", script, output)
	return output
}

// tryInGuest is inGuest for scripts that may fail, with their status.
func tryInGuest(ctx context.Context, machine *infrav1.LibvirtMachine, script string) (output string, status int) {
	GinkgoHelper()
	output, status = runInGuest(ctx, machine, script)
	GinkgoWriter.Printf("%s# %s\n%s\n", machine.Name, script, output)
	return output, status
}

// countInGuest reads the counters of a network namespace in a guest, by a command that prints them.
func countInGuest(ctx context.Context, machine *infrav1.LibvirtMachine, command string) counters {
	GinkgoHelper()
	output, status := runInGuest(ctx, machine, command)
	Expect(status).To(BeZero(), "%s:\n%s", command, output)
	return readCounters(output)
}

func runInGuest(ctx context.Context, machine *infrav1.LibvirtMachine, script string) (output string, status int) {
	GinkgoHelper()
	var started struct{ PID int }
	askGuest(ctx, machine, &started, "guest-exec", map[string]any{"path": "/bin/sh", "arg": []string{"-c", script}, "capture-output": true})
	var ended struct {
		Exited   bool
		ExitCode int
		Out      []byte `json:"out-data"`
		Err      []byte `json:"err-data"`
	}
	for !ended.Exited {
		Expect(ctx.Err()).NotTo(HaveOccurred(), "%s hasn't ended", script)
		time.Sleep(200 * time.Millisecond)
		askGuest(ctx, machine, &ended, "guest-exec-status", map[string]any{"pid": started.PID})
	}
	return string(ended.Out) + string(ended.Err), ended.ExitCode
}

// askGuest asks the agent in a guest, which may be busy starting.
func askGuest(ctx context.Context, machine *infrav1.LibvirtMachine, answer any, command string, arguments map[string]any) {
	GinkgoHelper()
	question, err := json.Marshal(map[string]any{"execute": command, "arguments": arguments})
	Expect(err).NotTo(HaveOccurred())
	uri := privateHost(machine.Spec.HostName).URI()
	var output []byte
	Eventually(func() error {
		ask := exec.CommandContext(ctx, "virsh", "-c", uri, "qemu-agent-command", "--timeout", "30", machine.Status.Domain.Name, string(question))
		var stderr strings.Builder
		ask.Stderr = &stderr
		output, err = ask.Output()
		if err != nil {
			GinkgoWriter.Printf("%s: %v: %s\n", command, err, stderr.String())
		}
		return err
	}).WithContext(ctx).WithTimeout(2 * time.Minute).WithPolling(time.Second).Should(Succeed())
	Expect(json.Unmarshal(output, &struct {
		Return any `json:"return"`
	}{answer})).To(Succeed(), "%s", output)
}

// counters are what the kernel counts in a network namespace: IpFragFails and so on.
type counters map[string]int64

// readCounters reads what /proc/net/snmp has: of each protocol a line of names and one of values.
func readCounters(text string) counters {
	GinkgoHelper()
	found := counters{}
	names := map[string][]string{}
	for line := range strings.Lines(text) {
		protocol, rest, _ := strings.Cut(line, ":")
		fields := strings.Fields(rest)
		if names[protocol] == nil {
			names[protocol] = fields
			continue
		}
		Expect(fields).To(HaveLen(len(names[protocol])))
		for i, name := range names[protocol] {
			value, err := strconv.ParseInt(fields[i], 10, 64)
			Expect(err).NotTo(HaveOccurred())
			found[protocol+name] = value
		}
	}
	Expect(found).To(HaveKey("IpFragFails"), "%s", text)
	return found
}

// interesting are the counters that tell of packets that didn't fit.
var interesting = []string{"IpFragFails", "IpFragCreates", "IpReasmFails", "IcmpInDestUnreachs", "IcmpOutDestUnreachs", "TcpRetransSegs"}

// since is by how much the interesting ones have grown.
func (c counters) since(before counters) counters {
	grown := counters{}
	for _, name := range interesting {
		grown[name] = c[name] - before[name]
	}
	return grown
}
