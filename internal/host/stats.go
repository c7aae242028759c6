//go:build !libvirt_dlopen

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

/*
#cgo pkg-config: libvirt
#include <libvirt/libvirt.h>
#include <libvirt/virterror.h>

// An error belongs to the thread of the call that failed, so it is copied before Go may change threads.
static int allStats(virConnectPtr conn, unsigned int types, unsigned int flags, virDomainStatsRecordPtr **records, virErrorPtr err)
{
	int count = virConnectGetAllDomainStats(conn, types, records, flags);
	if (count < 0)
		virCopyLastError(err);
	return count;
}

// What a record lacks stays as it is.
static void readRecord(virDomainStatsRecordPtr record, int *state, int *reason, unsigned long long *memoryKiB, unsigned int *vcpus)
{
	virTypedParamsGetInt(record->params, record->nparams, "state.state", state);
	virTypedParamsGetInt(record->params, record->nparams, "state.reason", reason);
	virTypedParamsGetULLong(record->params, record->nparams, "balloon.maximum", memoryKiB);
	virTypedParamsGetUInt(record->params, record->nparams, "vcpu.current", vcpus);
}
*/
import "C"

import (
	"context"
	"unsafe"

	"libvirt.org/go/libvirt"
)

// stats asks for the states (DOMAIN_STATS_STATE) or the sizes (DOMAIN_STATS_BALLOON, DOMAIN_STATS_VCPU) of all domains that flags select,
// in one call.
func (s *session) stats(ctx context.Context, types libvirt.DomainStatsTypes, flags libvirt.ConnectGetAllDomainStatsFlags) ([]entry, error) {
	return call(ctx, s.control, "connectGetAllDomainStats", func() ([]entry, error) {
		return allStats(s.control.libvirt, types, flags)
	})
}

// allStats does what the binding's function of the like name does, but for a further call for each domain, which that
// makes to learn how many processors the domain has.
func allStats(conn *libvirt.Connect, types libvirt.DomainStatsTypes, flags libvirt.ConnectGetAllDomainStatsFlags) ([]entry, error) {
	raw, err := conn.RawPtr()
	if err != nil {
		return nil, err
	}
	defer func() { _, _ = libvirt.CloseRawPtr(raw) }()
	var (
		records *C.virDomainStatsRecordPtr
		failure C.virError
	)
	count := C.allStats(C.virConnectPtr(unsafe.Pointer(raw)), C.uint(types), C.uint(flags), &records, &failure)
	if count < 0 {
		defer C.virResetError(&failure)
		return nil, libvirt.Error{
			Code:    libvirt.ErrorNumber(failure.code),
			Domain:  libvirt.ErrorDomain(failure.domain),
			Message: C.GoString(failure.message),
			Level:   libvirt.ErrorLevel(failure.level),
		}
	}
	defer C.virDomainStatsRecordListFree(records)
	entries := make([]entry, 0, count)
	for _, record := range unsafe.Slice(records, count) {
		var (
			uuid          [C.VIR_UUID_STRING_BUFLEN]C.char
			state, reason C.int
			memoryKiB     C.ulonglong
			vcpus         C.uint
		)
		C.virDomainGetUUIDString(record.dom, &uuid[0])
		C.readRecord(record, &state, &reason, &memoryKiB, &vcpus)
		e := entry{Domain: Domain{
			UUID:           C.GoString(&uuid[0]),
			Name:           C.GoString(C.virDomainGetName(record.dom)),
			MaxMemoryBytes: int64(memoryKiB) << 10,
			VCPUs:          int(vcpus),
		}}
		e.State, e.Reason = stateOf(libvirt.DomainState(state), int(reason))
		entries = append(entries, e)
	}
	return entries, nil
}
