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
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"io"
)

// verifier passes a file on while it computes its digest. At the end of the file it returns an error instead of
// io.EOF if the digest is not the one wanted, so that whoever writes the file stops short of completing it.
type verifier struct {
	source io.Reader
	place  string
	want   string
	length int64
	report func(done, total int64)

	hash hash.Hash
	done int64
	// err is why the file is not what was wanted.
	err error
	// verified is set when the whole file has passed.
	verified bool
}

func newVerifier(source io.Reader, place, want string, length int64, report func(done, total int64)) *verifier {
	return &verifier{source: source, place: place, want: want, length: length, report: report, hash: sha256.New()}
}

func (v *verifier) Read(p []byte) (int, error) {
	if v.err != nil {
		return 0, v.err
	}
	n, err := v.source.Read(p)
	if n > 0 {
		v.hash.Write(p[:n])
		v.done += int64(n)
		v.report(v.done, v.length)
	}
	switch {
	case err == nil:
		return n, nil
	case !errors.Is(err, io.EOF):
		v.err = err
		return n, err
	}
	if got := hex.EncodeToString(v.hash.Sum(nil)); got != v.want {
		v.err = fail(ReasonDigestMismatch, "spec.image.checksum is sha256:%s, but the file at spec.image.url %s has sha256:%s: correct the checksum, or publish the right file", v.want, v.place, got)
		return n, v.err
	}
	v.verified = true
	return n, io.EOF
}
