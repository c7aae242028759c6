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
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/host"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/hosttest"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/lab/privatehost"
)

// bootPatience is how long an emulated guest may take to boot beside the other tests.
const bootPatience = 8 * time.Minute

// guestImage is the small Debian image, which `make test` has built.
func guestImage(t *testing.T) string {
	t.Helper()
	build := exec.CommandContext(t.Context(), filepath.Join("..", "..", "hack", "node-image", "build.sh"), "base")
	build.Stderr = os.Stderr
	output, err := build.Output()
	if err != nil {
		t.Fatalf("Building the image of the guest: %v", err)
	}
	lines := strings.Split(strings.TrimSpace(string(output)), "\n")
	return lines[len(lines)-1]
}

// serve serves a file by HTTP, and returns it as an image.
func serve(t *testing.T, path string) infrav1.Image {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, file); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, path) }))
	t.Cleanup(server.Close)
	return infrav1.Image{URL: server.URL + "/image.qcow2", Checksum: fmt.Sprintf("sha256:%x", hash.Sum(nil))}
}

// guestOf makes a machine of the small Debian image.
func guestOf(image infrav1.Image) func(*machineParts) {
	return func(parts *machineParts) {
		spec := &parts.libvirtMachine.Spec
		spec.Image, spec.DomainType, spec.Memory = image, infrav1.DomainTypeQEMU, resource.MustParse("768Mi")
		spec.RootDisk = infrav1.RootDisk{Size: resource.MustParse("3Gi"), Cache: infrav1.DiskCacheUnsafe}
	}
}

// TestGuestBoots follows a machine to where it answers: its image comes by HTTP, it boots from its own disk, takes the
// address that was reserved for it, and runs its bootstrap data.
func TestGuestBoots(t *testing.T) {
	t.Parallel()
	image := serve(t, guestImage(t))
	lab := hosttest.Libvirtd(t)
	s := newScene(t)
	s.readyHost("kvm1", lab.URI())
	s.readyCluster("guest", "10.99.0.0/25")
	libvirtMachine := s.createMachine("guest", "guest-1", guestOf(image), func(parts *machineParts) {
		parts.secret.Data["value"] = []byte("## template: jinja\n#cloud-config\nruncmd:\n" +
			"- echo bootstrapped $(hostname) as {{ ds.meta_data.instance_id }} at {{ ds.meta_data.local_ipv4 }} >/dev/console\n")
	})
	s.expectReady(libvirtMachine)
	uuid, kvm := uuidOf(libvirtMachine), s.kvm("kvm1")
	reserved := internalIP(libvirtMachine)

	began := time.Now()
	if err := within(bootPatience, func() error {
		addresses, err := kvm.InterfaceAddresses(t.Context(), uuid, host.AddressFromAgent)
		if err != nil {
			return err
		}
		for _, address := range addresses {
			if address.IP == reserved {
				return nil
			}
		}
		return fmt.Errorf("the guest has %v and not the reserved address %s", addresses, reserved)
	}); err != nil {
		t.Fatalf("The guest doesn't answer: %v", err)
	}
	t.Logf("The guest answered with its reserved address after %s", time.Since(began).Round(time.Second))

	expectOnConsole(t, lab, libvirtMachine.Status.Domain.Name, "bootstrapped guest-1 as "+uuid+" at "+reserved)
	t.Logf("The bootstrap data ran within %s", time.Since(began).Round(time.Second))
}

// expectOnConsole waits until the log of a domain's console has a text.
func expectOnConsole(t *testing.T, lab *privatehost.Host, domainName, want string) {
	t.Helper()
	var written []byte
	if err := within(bootPatience, func() error {
		var err error
		if written, err = os.ReadFile(lab.Path("/var/log/libvirt/qemu/" + domainName + "-console.log")); err != nil {
			return err
		}
		if !strings.Contains(string(written), want) {
			return fmt.Errorf("the console has no line %q", want)
		}
		return nil
	}); err != nil {
		t.Fatalf("%v; it ends with\n%s", err, written[max(0, len(written)-3000):])
	}
}
