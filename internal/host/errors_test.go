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
	"errors"
	"fmt"
	"testing"

	"libvirt.org/go/libvirt"
)

func TestClassify(t *testing.T) {
	for _, tt := range []struct {
		code   libvirt.ErrorNumber
		domain libvirt.ErrorDomain
		want   error
	}{
		{libvirt.ERR_NO_DOMAIN, libvirt.FROM_QEMU, ErrNotFound},
		{libvirt.ERR_NO_STORAGE_VOL, libvirt.FROM_STORAGE, ErrNotFound},
		{libvirt.ERR_NO_STORAGE_POOL, libvirt.FROM_STORAGE, ErrNotFound},
		{libvirt.ERR_NO_NETWORK, libvirt.FROM_NETWORK, ErrNotFound},
		{libvirt.ERR_STORAGE_VOL_EXIST, libvirt.FROM_STORAGE, ErrExists},
		{libvirt.ERR_AUTH_FAILED, libvirt.FROM_RPC, ErrAuth},
		{libvirt.ERR_OPERATION_TIMEOUT, libvirt.FROM_QEMU, ErrTimeout},
		{libvirt.ERR_NO_SUPPORT, libvirt.FROM_TEST, ErrUnsupported},
		{libvirt.ERR_XML_ERROR, libvirt.FROM_NONE, ErrInvalid},
		{libvirt.ERR_RESOURCE_BUSY, libvirt.FROM_QEMU, ErrBusy},
		{libvirt.ERR_INTERNAL_ERROR, libvirt.FROM_RPC, ErrUnreachable},
		{libvirt.ERR_SYSTEM_ERROR, libvirt.FROM_RPC, ErrUnreachable},
		{libvirt.ERR_INTERNAL_ERROR, libvirt.FROM_QEMU, nil},
		{libvirt.ERR_OPERATION_INVALID, libvirt.FROM_QEMU, nil},
	} {
		cause := libvirt.Error{Code: tt.code, Domain: tt.domain, Message: "what libvirt said"}
		err := fmt.Errorf("doing something: %w", classify(cause))
		for _, kind := range []error{ErrNotFound, ErrExists, ErrAuth, ErrTimeout, ErrUnsupported, ErrInvalid, ErrBusy, ErrUnreachable, ErrNoSpace, ErrInactive} {
			if is := errors.Is(err, kind); is != (kind == tt.want) {
				t.Errorf("code %d of domain %d: errors.Is(%v) is %t, want %v", tt.code, tt.domain, kind, is, tt.want)
			}
		}
		if gone := tt.code == libvirt.ERR_NO_STORAGE_POOL; errors.Is(err, ErrNoPool) != gone {
			t.Errorf("code %d: errors.Is(%v) is %t", tt.code, ErrNoPool, !gone)
		}
		if err.Error() != "doing something: what libvirt said" {
			t.Errorf("the text is %q", err)
		}
		if code(err) != tt.code || !errors.Is(err, tt.code) {
			t.Errorf("the code %d got lost", tt.code)
		}
	}
	plain := errors.New("not libvirt's")
	if classify(plain) != plain || classify(nil) != nil {
		t.Error("an error that isn't libvirt's was changed")
	}
}
