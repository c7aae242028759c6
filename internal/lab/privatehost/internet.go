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
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"strconv"
	"time"
)

// The two ends of the cable between a host and its internet. The router has one
// more for each further host: isp1 and so on.
const (
	internetPort = "wan0"
	routerPort   = "isp0"
)

// InternetOptions say what is beyond a host.
type InternetOptions struct {
	// Router is the address of the host's default route, with the prefix of
	// the network that the host's public addresses are in.
	Router netip.Prefix

	// Public are the addresses that the host gets in that network.
	Public []netip.Addr

	// Clients are the addresses of others, beyond the router.
	Clients []netip.Addr
}

// Internet is a network namespace that plays all that is beyond a host: the
// router that leads to it, clients anywhere, and what lies between hosts that
// are plugged into it. Nothing gets further than it. It is gone with the
// process that made it, or when it is closed.
type Internet struct {
	host   *Host
	router netip.Prefix
	holder *exec.Cmd
	hold   io.Closer

	// ports are the router's ends of the cables, by the directory of the host.
	ports map[string]string
}

// ConnectInternet plugs a running host that has no internet yet into a new one.
func ConnectInternet(ctx context.Context, h *Host, opts InternetOptions) (*Internet, error) {
	if !h.Running() {
		return nil, fmt.Errorf("connecting host %s to an internet: %w", h.Name(), ErrNotRunning)
	}
	i := &Internet{host: h, router: opts.Router, ports: map[string]string{}}
	if err := i.startHolder(); err != nil {
		return nil, fmt.Errorf("making an internet for host %s: %w", h.Name(), err)
	}
	if err := i.prepare(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("making an internet for host %s: %w", h.Name(), err), i.Close())
	}
	if err := i.PlugIn(ctx, h, opts); err != nil {
		return nil, errors.Join(err, i.Close())
	}
	return i, nil
}

// PlugIn plugs a running host into the internet, behind a router of its own
// that must be in no other network of the internet. A host that was plugged in
// before, and has started anew, is plugged in again by the same means.
func (i *Internet) PlugIn(ctx context.Context, h *Host, opts InternetOptions) error {
	if !h.Running() {
		return fmt.Errorf("connecting host %s to an internet: %w", h.Name(), ErrNotRunning)
	}
	if err := i.plugIn(ctx, h, opts); err != nil {
		return fmt.Errorf("connecting host %s to its internet: %w", h.Name(), err)
	}
	return nil
}

// Cut keeps the internet from passing anything on between hosts, without a word
// to anybody.
func (i *Internet) Cut(ctx context.Context) error { return i.setForwarding(ctx, "0") }

// Mend undoes a Cut.
func (i *Internet) Mend(ctx context.Context) error { return i.setForwarding(ctx, "1") }

func (i *Internet) setForwarding(ctx context.Context, to string) error {
	if _, err := run(i.Command(ctx, "sh", "-c", "echo "+to+" >/proc/sys/net/ipv4/ip_forward")); err != nil {
		return fmt.Errorf("setting what the internet of host %s passes on: %w", i.host.Name(), err)
	}
	return nil
}

// unplugTimeout bounds the removal of the cables.
const unplugTimeout = 10 * time.Second

// startHolder starts the process that keeps the namespace. It reads until
// nobody can write any more, which is when this process ends, however it does.
func (i *Internet) startHolder() error {
	i.holder = exec.Command("unshare", "--net", "sh", "-c", "echo ready; exec cat")
	hold, err := i.holder.StdinPipe()
	if err != nil {
		return err
	}
	i.hold = hold
	said, err := i.holder.StdoutPipe()
	if err != nil {
		return err
	}
	if err := i.holder.Start(); err != nil {
		return err
	}
	if _, err := bufio.NewReader(said).ReadString('\n'); err != nil {
		return errors.Join(err, i.Close())
	}
	return nil
}

// prepare makes the namespace a router.
func (i *Internet) prepare(ctx context.Context) error {
	for _, command := range []*exec.Cmd{
		i.ip(ctx, "link", "set", "lo", "up"),
		// Whoever asks for an address that isn't there is told at once.
		i.ip(ctx, "route", "add", "unreachable", "default"),
	} {
		if _, err := run(command); err != nil {
			return err
		}
	}
	return i.Mend(ctx)
}

func (i *Internet) plugIn(ctx context.Context, h *Host, opts InternetOptions) error {
	port, again := i.ports[h.dir]
	if again {
		// What is left of it the kernel may still be about to remove.
		_ = i.ip(ctx, "link", "delete", port).Run()
	} else {
		port = routerPort
		if len(i.ports) > 0 {
			port = fmt.Sprintf("isp%d", len(i.ports))
		}
		i.ports[h.dir] = port
	}
	pid, bits := strconv.Itoa(i.holder.Process.Pid), opts.Router.Bits()
	commands := []*exec.Cmd{
		h.ip(ctx, "link", "add", internetPort, "type", "veth", "peer", "name", port, "netns", pid),
		i.ip(ctx, "link", "set", port, "up"),
		i.ip(ctx, "addr", "add", opts.Router.String(), "dev", port),
		h.ip(ctx, "link", "set", internetPort, "up"),
	}
	for _, public := range opts.Public {
		commands = append(commands, h.ip(ctx, "addr", "add", netip.PrefixFrom(public, bits).String(), "dev", internetPort))
	}
	for _, client := range opts.Clients {
		commands = append(commands, i.ip(ctx, "addr", "add", netip.PrefixFrom(client, client.BitLen()).String(), "dev", port))
	}
	commands = append(commands, h.ip(ctx, "route", "add", "default", "via", opts.Router.Addr().String()))
	for _, command := range commands {
		if _, err := run(command); err != nil {
			return err
		}
	}
	return nil
}

// RouteToHost leads packets for a network to the host, as a neighbour in the
// same data centre could.
func (i *Internet) RouteToHost(ctx context.Context, network netip.Prefix, public netip.Addr) error {
	if _, err := run(i.ip(ctx, "route", "replace", network.String(), "via", public.String())); err != nil {
		return fmt.Errorf("leading %s to host %s: %w", network, i.host.Name(), err)
	}
	return nil
}

// SpeakAs gives programs that don't choose an address of their own one of the
// clients'.
func (i *Internet) SpeakAs(ctx context.Context, client netip.Addr) error {
	if _, err := run(i.ip(ctx, "route", "replace", i.router.Masked().String(), "dev", routerPort, "src", client.String())); err != nil {
		return fmt.Errorf("speaking as %s: %w", client, err)
	}
	return nil
}

// Netns is the path of the internet's network namespace.
func (i *Internet) Netns() string { return procFile(i.holder.Process.Pid, "ns/net") }

// Command returns a command that runs in the internet and otherwise on the
// machine.
func (i *Internet) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "nsenter", append([]string{"--net=" + i.Netns(), "--", name}, args...)...)
}

// Dial connects to a TCP address as one of the clients.
func (i *Internet) Dial(ctx context.Context, client netip.Addr, target string) (net.Conn, error) {
	return dialIn(ctx, i.Netns(), netip.AddrPortFrom(client, 0), target)
}

// Close unplugs the internet from all hosts and ends it.
func (i *Internet) Close() error {
	// The kernel would remove the cables with the namespace, but takes its time
	// when many go at once. There is none when plugging in has failed, and
	// nobody to ask when the internet was killed.
	ctx, cancel := context.WithTimeout(context.Background(), unplugTimeout)
	defer cancel()
	for _, port := range i.ports {
		_ = i.ip(ctx, "link", "delete", port).Run()
	}
	err := i.hold.Close()
	// It may have been killed: it is gone all the same.
	var exit *exec.ExitError
	if waitErr := i.holder.Wait(); !errors.As(waitErr, &exit) {
		err = errors.Join(err, waitErr)
	}
	if err != nil {
		return fmt.Errorf("ending the internet of host %s: %w", i.host.Name(), err)
	}
	return nil
}

func (i *Internet) ip(ctx context.Context, args ...string) *exec.Cmd {
	return i.Command(ctx, "ip", args...)
}
