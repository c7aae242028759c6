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
	"encoding/xml"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"libvirt.org/go/libvirtxml"

	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/hosttest"
)

// TestLibvirtdDefinesHardware has a real daemon define every domain that the tests of internal/domain compare with. It
// checks them against what QEMU can do, whether the hardware is there or not. Started they aren't: that would take devices
// away from this machine.
func TestLibvirtdDefinesHardware(t *testing.T) {
	_, h, _ := connect(t, socketURI(hosttest.Libvirtd(t)))
	ctx := testContext(t)
	files, err := filepath.Glob("../domain/testdata/*.xml")
	must(t, err)
	emulated := strings.NewReplacer(`type="kvm"`, `type="qemu"`, `mode="host-passthrough" migratable="on"`, `mode="maximum"`,
		`mode="host-passthrough" migratable="off"`, `mode="maximum"`)
	var domains int
	for _, file := range files {
		content, err := os.ReadFile(file)
		must(t, err)
		if !strings.HasPrefix(string(content), "<domain ") {
			continue
		}
		domains++
		document := emulated.Replace(string(content))
		var head domainHead
		must(t, xml.Unmarshal([]byte(document), &head))
		if err := h.DefineDomain(ctx, document); err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		must(t, h.UndefineDomain(ctx, head.UUID))
	}
	if domains < 8 {
		t.Errorf("There are %d domains in %v", domains, files)
	}
}

// TestLibvirtdDevices compares the devices of this machine with what its kernel says.
func TestLibvirtdDevices(t *testing.T) {
	_, h, _ := connect(t, socketURI(hosttest.Libvirtd(t)))
	devices, err := h.PCIDevices(testContext(t))
	must(t, err)
	paths, err := filepath.Glob("/sys/bus/pci/devices/*")
	must(t, err)
	var want []PCIDevice
	for _, path := range paths {
		want = append(want, PCIDevice{
			Address: filepath.Base(path), Vendor: kernelSays(t, path, "vendor"), Device: kernelSays(t, path, "device"),
		})
	}
	if !slices.Equal(devices, want) {
		t.Errorf("got %v, want %v", devices, want)
	}
}

func kernelSays(t *testing.T, path, name string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(path, name))
	must(t, err)
	return strings.TrimPrefix(strings.TrimSpace(string(content)), "0x")
}

func TestHugePagesOf(t *testing.T) {
	var caps libvirtxml.Caps
	must(t, caps.Unmarshal(`<capabilities><host><topology><cells num='2'>
		<cell id='0'><pages unit='KiB' size='4'>4971059</pages><pages unit='KiB' size='2048'>512</pages><pages unit='KiB' size='1048576'>0</pages></cell>
		<cell id='1'><pages unit='KiB' size='4'>4971059</pages><pages unit='KiB' size='2048'>256</pages><pages unit='KiB' size='1048576'>2</pages></cell>
		</cells></topology></host></capabilities>`))
	want := []HugePages{{PageBytes: 2 << 20, TotalBytes: 768 * 2 << 20}, {PageBytes: 1 << 30, TotalBytes: 2 << 30}}
	if got := hugePagesOf(caps.Host.NUMA); !slices.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got := hugePagesOf(nil); got != nil || numaNodes(nil) != 0 || numaNodes(caps.Host.NUMA) != 2 {
		t.Errorf("got %+v of a host that says nothing, and %d nodes", got, numaNodes(caps.Host.NUMA))
	}
}
