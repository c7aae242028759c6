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

package domain

import (
	"slices"
	"testing"

	"k8s.io/apimachinery/pkg/api/resource"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/owner"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/xmltest"
)

func definition(change ...func(*Definition)) Definition {
	d := Definition{
		UUID:  testUUID,
		Name:  Name("home", "web-1"),
		Owner: owner.Owner{Kind: "LibvirtMachine", Namespace: "home", Name: "web-1", Cluster: "web"},
		Spec: infrav1.LibvirtMachineSpec{
			VCPUs:    1,
			Memory:   resource.MustParse("512Mi"),
			RootDisk: infrav1.RootDisk{Size: resource.MustParse("20Gi")},
		},
		RootPath:      "/var/lib/libvirt/images/" + RootVolumeName(testUUID),
		SeedPath:      "/var/lib/libvirt/capi-seeds/" + SeedVolumeName(testUUID),
		BackingPath:   "/var/lib/libvirt/images/node.qcow2",
		BackingFormat: "qcow2",
		NetworkName:   "home.web",
		MAC:           "52:6e:64:3c:53:fc",
	}
	for _, f := range change {
		f(&d)
	}
	return d
}

func TestRender(t *testing.T) {
	for name, d := range map[string]Definition{
		"kvm-1vcpu.xml": definition(),
		"kvm-8vcpus.xml": definition(func(d *Definition) {
			d.Spec.DomainType = infrav1.DomainTypeKVM
			d.Spec.VCPUs = 8
			d.Spec.Memory = resource.MustParse("32Gi")
			d.Spec.RootDisk.Cache = infrav1.DiskCacheNone
			d.MTU = 1420
		}),
		"qemu-1vcpu-unsafe.xml": definition(func(d *Definition) {
			d.Spec.DomainType = infrav1.DomainTypeQEMU
			d.Spec.RootDisk.Cache = infrav1.DiskCacheUnsafe
			d.BackingFormat = "raw"
		}),
		"bridge.xml": definition(func(d *Definition) {
			d.NetworkName, d.Bridge = "", "br0"
		}),
		"ignition.xml": definition(func(d *Definition) { d.Ignition = true }),
		"qemu-8vcpus.xml": definition(func(d *Definition) {
			d.Spec.DomainType = infrav1.DomainTypeQEMU
			d.Spec.VCPUs = 8
			// An amount that is no whole number of KiB is rounded down.
			d.Spec.Memory = resource.MustParse("5G")
		}),
	} {
		t.Run(name, func(t *testing.T) {
			document, err := Render(d)
			if err != nil {
				t.Fatal(err)
			}
			xmltest.Golden(t, name, document)
			xmltest.Accepts(t, document, "define", "--validate")
			if got, ok := owner.Of(document); !ok || got != d.Owner {
				t.Errorf("the document's owner is %v, %t", got, ok)
			}
		})
	}
}

func TestTypes(t *testing.T) {
	kvm, qemu := infrav1.DomainTypeKVM, infrav1.DomainTypeQEMU
	for _, tt := range []struct {
		named []string
		want  []infrav1.DomainType
	}{
		{[]string{"qemu", "kvm"}, []infrav1.DomainType{kvm, qemu}},
		{[]string{"qemu"}, []infrav1.DomainType{qemu}},
		{[]string{"kvm"}, []infrav1.DomainType{kvm}},
		{[]string{"test"}, []infrav1.DomainType{kvm, qemu}},
		{[]string{"xen"}, nil},
		{nil, nil},
	} {
		if got := Types(tt.named); !slices.Equal(got, tt.want) {
			t.Errorf("%v: got %v, want %v", tt.named, got, tt.want)
		}
	}
}
