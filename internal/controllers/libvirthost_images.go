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
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/host"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/image"
)

// DefaultImageInterval is the time between two looks at the images of a host unless Options say otherwise.
const DefaultImageInterval = surveyLifetime

const (
	// maxImagesReported is how many images the status of a host holds.
	maxImagesReported = 256
	// maxKeptFor is how long a reason in the status may be.
	maxKeptFor = 512
)

const checksumPrefix = "sha256:"

// reconcileImages looks at the images of a host when it is time to, reports them, and removes those that nothing has used
// for long. It returns when the next look is due. There is no hurry: the first look is taken an interval after the start.
func (r *LibvirtHostReconciler) reconcileImages(ctx context.Context, s *hostScope) time.Duration {
	key := hostKey(s.libvirtHost.Namespace, s.libvirtHost.Name)
	last, ok := r.imageLooks.get(key, 0)
	if !ok {
		last = time.Now()
		r.imageLooks.set(key, 0, last)
		r.Metrics.imagesRemoved.WithLabelValues(key).Add(0)
	}
	if due := r.ImageInterval - time.Since(last); due > 0 {
		return due
	}
	if err := r.lookAtImages(ctx, s); err != nil {
		// Nothing depends on it, and what ails the host the conditions say.
		ctrl.LoggerFrom(ctx).Error(err, "Failed to look at the images of the host", "host", s.libvirtHost.Name)
	}
	r.imageLooks.set(key, 0, time.Now())
	return r.ImageInterval
}

func (r *LibvirtHostReconciler) lookAtImages(ctx context.Context, s *hostScope) error {
	cached, err := image.Cached(ctx, s.host, imagePool(s.libvirtHost))
	if err != nil {
		return err
	}
	wanted, err := r.wantedImages(ctx, s.libvirtHost.Namespace)
	if err != nil {
		return err
	}
	status := &s.libvirtHost.Status
	status.Images = imageStatuses(status.Images, cached, wanted, time.Now())
	if s.libvirtHost.Spec.Images.UnusedPolicy == infrav1.ImagePolicyKeep {
		return nil
	}
	age := time.Duration(cmp.Or(s.libvirtHost.Spec.Images.DeleteAfterHours, infrav1.DefaultImageHours)) * time.Hour
	var left []infrav1.HostImageStatus
	for _, known := range status.Images {
		if known.UnusedSince.IsZero() || time.Since(known.UnusedSince.Time) < age {
			left = append(left, known)
			continue
		}
		digest := strings.TrimPrefix(known.Checksum, checksumPrefix)
		keptFor, removeErr := r.removeImage(ctx, s, digest)
		if removeErr != nil {
			err = errors.Join(err, removeErr)
			keptFor = removeErr.Error()
		}
		if keptFor == "" {
			ctrl.LoggerFrom(ctx).Info("Removed unused image from host", "host", s.libvirtHost.Name, "image", known.Checksum, "unusedSince", known.UnusedSince)
			r.Metrics.imagesRemoved.WithLabelValues(hostKey(s.libvirtHost.Namespace, s.libvirtHost.Name)).Inc()
			continue
		}
		if removeErr == nil {
			known.UnusedSince = metav1.Now()
		}
		known.KeptFor = keptFor[:min(len(keptFor), maxKeptFor)]
		left = append(left, known)
	}
	status.Images = left
	return err
}

// imageStatuses are the images that are on a host now, with what was known of them before. wanted are the digests that
// somebody names.
func imageStatuses(before []infrav1.HostImageStatus, cached []string, wanted map[string]string, now time.Time) []infrav1.HostImageStatus {
	known := map[string]infrav1.HostImageStatus{}
	for _, status := range before {
		known[status.Checksum] = status
	}
	var statuses []infrav1.HostImageStatus
	for _, digest := range slices.Sorted(slices.Values(cached)) {
		status := infrav1.HostImageStatus{Checksum: checksumPrefix + digest}
		if _, ok := wanted[digest]; !ok {
			status.UnusedSince = metav1.NewTime(now)
			if old, ok := known[status.Checksum]; ok && !old.UnusedSince.IsZero() {
				status = old
			}
		}
		statuses = append(statuses, status)
	}
	return statuses[:min(len(statuses), maxImagesReported)]
}

// wantedImages are the digests that LibvirtMachines and LibvirtMachineTemplates name, with who does. Machines count
// wherever they are, because two LibvirtHosts, even of two namespaces, may be the same host. The cache has every machine
// whose reconciler may be at work.
func (r *LibvirtHostReconciler) wantedImages(ctx context.Context, namespace string) (map[string]string, error) {
	wanted := map[string]string{}
	want := func(kind string, object client.Object, spec infrav1.LibvirtMachineSpec) {
		if digest := imageDigest(spec.Image); digest != "" {
			wanted[digest] = fmt.Sprintf("%s %s/%s", kind, object.GetNamespace(), object.GetName())
		}
	}
	var templates infrav1.LibvirtMachineTemplateList
	if err := r.APIReader.List(ctx, &templates, client.InNamespace(namespace)); err != nil {
		return nil, fmt.Errorf("listing LibvirtMachineTemplates: %w", err)
	}
	for k := range templates.Items {
		want("LibvirtMachineTemplate", &templates.Items[k], templates.Items[k].Spec.Template.Spec)
	}
	var machines infrav1.LibvirtMachineList
	if err := r.Client.List(ctx, &machines); err != nil {
		return nil, fmt.Errorf("listing LibvirtMachines: %w", err)
	}
	for k := range machines.Items {
		want(machineKind, &machines.Items[k], machines.Items[k].Spec)
	}
	return wanted, nil
}

// removeImage removes an image from a host, or returns what it is kept for. A machine whose reconcile begins meanwhile
// waits, and then looks for the image anew.
func (r *LibvirtHostReconciler) removeImage(ctx context.Context, s *hostScope, digest string) (keptFor string, err error) {
	release, ok := r.Images.holdToRemove(digest)
	if !ok {
		return "a machine that is being made", nil
	}
	defer release()
	wanted, err := r.wantedImages(ctx, s.libvirtHost.Namespace)
	if err != nil {
		return "", err
	}
	if by, ok := wanted[digest]; ok {
		return by, nil
	}
	pool := imagePool(s.libvirtHost)
	if by, err := neededBy(ctx, s.host, image.VolumeName(digest)); by != "" || err != nil {
		return by, err
	}
	r.Images.forgetDigest(digest)
	return "", image.Remove(ctx, s.host, pool, digest)
}

// neededBy says which volume or domain of a host needs the volume of an image, whoever made it; empty when none does. The
// name, which has a digest in it, is all that is looked for, because there may be several ways to a directory.
func neededBy(ctx context.Context, kvm *host.Host, volume string) (string, error) {
	backing, err := kvm.BackingFiles(ctx)
	if err != nil {
		return "", err
	}
	for file, by := range backing {
		if strings.Contains(file, volume) {
			return by, nil
		}
	}
	for _, dom := range kvm.Domains() {
		document, err := kvm.DomainXML(ctx, dom.UUID)
		if errors.Is(err, host.ErrNotFound) {
			continue
		}
		if err != nil {
			return "", err
		}
		if strings.Contains(document, volume) {
			return "domain " + dom.Name, nil
		}
	}
	return "", nil
}
