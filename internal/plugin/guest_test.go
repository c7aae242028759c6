//go:build guests

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
	"bytes"
	"context"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/domain"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/hosttest"
)

// bootPatience is how long an emulated guest may take to boot beside other tests.
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

// TestConsoleAndScreenshot boots a guest, types on its console and looks at its display.
func TestConsoleAndScreenshot(t *testing.T) {
	s := newScene(t)
	lab := hosttest.Libvirtd(t)
	kvm := connect(t, lab.URI())
	image, err := os.Open(guestImage(t))
	must(t, err)
	defer image.Close()
	info, err := image.Stat()
	must(t, err)
	backing := upload(t, kvm, fmt.Sprintf("<volume><name>base</name><capacity>%d</capacity><target><format type='raw'/></target></volume>", info.Size()),
		"base", info.Size(), image)
	spec := infrav1.LibvirtMachineSpec{
		ProviderID: domain.ProviderID(guestUUID), HostName: "kvm1", VCPUs: 1, Memory: resource.MustParse("768Mi"), DomainType: infrav1.DomainTypeQEMU,
		Image: infrav1.Image{Volume: "base"}, RootDisk: infrav1.RootDisk{Size: resource.MustParse("3Gi"), Cache: infrav1.DiskCacheUnsafe},
	}
	defineGuest(t, kvm, s.namespace, guestUUID, "guest-1", backing, "qcow2", spec,
		"#cloud-config\nruncmd:\n- echo This is the display of $(hostname). >/dev/tty1\n- echo the display is written >/dev/console\n")
	s.create(&infrav1.LibvirtHost{ObjectMeta: metav1.ObjectMeta{Name: "kvm1"}, Spec: infrav1.LibvirtHostSpec{URI: lab.URI()}}, nil)
	s.createMachine("demo", "guest-1", nil, spec)

	if _, err := s.plugin("console", "guest-1"); err == nil || !strings.Contains(err.Error(), "is Shutoff and has no console") {
		t.Errorf("The console of a domain that doesn't run: %v", err)
	}
	must(t, kvm.StartDomain(t.Context(), guestUUID))

	keys, keyboard := io.Pipe()
	screen := &transcript{}
	ctx, cancel := context.WithTimeout(t.Context(), 2*bootPatience)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- s.pluginWith(ctx, keys, screen, "console", "guest-1") }()
	shows := func(text string) {
		t.Helper()
		eventually(t, bootPatience, fmt.Sprintf("the console shows %q", text), func() error {
			select {
			case err := <-ended:
				t.Fatalf("The session ended: %v", err)
			default:
			}
			if content := screen.String(); !strings.Contains(content, text) {
				return fmt.Errorf("it shows only %q", content[max(0, len(content)-500):])
			}
			return nil
		})
	}
	press := func(text string) {
		t.Helper()
		if _, err := io.WriteString(keyboard, text); err != nil {
			t.Fatal(err)
		}
	}
	shows("login:")
	shows("the display is written")
	const typed = "somebody-who-types"
	press(typed + "\r")
	shows(typed)
	shows("Password:")

	// A second session is refused, unless it takes the console away.
	if _, err := s.plugin("console", "guest-1"); err == nil || !strings.Contains(err.Error(), "onsole session") {
		t.Errorf("A second session: %v", err)
	}

	file := filepath.Join(t.ArtifactDir(), "screenshot.png")
	if _, err := s.plugin("screenshot", "infra-guest-1", "--output", file); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(file)
	must(t, err)
	picture, err := png.Decode(bytes.NewReader(content))
	must(t, err)
	if bounds, colours := picture.Bounds(), colours(picture); bounds.Dx() < 320 || bounds.Dy() < 200 || len(colours) < 2 {
		t.Errorf("The picture is %v and has the colours %v", bounds, colours)
	}

	press("\x1d")
	select {
	case err := <-ended:
		must(t, err)
	case <-time.After(time.Minute):
		t.Fatal("The escape character doesn't end the session")
	}

	_, err = s.plugin("console", "guest-1", "--log")
	if err == nil || !strings.Contains(err.Error(), "make its directory a storage pool") {
		t.Errorf("The log, which libvirt doesn't know: %v", err)
	}
	for _, args := range [][]string{{"pool-define-as", "console-logs", "dir", "--target", "/var/log/libvirt/qemu"}, {"pool-start", "console-logs"}} {
		if output, err := exec.CommandContext(t.Context(), "virsh", append([]string{"-c", lab.URI()}, args...)...).CombinedOutput(); err != nil {
			t.Fatalf("virsh %v: %v: %s", args, err, output)
		}
	}
	log, err := s.plugin("console", "guest-1", "--log")
	must(t, err)
	if !strings.Contains(log, "login:") || !strings.Contains(log, typed) {
		t.Errorf("The log is %q", log)
	}

	// A guest that stops ends a session.
	ended = make(chan error, 1)
	go func() { ended <- s.pluginWith(ctx, strings.NewReader(""), screen, "console", "guest-1", "--force") }()
	eventually(t, time.Minute, "there is a second session", func() error {
		if strings.Count(screen.String(), "Connected to") < 2 {
			return fmt.Errorf("it isn't there yet")
		}
		return nil
	})
	must(t, kvm.DestroyDomain(t.Context(), guestUUID))
	select {
	case err := <-ended:
		if err == nil || !strings.Contains(err.Error(), "the guest was stopped") {
			t.Errorf("The session ended with %v", err)
		}
	case <-time.After(time.Minute):
		t.Fatal("The session goes on without the guest")
	}
}

// colours are those of a picture.
func colours(picture image.Image) map[color.Color]int {
	found := map[color.Color]int{}
	for y := picture.Bounds().Min.Y; y < picture.Bounds().Max.Y; y++ {
		for x := picture.Bounds().Min.X; x < picture.Bounds().Max.X; x++ {
			found[picture.At(x, y)]++
		}
	}
	return found
}
