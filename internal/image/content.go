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
	"bufio"
	"errors"
	"fmt"
	"io"
)

// content is what an image file holds: itself, or what it decompresses to. It ends well only when the file's digest was
// the one wanted, so that whoever writes it elsewhere stops short of completing anything else.
type content struct {
	file *verifier
	// compression is the name of how the file is compressed; empty when it isn't.
	compression string
	// done is how many bytes were read so far, all of them once complete is set.
	done     int64
	complete bool
	// tail are the last bytes that were read, tailLength at most.
	tail []byte
	// err is why the content isn't what was wanted.
	err error

	buffered *bufio.Reader
	reader   io.ReadCloser
	limit    int64
}

const tailLength = rawSector

// newContent reads from a verifier. limit bounds what comes out of it.
func newContent(file *verifier, limit int64) (*content, error) {
	c := &content{file: file, limit: limit, buffered: bufio.NewReaderSize(file, 64<<10)}
	start, err := c.buffered.Peek(magicLength)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	c.compression, c.reader, err = decompressed(start, c.buffered)
	if err != nil {
		return nil, c.broken(err)
	}
	return c, nil
}

// Read reads on. Its errors are of type *Error, but for io.EOF at the end of content that is as it should be.
func (c *content) Read(p []byte) (int, error) {
	if c.err != nil {
		return 0, c.err
	}
	n, err := c.reader.Read(p)
	c.done += int64(n)
	c.keepTail(p[:n])
	switch {
	case c.done > c.limit:
		c.err = c.tooLarge()
		return 0, c.err
	case errors.Is(err, io.EOF):
		c.err = c.end()
	case err != nil:
		c.err = c.broken(err)
	}
	return n, c.err
}

// end is called when nothing more comes out. Then nothing must be left of the file either, whose digest is known only now.
func (c *content) end() error {
	rest, err := c.buffered.Read(make([]byte, 1))
	switch {
	case rest > 0:
		return fail(ReasonUnsupported, "the file at spec.image.url %s has more behind its end as %s: publish it compressed anew", c.file.place, c.compression)
	case !errors.Is(err, io.EOF):
		return err
	}
	c.complete = true
	return io.EOF
}

// broken says why nothing more can be read.
func (c *content) broken(err error) error {
	if c.file.err != nil {
		return c.file.err
	}
	return failWith(err, ReasonUnsupported, "the file at spec.image.url %s can't be decompressed as %s, publish it anew and set spec.image.checksum to its digest", c.file.place, c.compression)
}

func (c *content) tooLarge() error {
	return fail(ReasonTooLarge, "the file at spec.image.url %s holds more than the %d bytes that are allowed and that the storage pool has free: publish a smaller image, or have the administrator raise the manager's --image-max-size", c.file.place, c.limit)
}

func (c *content) keepTail(read []byte) {
	if len(read) >= tailLength {
		c.tail = append(c.tail[:0], read[len(read)-tailLength:]...)
		return
	}
	c.tail = append(c.tail, read...)
	if over := len(c.tail) - tailLength; over > 0 {
		c.tail = append(c.tail[:0], c.tail[over:]...)
	}
}

// head reads the first bytes of the content, as many as inspect wants to see or fewer if there are no more.
func (c *content) head() ([]byte, error) {
	head := make([]byte, headLength)
	n, err := io.ReadFull(c, head)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, clearer(head[:n], err)
	}
	return head[:n], nil
}

// clearer says of a small file that isn't the one wanted what it is, if it is no image at all: a page, as a rule, that the
// server answers with in its place.
func clearer(file []byte, err error) error {
	var mismatch *Error
	if !errors.As(err, &mismatch) || mismatch.Reason != ReasonDigestMismatch {
		return err
	}
	if _, refused := inspect(file); refused != nil {
		return refused
	}
	return err
}

// Close frees what decompressing took.
func (c *content) Close() error {
	if err := c.reader.Close(); err != nil {
		return fmt.Errorf("closing the decompressor: %w", err)
	}
	return nil
}
