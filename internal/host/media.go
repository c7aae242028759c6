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
	"libvirt.org/go/libvirtxml"
)

// EditDomain changes the persistent definition of a domain: edit is given the one that stands and returns the one that
// shall. A domain that runs goes on as it is until it is started anew. ErrNotFound: there is no such domain.
func (h *Host) EditDomain(ctx context.Context, uuid string, edit func(definition string) (string, error)) error {
	s, err := h.current()
	if err != nil {
		return err
	}
	// Without what is secret in it a definition isn't the one that stands.
	before, err := onDomain(ctx, s, uuid, "domainGetXMLDesc", func(dom *libvirt.Domain) (string, error) {
		return dom.GetXMLDesc(libvirt.DOMAIN_XML_INACTIVE | libvirt.DOMAIN_XML_SECURE)
	})
	if err != nil {
		return fmt.Errorf("reading domain %s: %w", uuid, err)
	}
	after, err := edit(before)
	if err != nil {
		return fmt.Errorf("editing domain %s: %w", uuid, err)
	}
	if after == before {
		return nil
	}
	return h.DefineDomain(ctx, after)
}

// EjectMedia takes the medium out of a CD-ROM drive, from the domain that runs and from its definition. It asks the
// guest, and doesn't wait for its consent. An empty drive is fine. ErrNotFound: there is no such domain.
func (h *Host) EjectMedia(ctx context.Context, uuid, device, bus string) error {
	s, err := h.current()
	if err != nil {
		return err
	}
	if s.test { // which can't change a device
		return h.EditDomain(ctx, uuid, func(definition string) (string, error) { return emptied(definition, device) })
	}
	drive, err := (&libvirtxml.DomainDisk{
		Device:   "cdrom",
		Driver:   &libvirtxml.DomainDiskDriver{Name: "qemu", Type: "raw"},
		Source:   &libvirtxml.DomainDiskSource{File: &libvirtxml.DomainDiskSourceFile{}},
		Target:   &libvirtxml.DomainDiskTarget{Dev: device, Bus: bus},
		ReadOnly: &libvirtxml.DomainDiskReadOnly{},
	}).Marshal()
	if err != nil {
		return fmt.Errorf("rendering drive %s of domain %s: %w", device, uuid, err)
	}
	eject := func(where libvirt.DomainDeviceModifyFlags) error {
		return doOnDomain(ctx, s, uuid, "domainUpdateDeviceFlags", func(dom *libvirt.Domain) error {
			return dom.UpdateDeviceFlags(drive, where|libvirt.DOMAIN_DEVICE_MODIFY_CONFIG|libvirt.DOMAIN_DEVICE_MODIFY_FORCE)
		})
	}
	var live libvirt.DomainDeviceModifyFlags
	if known, ok := s.inventory.domain(uuid); ok && known.State != Shutoff && known.State != Crashed {
		live = libvirt.DOMAIN_DEVICE_MODIFY_LIVE
	}
	err = eject(live)
	if live != 0 && code(err) == libvirt.ERR_OPERATION_INVALID {
		if state, stateErr := s.check(ctx, uuid); stateErr == nil && (state == Shutoff || state == Crashed) {
			err = eject(0) // it stopped meanwhile
		}
	}
	if err != nil {
		return fmt.Errorf("ejecting drive %s of domain %s: %w", device, uuid, err)
	}
	return nil
}

// emptied is a definition whose drive has no medium.
func emptied(definition, device string) (string, error) {
	var dom libvirtxml.Domain
	if err := dom.Unmarshal(definition); err != nil {
		return "", err
	}
	if dom.Devices == nil {
		return "", errors.New("it has no devices")
	}
	for k := range dom.Devices.Disks {
		if disk := &dom.Devices.Disks[k]; disk.Target != nil && disk.Target.Dev == device {
			disk.Source, disk.BackingStore = nil, nil
		}
	}
	return dom.Marshal()
}
