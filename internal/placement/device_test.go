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
	"slices"
	"strings"
	"testing"
)

func TestAssign(t *testing.T) {
	devices := []Device{
		{Address: "0000:03:00.0", Vendor: "10de", Device: "20b5"},
		{Address: "0000:01:00.0", Vendor: "10de", Device: "20b5"},
		{Address: "0000:02:00.0", Vendor: "10de", Device: "20b5", Holder: "LibvirtMachine web-1"},
		{Address: "0000:04:00.0", Vendor: "15b3", Device: "1017"},
	}
	gpus := func(count int) DeviceNeed { return DeviceNeed{Vendor: "10de", Device: "20b5", Count: count} }
	at := func(address string) DeviceNeed { return DeviceNeed{Address: address} }
	for _, tt := range []struct {
		name    string
		needs   []DeviceNeed
		want    []string
		lacking string
	}{
		{name: "none"},
		{name: "one of a kind", needs: []DeviceNeed{gpus(1)}, want: []string{"0000:01:00.0"}},
		{name: "all of a kind", needs: []DeviceNeed{gpus(2)}, want: []string{"0000:01:00.0", "0000:03:00.0"}},
		{name: "what is named, before the kind takes it", needs: []DeviceNeed{gpus(1), at("0000:01:00.0")}, want: []string{"0000:01:00.0", "0000:03:00.0"}},
		{name: "of two kinds", needs: []DeviceNeed{{Vendor: "15b3", Device: "1017", Count: 1}, gpus(1)}, want: []string{"0000:04:00.0", "0000:01:00.0"}},
		{name: "too many", needs: []DeviceNeed{gpus(3)}, lacking: "has 2 PCI devices 10de:20b5 free of 3, needs 3"},
		{name: "too many beside one that is named", needs: []DeviceNeed{at("0000:03:00.0"), gpus(2)}, lacking: "has 1 PCI devices 10de:20b5 free of 3, needs 2"},
		{name: "a kind that isn't there", needs: []DeviceNeed{{Vendor: "8086", Device: "1521", Count: 1}}, lacking: "has 0 PCI devices 8086:1521 free of 0, needs 1"},
		{name: "one that is taken", needs: []DeviceNeed{at("0000:02:00.0")}, lacking: "has given the PCI device 0000:02:00.0 to LibvirtMachine web-1"},
		{name: "one that isn't there", needs: []DeviceNeed{at("0000:09:00.0")}, lacking: "doesn't offer a PCI device 0000:09:00.0 (spec.pciDevices of the LibvirtHost)"},
		{name: "one that is named twice", needs: []DeviceNeed{at("0000:04:00.0"), at("0000:04:00.0")}, lacking: "spec.pciDevices names 0000:04:00.0 twice"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, lacking := Assign(devices, tt.needs)
			if strings.Join(lacking, "; ") != tt.lacking || (tt.lacking == "" && !slices.Equal(got, tt.want)) {
				t.Errorf("got %v, %q; want %v, %q", got, lacking, tt.want, tt.lacking)
			}
		})
	}
	if devices[0].Address != "0000:03:00.0" {
		t.Error("the devices were reordered")
	}
}

func TestPickByHardware(t *testing.T) {
	const size = 2 << 20
	pages := func(taken int64) func(*Candidate) {
		return func(c *Candidate) {
			c.Room = append(c.Room, Room{Resource: HugePages(size), Capacity: 8 * gib, Promised: taken})
		}
	}
	cpus := func(c *Candidate) {
		c.Room = append(c.Room, Room{Resource: HostCPUs, Capacity: 8}, Room{Resource: NUMANodes, Capacity: 1})
	}
	gpu := func(holder string) func(*Candidate) {
		return func(c *Candidate) {
			c.Devices = append(c.Devices, Device{Address: "0000:01:00.0", Vendor: "10de", Device: "20b5", Holder: holder})
		}
	}
	wants := func(needs ...Need) Request { return request(func(r *Request) { r.Needs = append(r.Needs, needs...) }) }
	oneGPU := request(func(r *Request) { r.Devices = []DeviceNeed{{Vendor: "10de", Device: "20b5", Count: 1}} })
	for _, tt := range []struct {
		name       string
		candidates []Candidate
		request    Request
		want, why  string
	}{
		{"huge pages", []Candidate{host("a"), host("b", pages(5*gib)), host("c", pages(4*gib))}, wants(Need{HugePages(size), 4 * gib}), "c", ""},
		{"too few huge pages", []Candidate{host("b", pages(5*gib))}, wants(Need{HugePages(size), 4 * gib}), "",
			"b: has 3072 MiB of huge pages of 2048 KiB free of 8192 MiB, needs 4096 MiB"},
		{"no huge pages of the size", []Candidate{host("a", pages(0))}, wants(Need{HugePages(gib), 4 * gib}), "",
			"a: has 0 MiB of huge pages of 1048576 KiB free of 0 MiB, needs 4096 MiB"},
		{"CPUs", []Candidate{host("a", cpus)}, wants(Need{HostCPUs, 8}, Need{NUMANodes, 1}), "a", ""},
		{"CPUs that aren't there", []Candidate{host("a", cpus)}, wants(Need{HostCPUs, 9}, Need{NUMANodes, 3}), "",
			"a: has no CPU 8, which spec.cpuPinning names: it has 0 to 7, and has no NUMA node 2, which spec.numa names: it has 0 to 0"},
		{"a device", []Candidate{host("a"), host("b", gpu("LibvirtMachine web-1")), host("c", gpu(""), memory(gib))}, oneGPU, "c", ""},
		{"no device", []Candidate{host("a"), host("b", gpu("domain win11"))}, oneGPU, "",
			"a: has 0 PCI devices 10de:20b5 free of 0, needs 1; b: has 0 PCI devices 10de:20b5 free of 1, needs 1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Pick(tt.candidates, tt.request)
			if err != nil && !errors.As(err, new(*NoHostFitsError)) {
				t.Fatal(err)
			}
			if got != tt.want || (err == nil) != (tt.why == "") || (err != nil && err.Error() != tt.why) {
				t.Errorf("got %q, %v; want %q, %q", got, err, tt.want, tt.why)
			}
		})
	}
}
