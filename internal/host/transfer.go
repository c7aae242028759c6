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

package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"libvirt.org/go/libvirt"
)

// chunkBytes is how much one message of a transfer carries; libvirt's own limit is 256 KiB.
const chunkBytes = 256 << 10

// bulkBytes is the size from which uploads go one at a time, because each holds a slot of the connection for as long as
// it takes. Seeds are smaller and don't wait for images.
const bulkBytes = 1 << 20

// UntilEnd as the size of an upload is all that the reader has.
const UntilEnd = -1

// UploadVolume writes exactly size bytes of r to the start of a volume, or all of r if size is UntilEnd, which makes a
// volume that is a file as long as that. On any error, including a reader that has more or fewer bytes, the transfer is
// aborted and the volume's content is undefined. r is not read after the return.
func (h *Host) UploadVolume(ctx context.Context, pool, name string, size int64, r io.Reader) error {
	s, err := h.current()
	if err != nil {
		return err
	}
	if s.test && h.upload != nil {
		err = h.upload(ctx, h, pool, name, size, r)
	} else {
		err = s.upload(ctx, pool, name, size, r)
	}
	if err != nil {
		return fmt.Errorf("uploading volume %s in storage pool %s: %w", name, pool, err)
	}
	return nil
}

func (s *session) upload(ctx context.Context, pool, name string, size int64, r io.Reader) error {
	if size >= bulkBytes || size == UntilEnd {
		if err := s.storage.wait(ctx, s.bulk, "another upload"); err != nil {
			return err
		}
		defer s.bulk.give()
	}
	t, err := s.openTransfer(ctx, pool, name, "storageVolUpload", func(vol *libvirt.StorageVol, stream *libvirt.Stream) error {
		return vol.Upload(stream, 0, uint64(max(size, 0)), 0) // of which libvirt takes 0 for no limit
	})
	if err != nil {
		return err
	}
	if size == UntilEnd {
		return s.uploadAll(ctx, pool, t, r)
	}
	sent := int64(0)
	for sent < size {
		chunk := make([]byte, min(chunkBytes, size-sent))
		if _, err := io.ReadFull(r, chunk); err != nil {
			t.abort()
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				return fmt.Errorf("%w: the content is shorter than %d bytes", ErrInvalid, size)
			}
			return fmt.Errorf("reading the content: %w", err)
		}
		if err := t.step(ctx, func() error { return sendAll(t.stream, chunk) }); err != nil {
			t.abort()
			return s.fullIfShort(ctx, pool, size-sent, err)
		}
		sent += int64(len(chunk))
	}
	if n, err := io.ReadFull(r, make([]byte, 1)); n > 0 || !errors.Is(err, io.EOF) {
		t.abort()
		if n > 0 {
			return fmt.Errorf("%w: the content is longer than %d bytes", ErrInvalid, size)
		}
		return fmt.Errorf("reading the content: %w", err)
	}
	if err := t.finish(ctx); err != nil {
		return s.fullIfShort(ctx, pool, 1, err)
	}
	return nil
}

// uploadAll sends all that r has and ends the transfer.
func (s *session) uploadAll(ctx context.Context, pool string, t *transfer, r io.Reader) error {
	for {
		// A fresh buffer each time: one that hangs may still be read from after this returned.
		chunk := make([]byte, chunkBytes)
		n, err := io.ReadFull(r, chunk)
		ended := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		if err != nil && !ended {
			t.abort()
			return fmt.Errorf("reading the content: %w", err)
		}
		if n > 0 {
			if err := t.step(ctx, func() error { return sendAll(t.stream, chunk[:n]) }); err != nil {
				t.abort()
				return s.fullIfShort(ctx, pool, chunkBytes, err)
			}
		}
		if !ended {
			continue
		}
		if err := t.finish(ctx); err != nil {
			return s.fullIfShort(ctx, pool, 1, err)
		}
		return nil
	}
}

func sendAll(stream *libvirt.Stream, chunk []byte) error {
	for len(chunk) > 0 {
		n, err := stream.Send(chunk)
		if err != nil {
			return err
		}
		chunk = chunk[n:]
	}
	return nil
}

// DownloadVolume writes limit bytes of a volume, from an offset on, to w, or fewer where the volume ends.
func (h *Host) DownloadVolume(ctx context.Context, pool, name string, w io.Writer, offset, limit int64) error {
	s, err := h.current()
	if err != nil {
		return err
	}
	if err := s.download(ctx, pool, name, w, offset, limit); err != nil {
		return fmt.Errorf("downloading volume %s in storage pool %s: %w", name, pool, err)
	}
	return nil
}

func (s *session) download(ctx context.Context, pool, name string, w io.Writer, offset, limit int64) error {
	if limit <= 0 {
		return nil // libvirt takes a length of 0 for all
	}
	t, err := s.openTransfer(ctx, pool, name, "storageVolDownload", func(vol *libvirt.StorageVol, stream *libvirt.Stream) error {
		return vol.Download(stream, uint64(offset), uint64(limit), 0)
	})
	if err != nil {
		return err
	}
	return t.receive(ctx, w)
}

// receive writes all that comes to w, and ends the transfer.
func (t *transfer) receive(ctx context.Context, w io.Writer) error {
	for {
		// A fresh buffer each time: one that hangs may still be written to after this returned.
		chunk := make([]byte, chunkBytes)
		received := 0
		err := t.step(ctx, func() (err error) {
			received, err = t.stream.Recv(chunk)
			return err
		})
		if errors.Is(err, io.EOF) {
			return t.finish(ctx)
		}
		if err == nil {
			_, err = w.Write(chunk[:received])
		}
		if err != nil {
			t.abort()
			return err
		}
	}
}

// transfer is an open stream. It takes one of the connection's slots until it ends. Its steps follow each other and
// each can be left behind by its caller, so what comes next waits for it in the background.
type transfer struct {
	connection *connection
	stream     *libvirt.Stream
	// last is closed when the step before has come back.
	last chan struct{}
}

func (s *session) openTransfer(ctx context.Context, pool, name, procedure string, open func(*libvirt.StorageVol, *libvirt.Stream) error) (*transfer, error) {
	var opened handover
	_, err := onVolume(ctx, s, pool, name, procedure, func(vol *libvirt.StorageVol) (struct{}, error) {
		stream, err := s.storage.libvirt.NewStream(0)
		if err != nil {
			return struct{}{}, err
		}
		if err := open(vol, stream); err != nil {
			return struct{}{}, errors.Join(err, stream.Free())
		}
		opened.give(stream)
		return struct{}{}, nil
	})
	if err != nil {
		opened.leave()
		return nil, err
	}
	return opened.transfer(ctx, s.storage)
}

// handover passes a stream on from the call that opens it to its caller, who may have left before it came back: a
// stream that nobody frees keeps its connection open.
type handover struct {
	mu     sync.Mutex
	stream *libvirt.Stream
	left   bool
}

func (h *handover) give(stream *libvirt.Stream) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.stream = stream; h.left {
		go discard(stream)
	}
}

// transfer takes a slot of the connection for the stream that was opened on it.
func (h *handover) transfer(ctx context.Context, c *connection) (*transfer, error) {
	if err := c.acquire(ctx); err != nil {
		h.leave()
		return nil, err
	}
	last := make(chan struct{})
	close(last)
	return &transfer{connection: c, stream: h.stream, last: last}, nil
}

func (h *handover) leave() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.left = true; h.stream != nil {
		go discard(h.stream)
	}
}

// discard breaks a stream off, which talks to the host.
func discard(stream *libvirt.Stream) {
	_ = stream.Abort()
	_ = stream.Free()
}

// step does one thing with the stream.
func (t *transfer) step(ctx context.Context, f func() error) error {
	done, result := make(chan struct{}), make(chan error, 1)
	t.last = done
	answered := t.connection.pulse.ask()
	go func() {
		defer close(done)
		err := f()
		answered()
		result <- err
	}()
	select {
	case err := <-result:
		return classify(err)
	case <-t.connection.abandoned:
		return fmt.Errorf("%w: the connection broke during the transfer", ErrUnreachable)
	case <-ctx.Done():
		t.connection.doubt()
		return released(ctx, "transferring")
	}
}

// finish waits for the host to confirm the transfer and ends it.
func (t *transfer) finish(ctx context.Context) error {
	err := t.step(ctx, t.stream.Finish)
	if err != nil {
		t.abort()
		return err
	}
	t.end(func() {})
	return nil
}

// abort breaks the transfer off.
func (t *transfer) abort() { t.end(func() { _ = t.stream.Abort() }) }

func (t *transfer) end(last func()) {
	go func() {
		defer t.connection.release()
		<-t.last
		last()
		_ = t.stream.Free()
	}()
}
