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
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/host"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/image"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/task"
)

// imageKey names an image on a host: by its digest, or by the volume that its user made.
type imageKey struct {
	host, pool, digest, volume string
}

func (k imageKey) String() string {
	return fmt.Sprintf("%s/%s/%s%s", k.host, k.pool, k.digest, k.volume)
}

func (s *machineScope) imageKey() (imageKey, error) {
	key := imageKey{
		host: hostKey(s.libvirtHost.Namespace, s.libvirtHost.Name), pool: imagePool(s.libvirtHost),
		volume: s.libvirtMachine.Spec.Image.Volume,
	}
	if key.volume != "" {
		return key, nil
	}
	digest, err := image.ParseChecksum(s.libvirtMachine.Spec.Image.Checksum)
	key.digest = digest
	return key, err
}

// reconcileImage makes sure that the image is on the host. A machine that has a domain has its image.
func (r *LibvirtMachineReconciler) reconcileImage(ctx context.Context, s *machineScope) error {
	if s.domain != nil || provisioned(s.libvirtMachine) {
		return nil
	}
	key, err := s.imageKey()
	if err != nil {
		return &waiting{reason: infrav1.MachineImageRefusedReason, message: "spec.image.checksum: " + err.Error()}
	}
	if err := r.holdImage(ctx, s, imageDigest(s.libvirtMachine.Spec.Image)); err != nil {
		return err
	}
	epoch := r.Events.epoch(key.host, "")
	if known, ok := r.Images.known.get(key, epoch); ok {
		s.image = known
		return nil
	}
	if key.volume == "" {
		return r.importImage(s, key, epoch)
	}
	s.image, err = image.LookupVolume(ctx, s.host, key.pool, key.volume)
	if errors.Is(err, host.ErrNotFound) {
		return &waiting{reason: infrav1.MachineImageNotFoundReason, after: time.Minute, message: fmt.Sprintf(
			"spec.image.volume: storage pool %s of host %s has no volume %s", key.pool, s.libvirtHost.Name, key.volume)}
	}
	if err != nil {
		return imageTrouble(err, time.Minute)
	}
	r.Images.known.set(key, epoch, s.image)
	return nil
}

// imageDigest is the digest of an image that is imported, or that was and is named by its volume; empty for another, which
// its user put on the host and nobody but the user removes.
func imageDigest(spec infrav1.Image) string {
	if digest, ok := image.DigestOf(spec.Volume); ok {
		return digest
	}
	if digest, err := image.ParseChecksum(spec.Checksum); err == nil {
		return digest
	}
	return ""
}

// holdImage keeps an image that may be removed when nothing uses it from being so until the reconcile ends. By then the
// root disk over it is there, or the machine goes on to want it.
func (r *LibvirtMachineReconciler) holdImage(ctx context.Context, s *machineScope, digest string) error {
	if digest == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, holdTimeout)
	defer cancel()
	release, err := r.Images.hold(ctx, digest)
	if err != nil {
		return &waiting{reason: infrav1.MachineImageImportingReason, after: holdTimeout, message: "Waits until the image, which was unused, has been removed, to download it again"}
	}
	s.releaseImage = release
	return nil
}

// holdTimeout is how long a reconcile waits for an image that is being removed.
const holdTimeout = 2 * time.Second

// importImage makes sure in the background that the image is on the host: it moves it there once, however many machines
// wait for it, and finds it there after that.
func (r *LibvirtMachineReconciler) importImage(s *machineScope, key imageKey, epoch uint64) error {
	kvm, source := s.host, image.Source{URL: s.libvirtMachine.Spec.Image.URL, SHA256: key.digest, Policy: r.ImagePolicy}
	run := func(ctx context.Context, report func(task.Progress)) error {
		release, err := r.Images.hold(ctx, key.digest)
		if err != nil {
			return err
		}
		defer release()
		moving := r.Metrics.startTransfer(key.host, key.digest)
		found, err := image.Import(ctx, kvm, key.pool, source, func(done, total int64) {
			moving.progress(done, total)
			report(task.Progress{Done: done, Total: total})
		})
		moving.end(err)
		if err == nil {
			r.Images.known.set(key, epoch, found)
		}
		if outage(err) {
			r.outages.set(key, epoch, struct{}{})
		}
		return err
	}
	ensure := func() task.Status {
		return r.Imports.Ensure(key.String(), key.host, client.ObjectKeyFromObject(s.libvirtMachine), run)
	}
	status := ensure()
	if status.State == task.Succeeded {
		// In an earlier epoch of the host, or a moment ago.
		if known, ok := r.Images.known.get(key, epoch); ok {
			s.image = known
			return nil
		}
		r.Imports.Forget(key.String())
		status = ensure()
	}
	if _, lasts := r.outages.get(key, epoch); status.State == task.Failed && outage(status.Err) && !lasts {
		// The host has come back since, so there is nothing to wait for.
		r.Imports.Forget(key.String())
		status = ensure()
	}
	if status.State == task.Failed {
		return imageTrouble(status.Err, time.Until(status.RetryAt))
	}
	return &waiting{reason: infrav1.MachineImageImportingReason, message: progressMessage(status)}
}

// outage tells that a transfer failed because the host was out of reach.
func outage(err error) bool {
	return errors.Is(err, host.ErrUnreachable) || errors.Is(err, host.ErrHostBusy) || errors.Is(err, host.ErrTimeout)
}

// progressMessage is how far an import has come, such as "45 %, 900 MiB of 2.0 GiB".
func progressMessage(status task.Status) string {
	progress := status.Progress
	switch {
	case status.Started.IsZero():
		return "Waits for its turn"
	case progress.Total == 0:
		return "Connecting to spec.image.url"
	}
	return fmt.Sprintf("%d %%, %s of %s", progress.Done*100/progress.Total, size(progress.Done), size(progress.Total))
}

// size is an amount of bytes for people.
func size(bytes int64) string {
	const mebi = 1 << 20
	if bytes < 1024*mebi {
		return fmt.Sprintf("%d MiB", bytes/mebi)
	}
	return fmt.Sprintf("%.1f GiB", float64(bytes)/(1024*mebi))
}

// imageTrouble tells an image that must not be used from a transfer that may work the next time.
func imageTrouble(err error, after time.Duration) error {
	var refused *image.Error
	if !errors.As(err, &refused) {
		return err
	}
	wait := &waiting{reason: infrav1.MachineImageRefusedReason, message: refused.Error(), after: max(after, time.Second)}
	switch refused.Reason {
	case image.ReasonNotFound:
		wait.reason = infrav1.MachineImageNotFoundReason
	case image.ReasonTruncated, image.ReasonDownloadFailed, image.ReasonStorageFailed:
		wait.reason = infrav1.MachineImageImportFailedReason
	}
	return wait
}

// forgetImage has the image looked for again by the next reconcile that needs it.
func (r *LibvirtMachineReconciler) forgetImage(s *machineScope) {
	if key, err := s.imageKey(); err == nil {
		r.Images.known.forget(key)
		r.Imports.Forget(key.String())
	}
}
