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
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"
)

// hurried is patience for tests.
var hurried = patience{
	connect: 2 * time.Second,
	answer:  2 * time.Second,
	stall:   300 * time.Millisecond,
	storage: 10 * time.Second,
	call:    20 * time.Second,
	settle:  20 * time.Second,
}

func digestOf(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// serve serves files and misbehaviour by path.
func serve(t *testing.T, files map[string]http.HandlerFunc) string {
	t.Helper()
	mux := http.NewServeMux()
	for path, handler := range files {
		mux.HandleFunc("/"+path, handler)
	}
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return server.URL
}

// file serves content as it should be.
func file(content []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(len(content)))
		_, _ = w.Write(content)
	}
}

// cutOff promises all of content, sends half of it and closes the connection.
func cutOff(content []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(len(content)))
		_, _ = w.Write(content[:len(content)/2])
	}
}

// stalled sends half of content and then nothing until the client leaves.
func stalled(content []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(len(content)))
		_, _ = w.Write(content[:len(content)/2])
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}
}

func status(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "<html>no</html>", code) }
}

// fetch downloads all of a URL.
func fetch(t *testing.T, rawURL string, maxBytes int64, p patience) ([]byte, error) {
	t.Helper()
	policy := local
	policy.MaxFileBytes = maxBytes
	return fetchBy(t, rawURL, policy, p)
}

// local allows what the tests serve themselves.
var local = Policy{AllowHTTP: true, AllowedNetworks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}

func fetchBy(t *testing.T, rawURL string, policy Policy, p patience) ([]byte, error) {
	t.Helper()
	location, err := url.Parse(rawURL)
	if err != nil {
		t.Fatal(err)
	}
	d, err := openURL(t.Context(), location, policy, p)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return io.ReadAll(d)
}

func TestDownload(t *testing.T) {
	content := bytes.Repeat([]byte("0123456789abcdef"), 1<<14)
	redirect := func(to string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, to, http.StatusFound) }
	}
	base := serve(t, map[string]http.HandlerFunc{
		"disk":     file(content),
		"moved":    redirect("/disk"),
		"loop":     redirect("/loop"),
		"elsewhat": redirect("file:///etc/passwd"),
		"gone":     status(http.StatusGone),
		"private":  status(http.StatusForbidden),
		"broken":   status(http.StatusInternalServerError),
		"empty":    file(nil),
		"cut":      cutOff(content),
		"stalled":  stalled(content),
		"mute":     func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"chunked": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write(content[:10])
			_ = http.NewResponseController(w).Flush()
		},
	})
	for _, path := range []string{"disk", "moved"} {
		if got, err := fetch(t, base+"/"+path, 0, hurried); err != nil || !bytes.Equal(got, content) {
			t.Errorf("%s: got %d bytes and error %v", path, len(got), err)
		}
	}

	quick := hurried
	quick.answer = 300 * time.Millisecond
	tests := map[string]struct {
		url      string
		maxBytes int64
		reason   Reason
		words    string
	}{
		"missing":        {base + "/missing", 0, ReasonNotFound, "404"},
		"gone":           {base + "/gone", 0, ReasonNotFound, "410"},
		"private":        {base + "/private", 0, ReasonDownloadFailed, "403"},
		"broken":         {base + "/broken", 0, ReasonDownloadFailed, "500"},
		"empty":          {base + "/empty", 0, ReasonTruncated, "empty"},
		"no length":      {base + "/chunked", 0, ReasonDownloadFailed, "Content-Length"},
		"cut off":        {base + "/cut", 0, ReasonTruncated, "131072 of 262144"},
		"stalled":        {base + "/stalled", 0, ReasonDownloadFailed, "131072 of 262144"},
		"no answer":      {base + "/mute", 0, ReasonDownloadFailed, "timeout"},
		"too large":      {base + "/disk", 262143, ReasonTooLarge, "262144"},
		"redirect loop":  {base + "/loop", 0, ReasonDownloadFailed, "redirects more than 5 times"},
		"redirect away":  {base + "/elsewhat", 0, ReasonUnsupported, "not by \"file\""},
		"nobody listens": {"http://127.0.0.1:1/disk", 0, ReasonDownloadFailed, "refused"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := fetch(t, test.url, test.maxBytes, quick)
			expectReason(t, err, test.reason, "spec.image.url", test.words)
		})
	}

	t.Run("query stays secret", func(t *testing.T) {
		for _, place := range []string{base + "/missing", base + "/stalled", base + "/cut", base + "/loop", "http://127.0.0.1:1/refused"} {
			_, err := fetch(t, strings.Replace(place, "http://", "http://user:hunter2@", 1)+"?token=hunter2", 0, quick)
			if err == nil || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%s: got error %v", place, err)
			}
		}
	})
}

func TestDownloadEndsWithItsContext(t *testing.T) {
	base := serve(t, map[string]http.HandlerFunc{"stalled": stalled(make([]byte, 1<<16))})
	ctx, cancel := context.WithCancel(t.Context())
	location, _ := url.Parse(base + "/stalled")
	d, err := openURL(ctx, location, local, defaultPatience)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	time.AfterFunc(50*time.Millisecond, cancel)
	if _, err := io.ReadAll(d); !errors.Is(err, context.Canceled) {
		t.Errorf("got error %v, want the context's", err)
	}
}

func TestSourceIsValidated(t *testing.T) {
	good := strings.Repeat("a", 64)
	for name, source := range map[string]Source{
		"no digest":         {URL: "https://example.com/disk"},
		"upper-case digest": {URL: "https://example.com/disk", SHA256: strings.ToUpper(good)},
		"path in digest":    {URL: "https://example.com/disk", SHA256: "../" + good[3:]},
		"file":              {URL: "file:///etc/passwd", SHA256: good},
		"no scheme":         {URL: "example.com/disk", SHA256: good},
		"no host":           {URL: "https:///disk", SHA256: good},
		"no URL":            {SHA256: good},
	} {
		_, err := source.validate()
		if err == nil {
			t.Errorf("%s: accepted", name)
			continue
		}
		expectReason(t, err, ReasonUnsupported, "spec.image.")
	}
}

func TestParseChecksum(t *testing.T) {
	digest := strings.Repeat("0123456789abcdef", 4)
	for _, checksum := range []string{"sha256:" + digest, "SHA256:" + strings.ToUpper(digest)} {
		if got, err := ParseChecksum(checksum); err != nil || got != digest {
			t.Errorf("%s: got %q, %v", checksum, got, err)
		}
	}
	for _, checksum := range []string{"", digest, "sha256:" + digest[1:], "sha256:" + digest + "0", "sha512:" + digest, "sha256:../" + digest[3:]} {
		if got, err := ParseChecksum(checksum); err == nil || !strings.Contains(err.Error(), "spec.image.checksum") {
			t.Errorf("%s: got %q, %v", checksum, got, err)
		}
	}
}
