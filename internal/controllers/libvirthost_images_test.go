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
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/host"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/hosttest"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/image"
)

// imageInterval of the managers of these tests.
const imageInterval = time.Second

// newImageScene is a scene with a manager of its own that looks at images often.
func newImageScene(t *testing.T) *scene {
	t.Helper()
	s := newSceneOf(t, "", host.NewPool(ctrl.Log.WithName("host"), host.WithUpload(uploaded.keep)))
	s.watchFilter = s.namespace
	ctx, cancel := context.WithCancel(context.Background())
	ended, err := startManager(ctx, s.hosts, s.watchFilter, s.namespace, nil, func(o *Options) { o.ImageInterval = imageInterval })
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("The manager ended: %v", err)
		}
	})
	return s
}

// digest is a digest, for tests that don't look at what it is of.
func digest(k int) string { return fmt.Sprintf("%064x", k) }

// cachedImage is an image that was imported to a host of the test driver: its volume and its mark.
func cachedImage(k int) []hosttest.NodeOption {
	return []hosttest.NodeOption{
		hosttest.Volume("default", image.VolumeName(digest(k)), "qcow2", imageVolumeSize),
		hosttest.Volume("default", image.VolumeName(digest(k))+".verified", "raw", 0),
	}
}

func (s *scene) imagesOf(h *infrav1.LibvirtHost) map[string]infrav1.HostImageStatus {
	s.t.Helper()
	s.refresh(h)
	found := map[string]infrav1.HostImageStatus{}
	for _, status := range h.Status.Images {
		found[status.Checksum] = status
	}
	return found
}

// age has all images of a host that nothing uses be unused for as long already.
func (s *scene) age(h *infrav1.LibvirtHost, unused time.Duration) {
	s.t.Helper()
	changeStatus(s, h, func(h *infrav1.LibvirtHost) {
		for k := range h.Status.Images {
			if !h.Status.Images[k].UnusedSince.IsZero() {
				h.Status.Images[k].UnusedSince = metav1.NewTime(time.Now().Add(-unused))
			}
		}
	})
}

// volumesOf are the volumes of the default pool on a host of the scene.
func (s *scene) volumesOf(hostName string) []string {
	s.t.Helper()
	names, err := s.kvm(hostName).VolumeNames(s.t.Context(), infrav1.DefaultPool)
	must(s.t, err)
	return names
}

func named(k int) infrav1.Image {
	return infrav1.Image{URL: "https://images.example.org/node.qcow2", Checksum: checksumPrefix + digest(k)}
}

// The images of TestUnusedImagesAreRemoved, by what is with them.
const (
	unusedImage = iota + 1
	imageOfMachine
	imageOfTemplate
	imageUnderVolume
	imageOfDomain
	imageByVolume
	imageWithoutMark
)

// TestUnusedImagesAreRemoved has a host with images of which all but one are wanted by somebody, or aren't ours.
func TestUnusedImagesAreRemoved(t *testing.T) {
	t.Parallel()
	s := newImageScene(t)
	options := []hosttest.NodeOption{hosttest.Volume("default", image.VolumeName(digest(imageWithoutMark)), "qcow2", imageVolumeSize)}
	for k := unusedImage; k < imageWithoutMark; k++ {
		options = append(options, cachedImage(k)...)
	}
	template := &infrav1.LibvirtMachineTemplate{ObjectMeta: s.meta("workers", ""), Spec: infrav1.LibvirtMachineTemplateSpec{
		Template: infrav1.LibvirtMachineTemplateResource{Spec: s.machineParts("green", "any").libvirtMachine.Spec},
	}}
	template.Spec.Template.Spec.Image = named(imageOfTemplate)
	s.create(template)
	kvm1 := s.readyHost("kvm1", testDriver(t, options...), func(h *infrav1.LibvirtHost) {
		h.Spec.Images = infrav1.HostImages{UnusedPolicy: infrav1.ImagePolicyKeep}
	})
	green := s.readyCluster("green", "10.20.0.0/27")
	one := s.readyMachine("green", "one", func(p *machineParts) { p.libvirtMachine.Spec.Image = named(imageOfMachine) })
	another := s.createMachine("green", "another", func(p *machineParts) {
		p.libvirtMachine.Spec.Image = infrav1.Image{Volume: image.VolumeName(digest(imageByVolume))}
		p.secret = nil // so that it never gets its disk
	})
	s.expectCondition(another, infrav1.MachineImageReadyCondition, metav1.ConditionTrue, infrav1.MachineImageReadyReason)
	kvm := s.kvm("kvm1")
	path := func(k int) string { return "/pools/default/" + image.VolumeName(digest(k)) }
	must(t, kvm.CreateVolume(t.Context(), "default", overlay("somebodys-disk", path(imageUnderVolume))))
	must(t, kvm.DefineDomain(t.Context(), fmt.Sprintf(`<domain type="test"><name>somebodys</name><uuid>5e0f7f4e-6f8c-4b4e-9d0c-000000000201</uuid><memory unit="MiB">64</memory>`+
		`<os><type>hvm</type></os><devices><disk type="file" device="disk"><source file=%q/><target dev="vda"/></disk></devices></domain>`, path(imageOfDomain))))

	eventually(t, "the images are reported", func() error {
		found := s.imagesOf(kvm1)
		for k := unusedImage; k <= imageWithoutMark; k++ {
			status, ok := found[checksumPrefix+digest(k)]
			inUse := k == imageOfMachine || k == imageOfTemplate || k == imageByVolume
			if ok != (k != imageWithoutMark) || ok && status.UnusedSince.IsZero() != inUse {
				return fmt.Errorf("of image %d: %+v", k, status)
			}
		}
		return nil
	})
	all := s.volumesOf("kvm1")

	// Keep keeps what is as old as anything.
	s.age(kvm1, 10000*time.Hour)
	staysSo(t, "all are kept", func() error { return sameVolumes(s, all) })
	// What was used lately is left.
	change(s, kvm1, func(h *infrav1.LibvirtHost) { h.Spec.Images = infrav1.HostImages{DeleteAfterHours: 20000} })
	staysSo(t, "all are kept", func() error { return sameVolumes(s, all) })

	change(s, kvm1, func(h *infrav1.LibvirtHost) { h.Spec.Images = infrav1.HostImages{DeleteAfterHours: 9999} })
	left := slices.DeleteFunc(slices.Clone(all), func(name string) bool { return strings.HasPrefix(name, image.VolumeName(digest(unusedImage))) })
	if len(left) != len(all)-2 {
		t.Fatalf("There were %v", all)
	}
	eventually(t, "the unused image is removed", func() error { return sameVolumes(s, left) })
	eventually(t, "the status says what others are kept for", func() error {
		found := s.imagesOf(kvm1)
		if _, ok := found[checksumPrefix+digest(unusedImage)]; ok {
			return errors.New("the removed image is still reported")
		}
		for k, want := range map[int]string{imageUnderVolume: "volume somebodys-disk in storage pool default", imageOfDomain: "domain somebodys"} {
			status := found[checksumPrefix+digest(k)]
			if status.KeptFor != want || time.Since(status.UnusedSince.Time) > time.Hour {
				return fmt.Errorf("%+v", status)
			}
		}
		return nil
	})

	// They are removed when nobody wants them any more, but for those that others do.
	s.delete(one)
	s.expectGone(one)
	s.expectNoTraces(green, "kvm1", uuidOf(one))
	s.delete(template)
	eventually(t, "nobody names them", func() error {
		for _, k := range []int{imageOfMachine, imageOfTemplate} {
			if status := s.imagesOf(kvm1)[checksumPrefix+digest(k)]; status.UnusedSince.IsZero() {
				return fmt.Errorf("%+v", status)
			}
		}
		return nil
	})
	s.age(kvm1, 10000*time.Hour)
	left = []string{imageVolume, "somebodys-disk", image.VolumeName(digest(imageWithoutMark))}
	for _, k := range []int{imageUnderVolume, imageOfDomain, imageByVolume} {
		left = append(left, image.VolumeName(digest(k)), image.VolumeName(digest(k))+".verified")
	}
	eventually(t, "only those are left that others need", func() error { return sameVolumes(s, left) })
}

// sameVolumes compares the volumes of kvm1 with those wanted and the root disks of machines that may be there.
func sameVolumes(s *scene, want []string) error {
	got := s.volumesOf("kvm1")
	want = slices.Clone(want)
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		return fmt.Errorf("there are %v, want %v", got, want)
	}
	return nil
}

// TestImageIsNeverRemovedFromUnderAMachine has machines made of an image at the very moment when it is due to be removed.
// Whichever comes first, each machine gets its disk.
func TestImageIsNeverRemovedFromUnderAMachine(t *testing.T) {
	t.Parallel()
	s := newImageScene(t)
	lab := newLab(t)
	kvm1 := s.readyHost("kvm1", lab.URI(), func(h *infrav1.LibvirtHost) { h.Spec.Images.DeleteAfterHours = 1 })
	green := s.readyCluster("green", "10.20.0.0/27")
	content := qcow2(t)
	var transfers atomic.Int32
	node := served(t, content, func(w http.ResponseWriter, r *http.Request) {
		transfers.Add(1)
		whole(content)(w, r)
	})
	imported := func(p *machineParts) { p.libvirtMachine.Spec.Image = node }
	there := func() bool {
		return slices.ContainsFunc(imagesIn(t, lab), func(name string) bool { return strings.HasPrefix(name, "image-") })
	}
	// The next look is at most an interval away when the images age, and the next machine comes before it, while it is taken,
	// or after it.
	const rounds = 5
	for round := range rounds {
		m := s.readyMachine("green", fmt.Sprintf("round-%d", round), emulated, imported)
		s.expectAllThere(green, m)
		s.delete(m)
		s.expectGone(m)
		s.delete(s.machine(m.Name))
		s.delete(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: m.Name}})
		eventually(t, "nothing uses the image", func() error {
			if status := s.imagesOf(kvm1)[node.Checksum]; status.UnusedSince.IsZero() && there() {
				return fmt.Errorf("%+v", status)
			}
			return nil
		})
		s.age(kvm1, 2*time.Hour)
		time.Sleep(time.Duration(round) * imageInterval / 3)
	}
	eventually(t, "the image is removed when nobody comes", func() error {
		if there() {
			return errors.New("it is there")
		}
		return nil
	})
	last := s.readyMachine("green", "last", emulated, imported)
	s.expectAllThere(green, last)
	if transfers.Load() < 2 {
		t.Error("It was never transferred again")
	}
	t.Logf("It was transferred %d times", transfers.Load())
	staysSo(t, "the image is there while the machine is", func() error {
		if !there() {
			return errors.New("it was removed")
		}
		return nil
	})
}

func TestHoldsOfImages(t *testing.T) {
	t.Parallel()
	var known images
	first, err := known.hold(t.Context(), digest(1))
	must(t, err)
	second, err := known.hold(t.Context(), digest(1))
	must(t, err)
	for _, release := range []func(){first, second} {
		if _, ok := known.holdToRemove(digest(1)); ok {
			t.Error("It may be removed while somebody has it")
		}
		release()
		release() // which counts once
	}
	removed, ok := known.holdToRemove(digest(1))
	if !ok {
		t.Fatal("It may not be removed though nobody has it")
	}
	if _, ok := known.holdToRemove(digest(1)); ok {
		t.Error("Two may remove it at once")
	}
	other, err := known.hold(t.Context(), digest(2))
	must(t, err)
	other()

	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := known.hold(short, digest(1)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Somebody may have it while it is being removed: %v", err)
	}
	had := make(chan error, 1)
	go func() {
		release, err := known.hold(t.Context(), digest(1))
		if err == nil {
			release()
		}
		had <- err
	}()
	removed()
	removed()
	select {
	case err := <-had:
		must(t, err)
	case <-time.After(patience):
		t.Fatal("Nobody gets it after it was removed")
	}
	if len(known.holds) != 0 {
		t.Errorf("Holds are kept for ever: %v", known.holds)
	}
}

func TestImageStatuses(t *testing.T) {
	t.Parallel()
	now, before := time.Now(), metav1.NewTime(time.Now().Add(-time.Hour))
	old := []infrav1.HostImageStatus{
		{Checksum: checksumPrefix + digest(1), UnusedSince: before, KeptFor: "domain somebodys"},
		{Checksum: checksumPrefix + digest(2), UnusedSince: before},
		{Checksum: checksumPrefix + digest(3)},
		{Checksum: checksumPrefix + digest(4), UnusedSince: before},
	}
	got := imageStatuses(old, []string{digest(5), digest(3), digest(2), digest(1)}, map[string]string{digest(2): "LibvirtMachine a/b"}, now)
	want := []infrav1.HostImageStatus{
		old[0], // is unused for as long as before
		{Checksum: checksumPrefix + digest(2)},
		{Checksum: checksumPrefix + digest(3), UnusedSince: metav1.NewTime(now)},
		{Checksum: checksumPrefix + digest(5), UnusedSince: metav1.NewTime(now)},
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
	var many []string
	for k := range 2 * maxImagesReported {
		many = append(many, digest(k))
	}
	if got := imageStatuses(nil, many, nil, now); len(got) != maxImagesReported {
		t.Errorf("%d are reported", len(got))
	}
}
