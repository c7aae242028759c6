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

package plugin

import (
	"regexp"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/domain"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/hosttest"
)

// TestTree shows a cluster whose machines are each in another state.
func TestTree(t *testing.T) {
	s := newScene(t)
	lab := hosttest.Libvirtd(t)
	kvm := connect(t, lab.URI())
	must(t, kvm.CreateVolume(t.Context(), "default", "<volume><name>node-image</name><capacity unit='MiB'>64</capacity><target><format type='raw'/></target></volume>"))
	image, err := kvm.Volume(t.Context(), "default", "node-image")
	must(t, err)

	spec := func(number, hostName string) infrav1.LibvirtMachineSpec {
		spec := infrav1.LibvirtMachineSpec{
			HostName: hostName, VCPUs: 2, Memory: resource.MustParse("1536Mi"), DomainType: infrav1.DomainTypeQEMU,
			Image: infrav1.Image{Volume: "node-image"}, RootDisk: infrav1.RootDisk{Size: resource.MustParse("5Gi")},
		}
		if hostName != "" {
			spec.ProviderID = domain.ProviderID(strings.TrimSuffix(guestUUID, "1") + number)
			spec.Address = "10.100.0.1" + number
		}
		return spec
	}
	s.create(&infrav1.LibvirtHost{ObjectMeta: metav1.ObjectMeta{Name: "kvm1"}, Spec: infrav1.LibvirtHostSpec{URI: lab.URI()}}, nil)
	s.create(&infrav1.LibvirtHost{
		ObjectMeta: metav1.ObjectMeta{Name: "kvm2"}, Spec: infrav1.LibvirtHostSpec{URI: "qemu+unix:///system?socket=" + lab.Path("/nothing")},
	}, nil)
	cluster := &clusterv1.Cluster{ObjectMeta: metav1.ObjectMeta{Name: "demo"}, Spec: clusterv1.ClusterSpec{
		ControlPlaneEndpoint: clusterv1.APIEndpoint{Host: "10.100.0.2", Port: 6443},
		InfrastructureRef:    clusterv1.ContractVersionedObjectReference{APIGroup: infrav1.GroupVersion.Group, Kind: "LibvirtCluster", Name: "demo"},
	}}
	s.create(cluster, func() { cluster.Status.Phase = string(clusterv1.ClusterPhaseProvisioned) })
	libvirtCluster := &infrav1.LibvirtCluster{
		ObjectMeta: metav1.ObjectMeta{Name: "demo", Labels: map[string]string{clusterv1.ClusterNameLabel: "demo"}},
		Spec:       infrav1.LibvirtClusterSpec{Network: infrav1.ClusterNetwork{CIDR: "10.100.0.0/25"}},
	}
	s.create(libvirtCluster, func() { libvirtCluster.Status.Hosts = []string{"kvm1", "kvm2"} })
	workers := map[string]string{clusterv1.MachineDeploymentNameLabel: "demo-workers"}
	s.createMachine("demo", "cp-1", map[string]string{clusterv1.MachineControlPlaneLabel: ""}, spec("1", "kvm1"))
	s.createMachine("demo", "worker-2", workers, spec("2", "kvm1"))
	s.createMachine("demo", "worker-3", workers, spec("3", "kvm1"))
	s.createMachine("demo", "worker-4", workers, spec("4", "kvm2"))
	s.createMachine("demo", "worker-5", workers, spec("5", ""))
	s.createMachine("other", "elsewhere", nil, spec("6", "kvm1"))

	for number, name := range map[string]string{"1": "cp-1", "2": "worker-2"} {
		defineGuest(t, kvm, "home", strings.TrimSuffix(guestUUID, "1")+number, name, image.Path, "raw", spec(number, "kvm1"), "#cloud-config\n")
	}
	must(t, kvm.StartDomain(t.Context(), guestUUID)) // it has no system, which QEMU doesn't mind
	must(t, kvm.DeleteVolume(t.Context(), "default", domain.SeedVolumeName(strings.TrimSuffix(guestUUID, "1")+"2")))

	output, err := s.plugin("tree", "demo", "--host-timeout", "3s")
	must(t, err)
	t.Log("\n" + output)
	lines := []string{
		`NAME +STATE +SIZE +DETAILS`,
		`Cluster/demo +Provisioned +- +https://10\.100\.0\.2:6443`,
		`├─ LibvirtCluster/demo +Unknown +- +network 10\.100\.0\.0/25 on kvm1, kvm2`,
		`├─ ControlPlane +- +- +-`,
		`│  └─ Machine/cp-1 +Running +- +v1\.36\.3`,
		`│     └─ LibvirtHost/kvm1 +Connected +- +-`,
		`│        └─ Domain/home\.cp-1 +Running +2 vCPU, 1\.5Gi +10\.100\.0\.11`,
		`│           ├─ Volume/capl-[0-9a-f-]+1-root\.qcow2 +Present +[0-9.]+Ki of 5Gi +pool default, over node-image`,
		`│           └─ Volume/capl-[0-9a-f-]+1-seed\.iso +Present +[0-9.]+Ki of [0-9.]+Ki +pool default`,
		`└─ MachineDeployment/demo-workers +- +- +-`,
		`   ├─ Machine/worker-2 +Running +- +v1\.36\.3`,
		`   │  └─ LibvirtHost/kvm1 +Connected +- +-`,
		`   │     └─ Domain/home\.worker-2 +Shutoff.* +2 vCPU, 1\.5Gi +10\.100\.0\.12`,
		`   │        ├─ Volume/capl-[0-9a-f-]+2-root\.qcow2 +Present +[0-9.]+Ki of 5Gi +pool default, over node-image`,
		`   │        └─ Volume/capl-[0-9a-f-]+2-seed\.iso +Missing +- +/.*-seed\.iso is in no active storage pool`,
		`   ├─ Machine/worker-3 +Running +- +v1\.36\.3`,
		`   │  └─ LibvirtHost/kvm1 +Connected +- +-`,
		`   │     └─ Domain/[0-9a-f-]+3 +Missing +- +Unknown`,
		`   ├─ Machine/worker-4 +Running +- +v1\.36\.3`,
		`   │  └─ LibvirtHost/kvm2 +Unreachable +- +host kvm2: host unreachable: .*gave up after 3s.*`,
		`   └─ Machine/worker-5 +Running +- +v1\.36\.3`,
		`      └─ LibvirtMachine/infra-worker-5 +Unknown +- +-`,
	}
	got := strings.Split(strings.TrimSpace(output), "\n")
	for i, want := range lines {
		if i >= len(got) || !regexp.MustCompile("^"+want+"$").MatchString(strings.TrimRight(got[i], " ")) {
			t.Errorf("Line %d is %q, want %s", i, at(got, i), want)
		}
	}
	if len(got) != len(lines) {
		t.Errorf("There are %d lines, want %d", len(got), len(lines))
	}
}

func at(lines []string, i int) string {
	if i < len(lines) {
		return lines[i]
	}
	return ""
}

// TestNothingThere tells what to do about names that don't exist and machines that aren't anywhere yet.
func TestNothingThere(t *testing.T) {
	s := newScene(t)
	s.createMachine("demo", "unplaced", nil, infrav1.LibvirtMachineSpec{
		VCPUs: 1, Memory: resource.MustParse("1Gi"), Image: infrav1.Image{Volume: "node-image"}, RootDisk: infrav1.RootDisk{Size: resource.MustParse("2Gi")},
	})
	s.create(&infrav1.LibvirtHost{
		ObjectMeta: metav1.ObjectMeta{Name: "locked"},
		Spec:       infrav1.LibvirtHostSpec{URI: "qemu+tls://host.example.org/system", CredentialsRef: infrav1.CredentialsReference{Name: "gone"}},
	}, nil)
	s.createMachine("demo", "locked-in", nil, infrav1.LibvirtMachineSpec{
		ProviderID: domain.ProviderID(guestUUID), HostName: "locked",
		VCPUs: 1, Memory: resource.MustParse("1Gi"), Image: infrav1.Image{Volume: "node-image"}, RootDisk: infrav1.RootDisk{Size: resource.MustParse("2Gi")},
	})
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"tree", "nothing"}, "reading Cluster nothing in namespace " + s.namespace},
		{[]string{"console", "nothing"}, "there is no Machine or LibvirtMachine nothing in namespace " + s.namespace},
		{[]string{"screenshot", "unplaced"}, "LibvirtMachine infra-unplaced has no domain yet: kubectl describe libvirtmachine infra-unplaced tells"},
		{[]string{"screenshot", "locked-in"}, "reading Secret gone with the credentials of LibvirtHost locked"},
	} {
		if _, err := s.plugin(tt.args...); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v: got %v, want %s", tt.args, err, tt.want)
		}
	}
}
