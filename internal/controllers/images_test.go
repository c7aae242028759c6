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
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/lab/privatehost"
)

// qcow2 makes a qcow2 image with the options of qemu-img and returns it.
func qcow2(t *testing.T, options ...string) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image.qcow2")
	arguments := append(append([]string{"create", "-q", "-f", "qcow2"}, options...), path, "64M")
	if output, err := exec.CommandContext(t.Context(), "qemu-img", arguments...).CombinedOutput(); err != nil {
		t.Fatalf("Making an image: %v: %s", err, output)
	}
	return file(t, path)
}

// served serves an image by a handler, and returns it as the spec of a machine names it.
func served(t *testing.T, content []byte, handler http.HandlerFunc) infrav1.Image {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return infrav1.Image{URL: server.URL + "/image.qcow2", Checksum: fmt.Sprintf("sha256:%x", sha256.Sum256(content))}
}

func whole(content []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(len(content)))
		_, _ = w.Write(content)
	}
}

// imagesIn are the files in the image pool of a host.
func imagesIn(t *testing.T, lab *privatehost.Host) []string {
	t.Helper()
	entries, err := os.ReadDir(lab.Path("/var/lib/libvirt/images"))
	must(t, err)
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}

// TestImageComesByHTTP follows an import, of which two machines wait for the end.
func TestImageComesByHTTP(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	lab := newLab(t)
	s.readyHost("kvm1", lab.URI())
	green := s.readyCluster("green", "10.20.0.0/27")
	content, goOn := qcow2(t, "-o", "preallocation=full"), make(chan struct{})
	requests := make(chan struct{}, 10)
	image := served(t, content, func(w http.ResponseWriter, r *http.Request) {
		requests <- struct{}{}
		w.Header().Set("Content-Length", strconv.Itoa(len(content)))
		_, _ = w.Write(content[:len(content)/2])
		w.(http.Flusher).Flush()
		select {
		case <-goOn:
		case <-r.Context().Done():
		}
		_, _ = w.Write(content[len(content)/2:])
	})
	imported := func(p *machineParts) { p.libvirtMachine.Spec.Image = image }
	first := s.createMachine("green", "first", emulated, imported)
	second := s.createMachine("green", "second", emulated, imported)
	for _, m := range []*infrav1.LibvirtMachine{first, second} {
		s.expectCondition(m, infrav1.MachineImageReadyCondition, metav1.ConditionFalse, infrav1.MachineImageImportingReason, " %, ", " of 64 MiB")
	}
	close(goOn)
	for _, m := range []*infrav1.LibvirtMachine{first, second} {
		s.expectReady(m)
		s.expectAllThere(green, m)
	}
	if len(requests) != 1 {
		t.Errorf("It was asked for %d times", len(requests))
	}
	if late := s.readyMachine("green", "late", emulated, imported); len(requests) != 1 {
		t.Errorf("For %s it was asked for again", late.Name)
	}
}

// TestImportGoesOnWhenTheHostIsBack breaks a host in the midst of an import. A failure of another kind would be tried again
// half a minute later.
func TestImportGoesOnWhenTheHostIsBack(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	lab := newLab(t)
	kvm1 := s.readyHost("kvm1", lab.URI())
	s.readyCluster("green", "10.20.0.0/27")
	content, requests, goOn := qcow2(t, "-o", "preallocation=full"), make(chan struct{}, 10), make(chan struct{})
	image := served(t, content, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(len(content)))
		requests <- struct{}{}
		if len(requests) == 1 {
			_, _ = w.Write(content[:len(content)/2])
			w.(http.Flusher).Flush()
			select {
			case <-goOn:
			case <-r.Context().Done():
			}
			_, _ = w.Write(content[len(content)/2:])
			return
		}
		_, _ = w.Write(content)
	})
	m := s.createMachine("green", "green-a", emulated, func(p *machineParts) { p.libvirtMachine.Spec.Image = image })
	s.expectCondition(m, infrav1.MachineImageReadyCondition, metav1.ConditionFalse, infrav1.MachineImageImportingReason, " of 64 MiB")
	must(t, lab.StopDaemon(t.Context(), syscall.SIGKILL))
	close(goOn)
	s.expectCondition(kvm1, infrav1.HostConnectedCondition, metav1.ConditionFalse, infrav1.HostUnreachableReason)
	must(t, lab.StartDaemon(t.Context()))
	back := time.Now()
	if err := within(20*time.Second, func() error {
		if len(requests) < 2 {
			s.refresh(m)
			return errors.New(describe(m))
		}
		return nil
	}); err != nil {
		t.Fatalf("It isn't tried again: %v", err)
	}
	t.Logf("It was tried again %s after the daemon was started", time.Since(back).Round(time.Millisecond))
	s.expectReady(m)
}

func TestImageThatMustNotBeUsed(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	lab := newLab(t)
	s.readyHost("kvm1", lab.URI())
	green := s.readyCluster("green", "10.20.0.0/27")
	before := imagesIn(t, lab)
	good := qcow2(t, "-o", "preallocation=full")
	backed := qcow2(t, "-o", "backing_file=/etc/shadow,backing_fmt=raw", "-u")
	external := qcow2(t, "-o", "data_file="+filepath.Join(t.TempDir(), "data")+",data_file_raw=on")
	for _, test := range []struct {
		name   string
		image  infrav1.Image
		reason string
		text   string
	}{
		{"other-digest", served(t, []byte("other"), whole(good)), infrav1.MachineImageRefusedReason, "spec.image.checksum"},
		{"not-found", served(t, good, http.NotFound), infrav1.MachineImageNotFoundReason, "404"},
		{"truncated", served(t, good, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", strconv.Itoa(len(good)))
			_, _ = w.Write(good[:1<<20])
		}), infrav1.MachineImageImportFailedReason, "1048576"},
		{"backed", served(t, backed, whole(backed)), infrav1.MachineImageRefusedReason, "backing file"},
		{"external", served(t, external, whole(external)), infrav1.MachineImageRefusedReason, "keeps its data in another file"},
	} {
		m := s.createMachine("green", test.name, emulated, func(p *machineParts) { p.libvirtMachine.Spec.Image = test.image })
		ready := s.expectCondition(m, infrav1.ReadyCondition, metav1.ConditionFalse, test.reason, "ImageReady: ", test.text)
		t.Logf("%s: %s", test.name, ready.Message)
		if strings.Contains(ready.Message, "\n") {
			t.Errorf("%s: the message has several lines", test.name)
		}
		if after := imagesIn(t, lab); !slices.Equal(after, before) {
			t.Errorf("%s: the pool had %v and has %v", test.name, before, after)
		}
		s.delete(m)
		s.expectGone(m)
		s.expectNoTraces(green, "kvm1", uuidOf(m))
	}
}
