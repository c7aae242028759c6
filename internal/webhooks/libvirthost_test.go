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

package webhooks

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
)

func TestHostCreate(t *testing.T) {
	const ownPool = "must not be the imagePool or a pool for disks, because libvirt refreshes a whole pool after each upload into it: name a pool of its own, it is created when it doesn't exist"
	for _, tt := range []struct {
		name  string
		edits []edit
		want  []string
	}{
		{name: "as documented"},
		{name: "a local socket without credentials", edits: []edit{set("spec", "{uri: qemu:///system}")}},
		{name: "a local socket by name", edits: []edit{set("spec", "{uri: 'qemu+unix:///system?socket=/run/hosts/a/libvirt-sock'}")}},
		{name: "TLS", edits: []edit{set("spec.uri", "qemu+tls://kvm1.example.org/system")}},
		{name: "the test driver", edits: []edit{set("spec.uri", "test:///srv/host.xml")}},
		{name: "nothing kept free", edits: []edit{set("spec.reserved", "{memory: 0, cpus: 0, storage: 0}")}},
		{name: "a processor for each virtual one", edits: []edit{set("spec.cpuOvercommitPercent", "100")}},
		{name: "one pool for images and disks, another for seeds", edits: []edit{set("spec.storage", "{imagePool: a, diskPool: a, seedPool: default}")}},

		{name: "orphans are reported", edits: []edit{set("spec.orphanPolicy", "Report")}},
		{name: "orphans are removed", edits: []edit{set("spec.orphanPolicy", "Delete")}},

		{
			name: "another policy for orphans", edits: []edit{set("spec.orphanPolicy", "Adopt")},
			want: []string{`spec.orphanPolicy: Unsupported value: "Adopt": supported values: "Report", "Delete"`},
		},
		{
			name: "a Secret in another namespace", edits: []edit{set("spec.credentialsRef.name", "other/kvm1")},
			want: []string{`spec.credentialsRef.name: Invalid value: "other/kvm1": must be the name of a Secret in the namespace of the LibvirtHost: no other namespace can be named`},
		},
		{name: "no spec", edits: []edit{unset("spec")}, want: []string{"spec: Required value"}},
		{name: "no URI", edits: []edit{unset("spec.uri")}, want: []string{"spec.uri: Required value"}},
		{
			name: "an ssh program", edits: []edit{set("spec.uri", "qemu+ssh://root@kvm1/system")},
			want: []string{"spec.uri: Invalid value: qemu+ssh:// isn't supported, because it runs an ssh program, which the manager hasn't: use qemu+libssh2://"},
		},
		{
			name: "no verification", edits: []edit{set("spec.uri", "qemu+libssh2://root@kvm1/system?no_verify=1")},
			want: []string{"spec.uri: Invalid value: must not have the parameter no_verify, because it turns off the verification of the host: put known_hosts, or ca.crt for TLS, in the Secret of spec.credentialsRef"},
		},
		{
			name: "a file of the manager", edits: []edit{set("spec.uri", "qemu+libssh2://root@kvm1/system?keyfile=/etc/passwd")},
			want: []string{"spec.uri: Invalid value: must not have the parameter keyfile, because it names a file of the manager: put ssh-privatekey in the Secret of spec.credentialsRef"},
		},
		{
			name: "a password, which isn't repeated", edits: []edit{set("spec.uri", "qemu+libssh2://root:secret@kvm1/system")},
			want: []string{"spec.uri: Invalid value: must not contain a password: put it under password in the Secret of spec.credentialsRef"},
		},
		{
			name: "the shared test host", edits: []edit{set("spec.uri", "test:///default")},
			want: []string{"spec.uri: Invalid value: test:///default is shared by everything in the manager: use test:// and the path of a file that describes the host"},
		},
		{
			name: "SSH without credentials", edits: []edit{unset("spec.credentialsRef")},
			want: []string{"spec.credentialsRef: Required value: 203.0.113.11 is reached over the network: name a Secret with ssh-privatekey and known_hosts"},
		},
		{
			name:  "TLS without credentials",
			edits: []edit{set("spec.uri", "qemu+tls://kvm1.example.org/system"), unset("spec.credentialsRef")},
			want:  []string{"spec.credentialsRef: Required value: kvm1.example.org is reached over the network: name a Secret with tls.crt, tls.key and ca.crt"},
		},
		{
			name: "seeds among the images", edits: []edit{set("spec.storage", "{imagePool: a, seedPool: a}")},
			want: []string{`spec.storage.seedPool: Invalid value: "a": ` + ownPool},
		},
		{
			name: "seeds among the disks, by default", edits: []edit{set("spec.storage", "{seedPool: default}")},
			want: []string{`spec.storage.seedPool: Invalid value: "default": ` + ownPool},
		},
		{
			name: "disks among the seeds, by default", edits: []edit{set("spec.storage", "{diskPool: capi-seeds}")},
			want: []string{`spec.storage.seedPool: Invalid value: "capi-seeds": ` + ownPool},
		},
		{
			name: "seeds among the extra disks", edits: []edit{set("spec.storage", "{extraDiskPools: [ssd, capi-seeds]}")},
			want: []string{`spec.storage.seedPool: Invalid value: "capi-seeds": ` + ownPool},
		},
		{
			name: "a path for an extra pool", edits: []edit{set("spec.storage.extraDiskPools", "[../images]")},
			want: []string{`spec.storage.extraDiskPools[0]: Invalid value: "../images": spec.storage.extraDiskPools[0] in body should match '^[A-Za-z0-9][A-Za-z0-9_.-]*$'`},
		},
		{
			name: "a path for a pool", edits: []edit{set("spec.storage.diskPool", "../images")},
			want: []string{`spec.storage.diskPool: Invalid value: "../images": spec.storage.diskPool in body should match '^[A-Za-z0-9][A-Za-z0-9_.-]*$'`},
		},
		{
			name: "images that are deleted and kept", edits: []edit{set("spec.images", "{unusedPolicy: Keep, deleteAfterHours: 24}")},
			want: []string{"spec.images: Invalid value: deleteAfterHours means nothing while unusedPolicy is Keep: remove one of them"},
		},
		{
			name: "images that are deleted at once", edits: []edit{set("spec.images.deleteAfterHours", "-1")},
			want: []string{`spec.images.deleteAfterHours: Invalid value: -1: spec.images.deleteAfterHours in body should be greater than or equal to 1`},
		},
		{name: "images that are kept", edits: []edit{set("spec.images.unusedPolicy", "Keep")}},
		{name: "images that are deleted after a day", edits: []edit{set("spec.images", "{unusedPolicy: Delete, deleteAfterHours: 24}")}},
		{
			name: "less than nothing kept free", edits: []edit{set("spec.reserved.memory", "-1Gi")},
			want: []string{`spec.reserved.memory: Invalid value: "-1Gi": must not be negative: use 0 to keep nothing free`},
		},
		{
			name: "less than no processor kept free", edits: []edit{set("spec.reserved.cpus", "-1")},
			want: []string{`spec.reserved.cpus: Invalid value: -1: spec.reserved.cpus in body should be greater than or equal to 0`},
		},
		{
			name: "less than no storage kept free", edits: []edit{set("spec.reserved.storage", "-1Gi")},
			want: []string{`spec.reserved.storage: Invalid value: "-1Gi": must not be negative: use 0 to keep nothing free`},
		},
		{
			name: "less than a processor for each virtual one", edits: []edit{set("spec.cpuOvercommitPercent", "4")},
			want: []string{`spec.cpuOvercommitPercent: Invalid value: 4: spec.cpuOvercommitPercent in body should be greater than or equal to 100`},
		},
		{
			name: "a word that scheduling doesn't know", edits: []edit{set("spec.scheduling", "Cordoned")},
			want: []string{`spec.scheduling: Unsupported value: "Cordoned": supported values: "Enabled", "Disabled"`},
		},
		{
			name: "several mistakes at once",
			edits: []edit{
				set("spec.uri", "kvm1"), set("spec.storage", "{seedPool: default}"), set("spec.reserved.memory", "-1"),
			},
			want: []string{
				"spec.uri: Invalid value: must start with qemu+libssh2://, qemu+libssh://, qemu+tls://, qemu+unix://, qemu://, test://: use a form like qemu:///system, qemu+libssh2://user@host/system or qemu+tls://host/system",
				`spec.storage.seedPool: Invalid value: "default": ` + ownPool,
				`spec.reserved.memory: Invalid value: "-1": must not be negative: use 0 to keep nothing free`,
			},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			check(t, api.Create(t.Context(), host(t, tt.edits...)), tt.want...)
		})
	}
}

func TestHostUpdate(t *testing.T) {
	const inUse = "can't be changed while the disks of machines are in the pools it names: delete the 3 LibvirtMachines on the host first, or create another LibvirtHost"
	ssd := []edit{set("spec.storage.extraDiskPools", "[ssd]")}
	onSSD := []infrav1.RetainedDisk{{Pool: "ssd", Volume: "capl-slot-0f3a9c4e5b6d7081-0-brick_home.web.db.qcow2"}}
	for _, tt := range []struct {
		name     string
		machines int32
		before   []edit
		retained []infrav1.RetainedDisk
		edits    []edit
		want     []string
	}{
		{name: "one more pool of a host in use", machines: 3, before: ssd, edits: []edit{set("spec.storage.extraDiskPools", "[hdd, ssd]")}},
		{
			name: "a pool less of a host in use", machines: 3, before: ssd, edits: []edit{set("spec.storage.extraDiskPools", "[hdd]")},
			want: []string{"spec.storage: Forbidden: " + inUse},
		},
		{name: "a pool with retained disks that goes on as another", before: ssd, retained: onSSD, edits: []edit{set("spec.storage", "{diskPool: ssd}")}},
		{
			name: "a pool with retained disks less", before: ssd, retained: onSSD, edits: []edit{unset("spec.storage.extraDiskPools")},
			want: []string{"spec.storage.extraDiskPools: Forbidden: must have ssd as long as retained disks are there, which status.retainedDisks lists: delete them first, or add the pool"},
		},
		{name: "cordon a host in use", machines: 3, edits: []edit{set("spec.scheduling", "Disabled")}},
		{name: "another address of a host in use", machines: 3, edits: []edit{set("spec.uri", "qemu+libssh2://root@203.0.113.12/system")}},
		{name: "other pools of an empty host", edits: []edit{set("spec.storage.diskPool", "fast")}},
		{name: "what the pools are by default", machines: 3, edits: []edit{unset("spec.storage")}},
		{name: "metadata", machines: 3, edits: []edit{annotate("example.org/note")}},
		{
			name: "other pools of a host in use", machines: 3, edits: []edit{set("spec.storage.diskPool", "fast")},
			want: []string{"spec.storage: Forbidden: " + inUse},
		},
		{
			name: "no verification any more", edits: []edit{set("spec.uri", "qemu+tls://kvm1/system?no_verify=1")},
			want: []string{"spec.uri: Invalid value: must not have the parameter no_verify, because it turns off the verification of the host: put known_hosts, or ca.crt for TLS, in the Secret of spec.credentialsRef"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			created := host(t, tt.before...)
			check(t, api.Create(t.Context(), created))
			setUse(t, created, tt.machines, tt.retained)
			check(t, api.Update(t.Context(), change(created, tt.edits...)), tt.want...)
		})
	}
}

// setUse writes status.machines and status.retainedDisks as the controller does, and brings the object up to date.
func setUse(t *testing.T, u *unstructured.Unstructured, machines int32, retained []infrav1.RetainedDisk) {
	t.Helper()
	var typed infrav1.LibvirtHost
	if err := api.Get(t.Context(), client.ObjectKeyFromObject(u), &typed); err != nil {
		t.Fatal(err)
	}
	typed.Status.Machines, typed.Status.RetainedDisks = ptr.To(machines), retained
	if err := api.Status().Update(t.Context(), &typed); err != nil {
		t.Fatal(err)
	}
	if err := api.Get(t.Context(), client.ObjectKeyFromObject(u), u); err != nil {
		t.Fatal(err)
	}
}

// Whoever has orphans removed is told whose machines those may be.
func TestHostWarnsOfTheRemovalOfOrphans(t *testing.T) {
	for policy, warnings := range map[infrav1.OrphanPolicy]int{"": 0, infrav1.OrphanPolicyReport: 0, infrav1.OrphanPolicyDelete: 1} {
		found := warnHost(infrav1.LibvirtHostSpec{OrphanPolicy: policy})
		if len(found) != warnings {
			t.Errorf("%q: got %q", policy, found)
		}
		for _, warning := range found {
			if !strings.Contains(warning, "other management clusters") {
				t.Errorf("got %q", warning)
			}
		}
	}
}
