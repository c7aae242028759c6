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

package image

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/host"
)

// Import brings the image that src names into the pool, unless it is there, and returns it. A compressed file is
// decompressed on the way. Only a file whose digest, length, header and tables are as they should be becomes an image;
// after a failure no volume is left. Imports of one digest
// into one pool must not overlap. report is told how many bytes have come.
//
// The error is an *Error if the image or its storage is at fault, and wraps the host's errors otherwise.
func Import(ctx context.Context, h *host.Host, pool string, src Source, report func(done, total int64)) (Info, error) {
	return importer{host: h, pool: pool, source: src, report: report, patience: defaultPatience}.run(ctx)
}

// importer is one import.
type importer struct {
	host     *host.Host
	pool     string
	source   Source
	report   func(done, total int64)
	patience patience
}

func (i importer) run(ctx context.Context) (Info, error) {
	location, err := i.source.validate()
	if err != nil {
		return Info{}, err
	}
	info, err := bounded(ctx, i.patience.call, func(ctx context.Context) (Info, error) {
		return Lookup(ctx, i.host, i.pool, i.source.SHA256)
	})
	if !errors.Is(err, host.ErrNotFound) {
		return info, err
	}
	free, err := i.freeSpace(ctx)
	if err != nil {
		return Info{}, err
	}

	file, err := openURL(ctx, location, i.source.Policy, i.patience)
	if err != nil {
		return Info{}, err
	}
	defer file.Close()
	if file.length > free {
		return Info{}, failWith(host.ErrNoSpace, ReasonStorageFailed, "the image at spec.image.url %s has %d bytes, but storage pool %s has only %d free: free space, or set LibvirtHost spec.storage.imagePool to another pool", file.place, file.length, i.pool, free)
	}
	from, err := newContent(newVerifier(file, file.place, i.source.SHA256, file.length, i.report), min(i.source.Policy.maxFile(), free))
	if err != nil {
		return Info{}, err
	}
	defer from.Close()
	head, err := from.head()
	if err != nil {
		return Info{}, err
	}
	found, err := inspect(head)
	if err != nil {
		return Info{}, err
	}
	if err := found.fits(i.source.Policy.maxDisk()); err != nil {
		return Info{}, err
	}
	length := int64(host.UntilEnd)
	if from.compression == "" {
		// All is known before anything is written.
		length = file.length
		if found, err = i.complete(found, length, nil); err != nil {
			return Info{}, err
		}
	}

	if err := i.remove(ctx); err != nil { // what a crash left behind
		return Info{}, err
	}
	info, err = i.store(ctx, from, head, found, length)
	if err != nil {
		cleanup, cancel := context.WithTimeout(context.WithoutCancel(ctx), i.patience.call)
		defer cancel()
		return Info{}, errors.Join(err, i.remove(cleanup))
	}
	return info, nil
}

// freeSpace returns how much the pool can take.
func (i importer) freeSpace(ctx context.Context) (int64, error) {
	pool, err := bounded(ctx, i.patience.call, func(ctx context.Context) (host.StoragePool, error) {
		return i.host.StoragePool(ctx, i.pool)
	})
	if errors.Is(err, host.ErrNotFound) {
		return 0, failWith(err, ReasonStorageFailed, "the host has no storage pool %s, create it or correct LibvirtHost spec.storage.imagePool", i.pool)
	}
	return pool.AvailableBytes, err
}

// complete judges an image that is so long and ends so.
func (i importer) complete(found header, length int64, tail []byte) (header, error) {
	found, err := found.complete(length, tail)
	if err != nil {
		return header{}, err
	}
	return found, found.fits(i.source.Policy.maxDisk())
}

// store streams the content into the image's volume and marks it when all is verified. length is host.UntilEnd when it is
// known only at the end.
func (i importer) store(ctx context.Context, from *content, head []byte, found header, length int64) (Info, error) {
	name := VolumeName(i.source.SHA256)
	// A volume grows with what is written to it.
	if err := i.create(ctx, name, max(length, 0)); err != nil {
		return Info{}, err
	}
	if err := i.upload(ctx, name, from, head, length); err != nil {
		return Info{}, err
	}
	found, err := i.complete(found, from.done, from.tail)
	if err != nil {
		return Info{}, err
	}
	info, err := i.settled(ctx, name, found)
	if err != nil {
		return Info{}, err
	}
	if found.format == FormatQCOW2 {
		if err := found.checkTables(from.done, i.volumeReader(ctx, name)); err != nil {
			return Info{}, i.unlessRefused(err)
		}
	}
	return info, i.create(ctx, markerName(i.source.SHA256), 0)
}

// upload writes the content to a volume. Of it, head was read already.
func (i importer) upload(ctx context.Context, name string, from *content, head []byte, length int64) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	slow := time.AfterFunc(i.patience.storage, func() { cancel(errStorageStalled) })
	defer slow.Stop()
	err := i.host.UploadVolume(ctx, i.pool, name, length, rearm{io.MultiReader(bytes.NewReader(head), from), slow, i.patience.storage})
	switch {
	case from.err != nil && !errors.Is(from.err, io.EOF):
		return from.err
	case err != nil && errors.Is(context.Cause(ctx), errStorageStalled):
		return failWith(err, ReasonStorageFailed, "storage pool %s has taken nothing for %s, look at the host's storage", i.pool, i.patience.storage)
	case err != nil:
		return i.storageFailed(err)
	case !from.complete:
		return fail(ReasonStorageFailed, "the host has stored %d of the image's bytes and reported success before the end", from.done)
	}
	return nil
}

// volumeReader reads back what was stored.
func (i importer) volumeReader(ctx context.Context, name string) readRange {
	return func(offset, n int64) ([]byte, error) {
		var data bytes.Buffer
		_, err := bounded(ctx, i.patience.storage, func(ctx context.Context) (struct{}, error) {
			return struct{}{}, i.host.DownloadVolume(ctx, i.pool, name, &data, offset, n)
		})
		return data.Bytes(), err
	}
}

// unlessRefused tells a finding in the image from trouble with the host.
func (i importer) unlessRefused(err error) error {
	var refused *Error
	if errors.As(err, &refused) {
		return err
	}
	return i.storageFailed(err)
}

var errStorageStalled = errors.New("the host's storage has stalled")

// rearm is a reader that puts a timer off whenever it is read, and holds it while it waits for its source.
type rearm struct {
	source io.Reader
	timer  *time.Timer
	after  time.Duration
}

func (r rearm) Read(p []byte) (int, error) {
	r.timer.Stop()
	defer r.timer.Reset(r.after)
	return r.source.Read(p)
}

// settled waits until libvirt, which reads the pool anew after an upload, sees in the volume the disk that its header
// told of.
func (i importer) settled(ctx context.Context, name string, found header) (Info, error) {
	ctx, cancel := context.WithTimeout(ctx, i.patience.settle)
	defer cancel()
	again := time.NewTicker(200 * time.Millisecond)
	defer again.Stop()
	for {
		vol, err := i.host.Volume(ctx, i.pool, name)
		if err == nil && vol.Format == found.format && vol.CapacityBytes == found.virtualSize {
			return infoOf(name, i.pool, vol)
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			if err != nil {
				return Info{}, i.storageFailed(err)
			}
			return Info{}, fail(ReasonStorageFailed, "libvirt sees a disk of format %s and %d bytes in the image, whose header says %s and %d: look at the storage pool %s on the host", vol.Format, vol.CapacityBytes, found.format, found.virtualSize, i.pool)
		}
	}
}

// remove deletes the volumes of this image, the mark first. A volume can be busy for a moment after a broken upload.
func (i importer) remove(ctx context.Context) error {
	for _, name := range []string{markerName(i.source.SHA256), VolumeName(i.source.SHA256)} {
		if err := i.removeVolume(ctx, name); err != nil {
			return fmt.Errorf("removing what is left of an import: %w", err)
		}
	}
	return nil
}

func (i importer) removeVolume(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, i.patience.call)
	defer cancel()
	again := time.NewTicker(200 * time.Millisecond)
	defer again.Stop()
	for {
		err := i.host.DeleteVolume(ctx, i.pool, name)
		if err == nil || errors.Is(err, host.ErrNotFound) {
			return nil
		}
		if errors.Is(err, host.ErrUnreachable) {
			return err
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return err
		}
	}
}

// volume is the definition of a raw volume. Everything that can reach the pool may read it: images hold no secrets.
type volume struct {
	XMLName    xml.Name `xml:"volume"`
	Name       string   `xml:"name"`
	Capacity   int64    `xml:"capacity"`
	Allocation int64    `xml:"allocation"`
	Format     struct {
		Type string `xml:"type,attr"`
	} `xml:"target>format"`
	Mode string `xml:"target>permissions>mode"`
}

// create makes an empty, sparse, raw volume.
func (i importer) create(ctx context.Context, name string, capacity int64) error {
	definition := volume{Name: name, Capacity: capacity, Mode: "0644"}
	definition.Format.Type = FormatRaw
	text, err := xml.Marshal(definition)
	if err != nil {
		return fmt.Errorf("rendering volume %s: %w", name, err)
	}
	_, err = bounded(ctx, i.patience.call, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, i.host.CreateVolume(ctx, i.pool, string(text))
	})
	if err != nil {
		return i.storageFailed(err)
	}
	return nil
}

func (i importer) storageFailed(err error) error {
	switch {
	case errors.Is(err, host.ErrUnreachable) || errors.Is(err, host.ErrHostBusy) || errors.Is(err, context.Canceled):
		return fmt.Errorf("storing the image in pool %s: %w", i.pool, err)
	case errors.Is(err, host.ErrNoSpace):
		return failWith(err, ReasonStorageFailed, "storage pool %s is full, free space or set LibvirtHost spec.storage.imagePool to another pool", i.pool)
	}
	return failWith(err, ReasonStorageFailed, "the image cannot be stored in pool %s", i.pool)
}

// bounded makes a call that may take so long.
func bounded[T any](ctx context.Context, limit time.Duration, call func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return call(ctx)
}
