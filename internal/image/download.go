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
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"
)

// patience is how long the parts of an import may take without getting further.
type patience struct {
	// connect bounds the dial and the TLS handshake, answer the time to the response's header.
	connect, answer time.Duration
	// stall is the longest silence of the server, storage the longest of the host.
	stall, storage time.Duration
	// call bounds a single call to the host, settle the time until libvirt has noticed an upload.
	call, settle time.Duration
}

var defaultPatience = patience{
	connect: 10 * time.Second,
	answer:  30 * time.Second,
	stall:   60 * time.Second,
	storage: 5 * time.Minute,
	call:    time.Minute,
	settle:  2 * time.Minute,
}

const maxRedirects = 5

// download is an image file on its way from the server. Reading and closing it is up to one goroutine.
type download struct {
	// place is the URL without what may be secret in it.
	place  string
	length int64
	read   int64

	body   io.ReadCloser
	ctx    context.Context //nolint:containedctx // The life of the request, whose end a read must explain.
	cancel context.CancelCauseFunc
	stall  time.Duration
	alarm  *time.Timer
	close  func()
}

// openURL asks for the file. It reads nothing of it yet, but knows its length.
func openURL(ctx context.Context, location *url.URL, policy Policy, p patience) (*download, error) {
	place := (&url.URL{Scheme: location.Scheme, Host: location.Host, Path: location.Path}).String()
	if err := policy.CheckURL(location.String()); err != nil {
		return nil, at(place, err)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	transport := newRoutes(policy, p)
	client := &http.Client{
		Transport: transport,
		CheckRedirect: func(request *http.Request, via []*http.Request) error {
			request.Header.Del("Referer") // which has the query, and thus perhaps a token
			return checkRedirect(policy, request.URL, via)
		},
	}
	d := &download{place: place, ctx: ctx, cancel: cancel, stall: p.stall}
	d.close = func() {
		cancel(nil)
		transport.CloseIdleConnections()
	}

	request, err := http.NewRequestWithContext(ctx, http.MethodGet, location.String(), nil)
	if err != nil {
		d.close()
		return nil, fail(ReasonUnsupported, "spec.image.url must be an https URL")
	}
	request.Header.Set("User-Agent", "cluster-api-provider-libvirt")
	response, err := client.Do(request)
	if err != nil {
		err = d.failed(err)
		d.close()
		return nil, err
	}
	d.body = response.Body
	d.length = response.ContentLength
	if err := d.check(response, policy.maxFile()); err != nil {
		d.Close()
		return nil, err
	}
	d.alarm = time.AfterFunc(p.stall, func() { cancel(errStalled) })
	d.alarm.Stop()
	return d, nil
}

var errStalled = errors.New("the server has stopped sending")

func (d *download) check(response *http.Response, maxBytes int64) error {
	switch {
	case response.StatusCode == http.StatusNotFound || response.StatusCode == http.StatusGone:
		return fail(ReasonNotFound, "there is no image at spec.image.url %s (HTTP status %s): correct the URL or publish the image", d.place, response.Status)
	case response.StatusCode != http.StatusOK:
		return fail(ReasonDownloadFailed, "the server of spec.image.url %s answers with HTTP status %s: make the image readable without credentials", d.place, response.Status)
	case response.ContentLength < 0:
		return fail(ReasonDownloadFailed, "the server of spec.image.url %s does not tell the length of the file (Content-Length): serve the image as a plain file", d.place)
	case response.ContentLength == 0:
		return fail(ReasonTruncated, "the file at spec.image.url %s is empty: publish the image again", d.place)
	case response.ContentLength > maxBytes:
		return fail(ReasonTooLarge, "the file at spec.image.url %s has %d bytes, more than the %d allowed: publish a smaller image, or have the administrator raise the manager's --image-max-size", d.place, response.ContentLength, maxBytes)
	}
	return nil
}

// Read reads on. Its errors are of type Error, but for io.EOF at the end of the whole file.
func (d *download) Read(p []byte) (int, error) {
	d.alarm.Reset(d.stall)
	n, err := d.body.Read(p)
	d.alarm.Stop()
	d.read += int64(n)
	switch {
	case err == nil:
		return n, nil
	case errors.Is(err, io.EOF) && d.read == d.length:
		return n, io.EOF
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return n, fail(ReasonTruncated, "the download of spec.image.url %s ended after %d of %d bytes: it is tried again, look at the server if this repeats", d.place, d.read, d.length)
	}
	return n, d.failed(err)
}

// failed explains why the server could not be asked or stopped sending.
func (d *download) failed(err error) error {
	if errors.Is(context.Cause(d.ctx), errStalled) {
		return fail(ReasonDownloadFailed, "the server of spec.image.url %s has sent nothing for %s after %d of %d bytes: it is tried again, look at the server if this repeats", d.place, d.stall, d.read, d.length)
	}
	if cause := context.Cause(d.ctx); cause != nil {
		return fmt.Errorf("downloading %s: %w", d.place, cause)
	}
	var refused *Error
	if errors.As(err, &refused) {
		return at(d.place, refused)
	}
	var wrapped *url.Error // repeats the URL, with its query
	for errors.As(err, &wrapped) {
		err = wrapped.Err
	}
	return failWith(err, ReasonDownloadFailed, "spec.image.url %s cannot be downloaded, make it reachable from the controller", d.place)
}

// at adds to a refusal of the policy which URL it is about.
func at(place string, err error) error {
	var refused *Error
	if !errors.As(err, &refused) {
		return err
	}
	return &Error{Reason: refused.Reason, Message: "spec.image.url " + place + " can't be used: " + refused.Message, Err: refused.Err}
}

// Close ends the transfer, wherever it is.
func (d *download) Close() {
	d.close()
	_ = d.body.Close()
}
