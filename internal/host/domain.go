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
	"encoding/xml"
	"fmt"
	"slices"
	"strings"

	"libvirt.org/go/libvirt"
)

// onDomain makes one call on a domain.
func onDomain[T any](ctx context.Context, s *session, uuid, procedure string, f func(*libvirt.Domain) (T, error)) (T, error) {
	find := func(ctx context.Context) error {
		return do(ctx, s.control, "domainLookupByUUID", func() error {
			dom, err := s.control.libvirt.LookupDomainByUUIDString(uuid)
			if err != nil {
				return err
			}
			s.domains.put(uuid, dom)
			return dom.Free()
		})
	}
	return using(ctx, s.control, &s.domains, uuid, libvirt.ERR_NO_DOMAIN, find, procedure, f)
}

func doOnDomain(ctx context.Context, s *session, uuid, procedure string, f func(*libvirt.Domain) error) error {
	_, err := onDomain(ctx, s, uuid, procedure, func(dom *libvirt.Domain) (struct{}, error) { return struct{}{}, f(dom) })
	return err
}

// Domain returns what the inventory knows about a domain, without a call to the host.
// ErrNotFound: the host has no such domain.
func (h *Host) Domain(uuid string) (Domain, error) {
	s, err := h.current()
	if err != nil {
		return Domain{}, err
	}
	domain, ok := s.inventory.domain(uuid)
	if !ok {
		return Domain{}, fmt.Errorf("domain %s: %w", uuid, ErrNotFound)
	}
	return domain, nil
}

// Domains returns the inventory, ordered by name, without a call to the host. It is empty while the host is unreachable.
func (h *Host) Domains() []Domain {
	s, err := h.current()
	if err != nil {
		return nil
	}
	var domains []Domain
	for _, domain := range s.inventory.domains() {
		domains = append(domains, domain)
	}
	slices.SortFunc(domains, func(a, b Domain) int { return strings.Compare(a.Name, b.Name) })
	return domains
}

// DomainXML returns the domain's persistent definition.
func (h *Host) DomainXML(ctx context.Context, uuid string) (string, error) {
	s, err := h.current()
	if err != nil {
		return "", err
	}
	definition, err := onDomain(ctx, s, uuid, "domainGetXMLDesc", func(dom *libvirt.Domain) (string, error) {
		return dom.GetXMLDesc(libvirt.DOMAIN_XML_INACTIVE)
	})
	if err != nil {
		return "", fmt.Errorf("reading domain %s: %w", uuid, err)
	}
	return definition, nil
}

// domainHead is the part of a domain's XML that this package needs to know.
type domainHead struct {
	Name   string  `xml:"name"`
	UUID   string  `xml:"uuid"`
	Memory scaled  `xml:"memory"`
	Max    *scaled `xml:"maxMemory"`
	VCPUs  int     `xml:"vcpu"`
}

func (d domainHead) memoryBytes() int64 {
	if d.Max != nil {
		return max(d.Memory.bytes("KiB"), d.Max.bytes("KiB"))
	}
	return d.Memory.bytes("KiB")
}

// DefineDomain defines a domain persistently, or redefines the one with that UUID. The XML must have a UUID.
// ErrExists: another domain has that name.
func (h *Host) DefineDomain(ctx context.Context, definition string) error {
	s, err := h.current()
	if err != nil {
		return err
	}
	var head domainHead
	if err := xml.Unmarshal([]byte(definition), &head); err != nil {
		return fmt.Errorf("parsing the domain's XML: %w: %w", ErrInvalid, err)
	}
	if head.UUID == "" || head.Name == "" {
		return fmt.Errorf("%w: the domain's XML has no uuid or no name", ErrInvalid)
	}
	err = do(ctx, s.control, "domainDefineXML", func() error {
		// Not before: a call that isn't made would leave it announced.
		done, failed := s.inventory.define(head.UUID, head.Name, size{head.memoryBytes(), max(head.VCPUs, 1)})
		dom, err := s.control.libvirt.DomainDefineXML(definition)
		if err != nil {
			failed()
			return err
		}
		done()
		s.domains.put(head.UUID, dom)
		return dom.Free()
	})
	if code(err) == libvirt.ERR_OPERATION_FAILED {
		// libvirt has no code of its own for a name that is taken.
		if other, ok := s.inventory.named(head.Name); ok && other.UUID != head.UUID {
			err = fmt.Errorf("%w: %w", ErrExists, err)
		}
	}
	if err != nil {
		return fmt.Errorf("defining domain %s: %w", head.Name, err)
	}
	return nil
}

// StartDomain starts a domain; one that runs already is fine.
func (h *Host) StartDomain(ctx context.Context, uuid string) error {
	s, err := h.current()
	if err != nil {
		return err
	}
	started := s.inventory.expect(uuid, Running, "")
	// Create would look the domain up afterwards, in a second call.
	sure, err := onDomain(ctx, s, uuid, "domainCreateWithFlags", func(dom *libvirt.Domain) (bool, error) {
		if err := dom.CreateWithFlags(libvirt.DOMAIN_NONE); err != nil {
			return false, err
		}
		return started(), nil
	})
	if err == nil && !sure {
		_, _ = s.check(ctx, uuid) // the domain was started, whatever the answer
	}
	if maybeStateError(err) {
		if state, stateErr := s.check(ctx, uuid); stateErr == nil && state != Shutoff && state != Crashed {
			return nil
		}
	}
	if err != nil {
		return fmt.Errorf("starting domain %s: %w", uuid, err)
	}
	return nil
}

// ResumeDomain lets a paused domain go on; one that runs already is fine.
func (h *Host) ResumeDomain(ctx context.Context, uuid string) error {
	s, err := h.current()
	if err != nil {
		return err
	}
	err = doOnDomain(ctx, s, uuid, "domainResume", (*libvirt.Domain).Resume)
	if maybeStateError(err) {
		if state, stateErr := s.check(ctx, uuid); stateErr == nil && state == Running {
			return nil
		}
	}
	if err != nil {
		return fmt.Errorf("resuming domain %s: %w", uuid, err)
	}
	return nil
}

// SetAutostart has the domain started when the host boots.
func (h *Host) SetAutostart(ctx context.Context, uuid string) error {
	s, err := h.current()
	if err != nil {
		return err
	}
	err = doOnDomain(ctx, s, uuid, "domainSetAutostart", func(dom *libvirt.Domain) error { return dom.SetAutostart(true) })
	if err != nil {
		return fmt.Errorf("setting autostart of domain %s: %w", uuid, err)
	}
	return nil
}

// DestroyDomain pulls the plug of a domain; one that does not run is fine.
func (h *Host) DestroyDomain(ctx context.Context, uuid string) error {
	s, err := h.current()
	if err != nil {
		return err
	}
	destroyed := s.inventory.expect(uuid, Shutoff, ReasonDestroyed)
	sure, err := onDomain(ctx, s, uuid, "domainDestroy", func(dom *libvirt.Domain) (bool, error) {
		if err := dom.Destroy(); err != nil {
			return false, err
		}
		return destroyed(), nil
	})
	if err == nil && !sure {
		_, _ = s.check(ctx, uuid)
	}
	return s.unlessStopped(ctx, uuid, "destroying", err)
}

// ShutdownDomain asks the guest to shut down and does not wait for it; a domain that does not run is fine.
func (h *Host) ShutdownDomain(ctx context.Context, uuid string) error {
	s, err := h.current()
	if err != nil {
		return err
	}
	err = doOnDomain(ctx, s, uuid, "domainShutdown", (*libvirt.Domain).Shutdown)
	return s.unlessStopped(ctx, uuid, "shutting down", err)
}

// maybeStateError tells whether an error may just mean that the domain is in the wanted state already, which is then
// asked for. The test driver says so with an internal error.
func maybeStateError(err error) bool {
	c := code(err)
	return c == libvirt.ERR_OPERATION_INVALID || c == libvirt.ERR_INTERNAL_ERROR
}

// unlessStopped forgives an error when the domain turns out not to run.
func (s *session) unlessStopped(ctx context.Context, uuid, doing string, err error) error {
	if err == nil {
		return nil
	}
	if maybeStateError(err) {
		if state, stateErr := s.check(ctx, uuid); stateErr == nil && (state == Shutoff || state == Crashed) {
			return nil
		}
	}
	return fmt.Errorf("%s domain %s: %w", doing, uuid, err)
}

// UndefineDomain removes a domain's definition with everything libvirt keeps for it: NVRAM, TPM state, managed save,
// snapshot and checkpoint metadata. Its volumes stay. ErrNotFound: there is no such domain.
func (h *Host) UndefineDomain(ctx context.Context, uuid string) error {
	s, err := h.current()
	if err != nil {
		return err
	}
	err = doOnDomain(ctx, s, uuid, "domainUndefineFlags", func(dom *libvirt.Domain) error {
		err := dom.UndefineFlags(undefineFlags(s.test))
		if err == nil {
			s.inventory.remove(uuid)
		}
		return err
	})
	if err == nil {
		s.domains.drop(uuid)
	}
	if err != nil {
		return fmt.Errorf("undefining domain %s: %w", uuid, err)
	}
	return nil
}

// undefineFlags gives the flags that the driver knows. A real host takes those for NVRAM and TPM state whether or not the
// domain has any.
func undefineFlags(test bool) libvirt.DomainUndefineFlagsValues {
	flags := libvirt.DOMAIN_UNDEFINE_MANAGED_SAVE | libvirt.DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
	if test {
		return flags
	}
	return flags | libvirt.DOMAIN_UNDEFINE_CHECKPOINTS_METADATA | libvirt.DOMAIN_UNDEFINE_NVRAM | libvirt.DOMAIN_UNDEFINE_TPM
}
