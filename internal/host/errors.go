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

	"libvirt.org/go/libvirt"
)

// The kinds of error a caller can act on. Test for them with errors.Is; the text of the error stays libvirt's own.
var (
	// ErrNotFound means libvirt confirmed that the domain, volume, pool or network does not exist.
	ErrNotFound = errors.New("not found")
	// ErrNoPool means that the storage pool itself does not exist, so that nothing is known of what was in it. It is an
	// ErrNotFound.
	ErrNoPool = fmt.Errorf("storage pool %w", ErrNotFound)
	// ErrExists means another object already has that name.
	ErrExists = errors.New("already exists")
	// ErrOtherHost means that another host answers than the one that is expected: see Identity.
	ErrOtherHost = errors.New("another host answers")
	// ErrUnreachable means there is no working connection to the host. The outcome of a call that was under way is unknown.
	ErrUnreachable = errors.New("host unreachable")
	// ErrTimeout means the caller's deadline passed, or the host gave up waiting. The outcome of the call is unknown.
	ErrTimeout = errors.New("timed out")
	// ErrAuth means the host refused the credentials or the operation.
	ErrAuth = errors.New("access denied")
	// ErrNoSpace means the storage pool has too little space left for the volume.
	ErrNoSpace = errors.New("no space left in the storage pool")
	// ErrInvalid means that the request itself is wrong and will fail again unchanged.
	ErrInvalid = errors.New("invalid")
	// ErrCredentials means that the credentials lack what the URI needs. It is an ErrInvalid.
	ErrCredentials = fmt.Errorf("%w credentials", ErrInvalid)
	// ErrUnsupported means that this host or driver cannot do it.
	ErrUnsupported = errors.New("not supported by the host")
	// ErrInactive means that the pool, network or domain exists but is not running.
	ErrInactive = errors.New("not active")
	// ErrBusy means that the object is locked by another operation; trying again later may work.
	ErrBusy = errors.New("busy")
	// ErrHostBusy means that the call was not made, because the host doesn't answer for the moment, or is slow and has
	// enough callers waiting. It is an ErrBusy. The connection stands.
	ErrHostBusy = fmt.Errorf("host %w", ErrBusy)
)

// Error is an error that libvirt reported, with its kind.
type Error struct {
	kind  error
	cause libvirt.Error
}

// Error returns libvirt's message.
func (e *Error) Error() string { return e.cause.Message }

// Unwrap gives errors.Is and errors.As the kind and libvirt's own error.
func (e *Error) Unwrap() []error {
	if e.kind == nil {
		return []error{e.cause}
	}
	return []error{e.kind, e.cause}
}

// classify gives an error of the binding its kind; other errors are returned as they are.
func classify(err error) error {
	var cause libvirt.Error // the binding returns it by value
	if !errors.As(err, &cause) {
		return err
	}
	var known *Error
	if errors.As(err, &known) {
		return err
	}
	return &Error{kind: kindOf(cause), cause: cause}
}

func kindOf(err libvirt.Error) error {
	switch err.Code {
	case libvirt.ERR_NO_DOMAIN, libvirt.ERR_NO_NETWORK, libvirt.ERR_NO_STORAGE_VOL:
		return ErrNotFound
	case libvirt.ERR_NO_STORAGE_POOL:
		return ErrNoPool
	case libvirt.ERR_STORAGE_VOL_EXIST, libvirt.ERR_DOM_EXIST, libvirt.ERR_NETWORK_EXIST:
		return ErrExists
	case libvirt.ERR_AUTH_FAILED, libvirt.ERR_AUTH_CANCELLED, libvirt.ERR_AUTH_UNAVAILABLE, libvirt.ERR_ACCESS_DENIED, libvirt.ERR_OPERATION_DENIED:
		return ErrAuth
	case libvirt.ERR_OPERATION_TIMEOUT, libvirt.ERR_AGENT_UNRESPONSIVE, libvirt.ERR_AGENT_COMMAND_TIMEOUT:
		return ErrTimeout
	case libvirt.ERR_NO_SUPPORT, libvirt.ERR_CONFIG_UNSUPPORTED, libvirt.ERR_ARGUMENT_UNSUPPORTED, libvirt.ERR_OPERATION_UNSUPPORTED:
		return ErrUnsupported
	case libvirt.ERR_XML_ERROR, libvirt.ERR_XML_DETAIL, libvirt.ERR_XML_INVALID_SCHEMA, libvirt.ERR_INVALID_ARG, libvirt.ERR_INVALID_MAC, libvirt.ERR_PARSE_FAILED:
		return ErrInvalid
	case libvirt.ERR_RESOURCE_BUSY:
		return ErrBusy
	case libvirt.ERR_NO_CONNECT, libvirt.ERR_INVALID_CONN, libvirt.ERR_RPC, libvirt.ERR_GNUTLS_ERROR, libvirt.ERR_SSH, libvirt.ERR_LIBSSH:
		return ErrUnreachable
	case libvirt.ERR_INTERNAL_ERROR, libvirt.ERR_SYSTEM_ERROR:
		// A socket that breaks under a call has no code of its own, only the domain of the RPC layer.
		if err.Domain == libvirt.FROM_RPC || err.Domain == libvirt.FROM_REMOTE {
			return ErrUnreachable
		}
	}
	return nil
}

// code returns libvirt's error number, or ERR_OK when the error is not libvirt's.
func code(err error) libvirt.ErrorNumber {
	var cause libvirt.Error
	if errors.As(err, &cause) {
		return cause.Code
	}
	return libvirt.ERR_OK
}

// released explains why a caller was let go before its call came back.
func released(ctx context.Context, doing string) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("%s: %w: %w", doing, ErrTimeout, ctx.Err())
	}
	return fmt.Errorf("%s: %w", doing, ctx.Err())
}
