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

import "fmt"

// Reason is a class of failure in one word, fit for a condition.
type Reason string

// The reasons why there is no image.
const (
	// ReasonNotFound means that there is nothing at the URL.
	ReasonNotFound Reason = "NotFound"
	// ReasonForbidden means that the administrator doesn't let images come from there.
	ReasonForbidden Reason = "Forbidden"
	// ReasonDownloadFailed means that the server could not be asked, refused, or stopped sending.
	ReasonDownloadFailed Reason = "DownloadFailed"
	// ReasonTruncated means that the file, or its transfer, ends too early.
	ReasonTruncated Reason = "Truncated"
	// ReasonTooLarge means that the file is larger than allowed.
	ReasonTooLarge Reason = "TooLarge"
	// ReasonDigestMismatch means that the file is not the one that the checksum names.
	ReasonDigestMismatch Reason = "DigestMismatch"
	// ReasonUnsupported means that the file is not a disk image in a format that is served.
	ReasonUnsupported Reason = "Unsupported"
	// ReasonHostileImage means that the image would make the host read other files, or its header lies.
	ReasonHostileImage Reason = "HostileImage"
	// ReasonStorageFailed means that the host could not store the image.
	ReasonStorageFailed Reason = "StorageFailed"
)

// Error says why there is no image, and what to do about it.
type Error struct {
	Reason  Reason
	Message string
	// Err is the cause, if there is one.
	Err error
}

// Error returns the message and the cause.
func (e *Error) Error() string {
	if e.Err == nil {
		return e.Message
	}
	return e.Message + ": " + e.Err.Error()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

func fail(reason Reason, format string, args ...any) error {
	return &Error{Reason: reason, Message: fmt.Sprintf(format, args...)}
}

func failWith(cause error, reason Reason, format string, args ...any) error {
	return &Error{Reason: reason, Message: fmt.Sprintf(format, args...), Err: cause}
}
