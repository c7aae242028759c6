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

package privatehost

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"
)

// linkPrefix starts the name of every link from the machine to a host.
const linkPrefix = "capl-"

// linkSpace is where the links' addresses come from: the range for
// benchmarks, which is routed nowhere.
var linkSpace = netip.MustParsePrefix("198.18.0.0/15")

// linkName is the machine's end of the link to the host of a directory.
func linkName(dir string) string {
	sum := sha256.Sum256([]byte(dir))
	return fmt.Sprintf("%s%x", linkPrefix, sum[:4])
}

// pluggedIn says whether the host's link, and so its network, exists.
func (h *Host) pluggedIn() bool {
	alias, err := os.ReadFile("/sys/class/net/" + linkName(h.dir) + "/ifalias")
	return err == nil && strings.TrimSpace(string(alias)) == h.dir
}

// plugIn links the host to the machine by a pair of interfaces with a free
// /30. There is no default route: nothing gets further than the machine.
func (h *Host) plugIn(ctx context.Context) error {
	unlock, err := lockLinks()
	if err != nil {
		return err
	}
	defer unlock()

	out, err := run(exec.CommandContext(ctx, "ip", "-json", "-4", "route", "show", "table", "all"))
	if err != nil {
		return err
	}
	taken, err := parseRoutes(out)
	if err != nil {
		return err
	}
	prefix, err := pickLink(h.dir, taken)
	if err != nil {
		return err
	}
	h.state.MachineAddr = prefix.Addr().Next()
	h.state.Addr = h.state.MachineAddr.Next()

	link, holder := linkName(h.dir), fmt.Sprint(h.state.Holder)
	for _, cmd := range []*exec.Cmd{
		exec.CommandContext(ctx, "ip", "link", "add", link, "type", "veth", "peer", "name", "uplink", "netns", holder),
		exec.CommandContext(ctx, "ip", "link", "set", link, "alias", h.dir),
		exec.CommandContext(ctx, "ip", "addr", "add", h.state.MachineAddr.String()+"/30", "dev", link),
		exec.CommandContext(ctx, "ip", "link", "set", link, "up"),
		h.Inside(ctx, "ip", "addr", "add", h.state.Addr.String()+"/30", "dev", "uplink"),
		h.Inside(ctx, "ip", "link", "set", "uplink", "up"),
	} {
		if _, err := run(cmd); err != nil {
			return fmt.Errorf("linking the host to the machine: %w", err)
		}
	}
	return nil
}

// unplug removes the link at once; the kernel would do so a little after the
// last process.
func (h *Host) unplug(ctx context.Context) error {
	link := linkName(h.dir)
	_, err := run(exec.CommandContext(ctx, "ip", "link", "del", link))
	if _, gone := os.Stat("/sys/class/net/" + link); errors.Is(gone, os.ErrNotExist) {
		return nil
	}
	return err
}

// lockLinks keeps two starts from picking the same addresses. A directory
// that is always there is locked, so that no lock file stays behind.
func lockLinks() (unlock func(), err error) {
	dir, err := os.Open("/run")
	if err != nil {
		return nil, fmt.Errorf("locking the links: %w", err)
	}
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX); err != nil {
		dir.Close()
		return nil, fmt.Errorf("locking the links: %w", err)
	}
	return func() { dir.Close() }, nil
}

// parseRoutes returns the destinations of `ip -json route`, addresses of the
// machine itself included and the default route not.
func parseRoutes(out []byte) ([]netip.Prefix, error) {
	var routes []struct {
		Dst string `json:"dst"`
	}
	if err := json.Unmarshal(out, &routes); err != nil {
		return nil, fmt.Errorf("reading the routes: %w", err)
	}
	var prefixes []netip.Prefix
	for _, route := range routes {
		if prefix, err := netip.ParsePrefix(route.Dst); err == nil {
			prefixes = append(prefixes, prefix)
		} else if addr, err := netip.ParseAddr(route.Dst); err == nil {
			prefixes = append(prefixes, netip.PrefixFrom(addr, addr.BitLen()))
		}
	}
	return prefixes, nil
}

// pickLink returns a /30 that overlaps nothing taken. The search starts at a
// place of the directory's own, so a host tends to keep its addresses.
func pickLink(dir string, taken []netip.Prefix) (netip.Prefix, error) {
	const count = 1 << (30 - 15)
	sum := sha256.Sum256([]byte(dir))
	first := binary.BigEndian.Uint32(sum[:])
	base := linkSpace.Addr().As4()
search:
	for i := range uint32(count) {
		var addr [4]byte
		binary.BigEndian.PutUint32(addr[:], binary.BigEndian.Uint32(base[:])+(first+i)%count*4)
		prefix := netip.PrefixFrom(netip.AddrFrom4(addr), 30)
		for _, other := range taken {
			if other.Bits() > 0 && other.Overlaps(prefix) {
				continue search
			}
		}
		return prefix, nil
	}
	return netip.Prefix{}, fmt.Errorf("linking the host to the machine: no free /30 in %s", linkSpace)
}
