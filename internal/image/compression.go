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
	"compress/gzip"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/mikelolasagasti/xz"
)

// maxWindow bounds the memory that decompressing takes. It is what zstd --long and xz -9 ask for at most.
const maxWindow = 128 << 20

// magicLength is how much of a file tells how it is compressed.
const magicLength = 6

// compressions are the ways in which an image may be compressed, by what the file begins with: names of files mean
// nothing.
var compressions = []struct {
	name  string
	magic string
	open  func(io.Reader) (io.ReadCloser, error)
}{
	{"gzip", "\x1f\x8b\x08", openGzip},
	{"xz", "\xfd7zXZ\x00", openXZ},
	{"zstd", "\x28\xb5\x2f\xfd", openZstd},
}

// decompressed reads what a file holds that begins with start. The name is empty for one that isn't compressed.
func decompressed(start []byte, file io.Reader) (name string, reader io.ReadCloser, err error) {
	for _, c := range compressions {
		if bytes.HasPrefix(start, []byte(c.magic)) {
			reader, err := c.open(file)
			return c.name, reader, err
		}
	}
	return "", io.NopCloser(file), nil
}

func openGzip(file io.Reader) (io.ReadCloser, error) { return gzip.NewReader(file) }

func openZstd(file io.Reader) (io.ReadCloser, error) {
	decoder, err := zstd.NewReader(file, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
	if err != nil {
		return nil, err
	}
	return decoder.IOReadCloser(), nil
}

func openXZ(file io.Reader) (io.ReadCloser, error) {
	// Decoders that can't be told a limit allocate what the file asks for, up to 4 GiB.
	reader, err := xz.NewReader(file, maxWindow)
	if err != nil {
		return nil, err
	}
	return io.NopCloser(reader), nil
}
