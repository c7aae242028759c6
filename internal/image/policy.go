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
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"syscall"
)

// What an unset limit of a Policy means.
const (
	DefaultMaxFileBytes = 64 << 30
	DefaultMaxDiskBytes = 2 << 40
)

// Policy says from where images may come and how large they may be. It is the administrator's decision and not that of
// those who make machines. The zero value takes images by https from public addresses, of the default sizes.
type Policy struct {
	// AllowHTTP allows http beside https. A URL by https never leads to one by http.
	AllowHTTP bool
	// AllowedNetworks may be downloaded from although they are private, loopback, link-local or otherwise special.
	AllowedNetworks []netip.Prefix
	// MaxFileBytes limits an image file, both as it is downloaded and decompressed. DefaultMaxFileBytes when zero.
	MaxFileBytes int64
	// MaxDiskBytes limits the disk in the image, as a guest sees it. DefaultMaxDiskBytes when zero.
	MaxDiskBytes int64
}

func (p Policy) maxFile() int64 {
	if p.MaxFileBytes > 0 {
		return p.MaxFileBytes
	}
	return DefaultMaxFileBytes
}

func (p Policy) maxDisk() int64 {
	if p.MaxDiskBytes > 0 {
		return p.MaxDiskBytes
	}
	return DefaultMaxDiskBytes
}

// CheckURL refuses a URL from which no image may come, as far as can be told without looking up its host. The error is an
// *Error with a message for people that doesn't name the field.
func (p Policy) CheckURL(rawURL string) error {
	location, err := url.Parse(rawURL)
	if err != nil {
		return fail(ReasonUnsupported, "it must be an https URL")
	}
	if err := p.checkScheme(location.Scheme); err != nil {
		return err
	}
	if location.Host == "" {
		return fail(ReasonUnsupported, "it must be an https URL with a host")
	}
	if addr, err := netip.ParseAddr(location.Hostname()); err == nil {
		return p.checkAddr(addr)
	}
	return nil
}

func (p Policy) checkScheme(scheme string) error {
	switch {
	case scheme == "https", scheme == "http" && p.AllowHTTP:
		return nil
	case scheme == "http":
		return fail(ReasonForbidden, "images come by https only: serve it by https, or have the administrator start the manager with --image-allow-http")
	}
	return fail(ReasonUnsupported, "images come by https only, not by %q", scheme)
}

// checkAddr refuses an address that isn't public, unless its network is allowed. The message doesn't name the address,
// which would tell whoever makes machines how names resolve inside.
func (p Policy) checkAddr(addr netip.Addr) error {
	addr = addr.Unmap().WithZone("")
	if p.allows(addr) {
		return nil
	}
	if kind := kindOf(addr); kind != "" {
		return fail(ReasonForbidden, "it leads to a %s address, from where no images are taken: publish the image at a public address, "+
			"or have the administrator name the network in the manager's --image-allowed-cidrs", kind)
	}
	if inner := embedded(addr); inner.IsValid() {
		return p.checkAddr(inner)
	}
	return nil
}

func (p Policy) allows(addr netip.Addr) bool {
	for _, network := range p.AllowedNetworks {
		if network.Contains(addr) {
			return true
		}
	}
	return false
}

// guard is a net.Dialer's Control: it sees the address that a name resolved to, on each connection and thus after each
// redirect, when it can't change any more.
func (p Policy) guard(_, address string, _ syscall.RawConn) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("reading the address %s: %w", address, err)
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return fmt.Errorf("reading the address %s: %w", address, err)
	}
	return p.checkAddr(addr)
}

// special are the networks that aren't the public internet.
var special = []struct {
	network netip.Prefix
	kind    string
}{
	{netip.MustParsePrefix("0.0.0.0/8"), "unspecified"},
	{netip.MustParsePrefix("10.0.0.0/8"), "private"},
	{netip.MustParsePrefix("100.64.0.0/10"), "private"},
	{netip.MustParsePrefix("127.0.0.0/8"), "loopback"},
	{netip.MustParsePrefix("169.254.0.0/16"), "link-local"},
	{netip.MustParsePrefix("172.16.0.0/12"), "private"},
	{netip.MustParsePrefix("192.0.0.0/24"), "reserved"},
	{netip.MustParsePrefix("192.168.0.0/16"), "private"},
	{netip.MustParsePrefix("198.18.0.0/15"), "private"},
	{netip.MustParsePrefix("224.0.0.0/4"), "multicast"},
	{netip.MustParsePrefix("240.0.0.0/4"), "reserved"},
	{netip.MustParsePrefix("::/128"), "unspecified"},
	{netip.MustParsePrefix("::1/128"), "loopback"},
	{netip.MustParsePrefix("64:ff9b:1::/48"), "private"},
	{netip.MustParsePrefix("100::/64"), "reserved"},
	{netip.MustParsePrefix("2001::/32"), "reserved"}, // Teredo has an IPv4 address in it, and a port.
	{netip.MustParsePrefix("fc00::/7"), "private"},
	{netip.MustParsePrefix("fe80::/10"), "link-local"},
	{netip.MustParsePrefix("fec0::/10"), "private"},
	{netip.MustParsePrefix("ff00::/8"), "multicast"},
}

// kindOf says what an address is that isn't public; empty for a public one.
func kindOf(addr netip.Addr) string {
	for _, s := range special {
		if s.network.Contains(addr) {
			return s.kind
		}
	}
	return ""
}

// translated are the networks of IPv6 with an IPv4 address in them, to which a gateway or the kernel may translate, by
// where it stands.
var translated = []struct {
	network netip.Prefix
	offset  int
}{
	{netip.MustParsePrefix("::/96"), 12},
	{netip.MustParsePrefix("64:ff9b::/96"), 12},
	{netip.MustParsePrefix("2002::/16"), 2},
}

// embedded is the IPv4 address in an IPv6 address; the zero Addr when there is none.
func embedded(addr netip.Addr) netip.Addr {
	for _, t := range translated {
		if t.network.Contains(addr) {
			bytes := addr.As16()
			return netip.AddrFrom4([4]byte(bytes[t.offset : t.offset+4]))
		}
	}
	return netip.Addr{}
}
