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

package hostagent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/wgctrl"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/gateway"
)

const (
	// lookInterval is how often the interface is looked at: WireGuard has no event for a session or for a change of its peers.
	// A peer that goes over to another key can't reach this host until that is seen.
	lookInterval, lookIntervalRotating = time.Second, 100 * time.Millisecond
)

// linkAlias is how the interface is known to be ours.
const linkAlias = "cluster-api-host-agent"

// wire keeps the host's end of the links as it was last said to be. It does so by itself, so that neither a slow libvirt
// nor many rules keep a peer from going over to another key.
type wire struct {
	log   logr.Logger
	files keyFiles
	// changes tells that something is to be told, and again that it is time to look more often.
	changes, again chan struct{}

	mu sync.Mutex
	// known is set once wanted was said.
	known  bool
	wanted *link
	// user is WireGuard in this process, nil when it is the kernel's or there is none.
	user *userspace
	// saidUser is set once the log says that the kernel has no WireGuard.
	saidUser bool
	client   *wgctrl.Client
	heard    hearsay
	state    wireState
}

// wireState is what has become of the link.
type wireState struct {
	status *gateway.LinkStatus
	// failed is what went wrong, by the UUID of a network, and err is what concerns all of them.
	failed map[string]error
	err    error
}

// of is what went wrong for one network.
func (s wireState) of(uuid string) error { return errors.Join(s.err, s.failed[uuid]) }

func newWire(log logr.Logger, files keyFiles) *wire {
	return &wire{log: log, files: files, changes: make(chan struct{}, 1), again: make(chan struct{}, 1), heard: hearsay{}}
}

// want says what the link is to be, and makes it so.
func (w *wire) want(l *link) wireState {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.known, w.wanted = true, l
	w.state = w.ensure()
	if l != nil && l.rotating() {
		wake(w.again)
	}
	return w.state
}

// keep makes the link again what it is to be whenever something has happened to it, until ctx ends.
func (w *wire) keep(ctx context.Context) error {
	events, err := watch(ctx, w.log, linkEvents...)
	if err != nil {
		return err
	}
	go func() {
		for ctx.Err() == nil {
			timer := time.NewTimer(w.interval())
			select {
			case <-ctx.Done():
			case <-w.again:
				timer.Stop()
				continue
			case <-events:
				pause(ctx, settle)
			case <-timer.C:
			}
			timer.Stop()
			w.look()
		}
	}()
	return nil
}

func (w *wire) interval() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.wanted != nil && w.wanted.rotating() {
		return lookIntervalRotating
	}
	return lookInterval
}

func (w *wire) look() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.known || w.wanted == nil {
		return
	}
	before := w.state
	w.state = w.ensure()
	if before.said() == w.state.said() && reflect.DeepEqual(before.status, w.state.status) {
		return
	}
	wake(w.changes)
}

// wake says something to whom it wasn't yet said.
func wake(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// said is all that went wrong, as text.
func (s wireState) said() string {
	var said []string
	for uuid, err := range s.failed {
		said = append(said, fmt.Sprint(uuid, err))
	}
	slices.Sort(said)
	return fmt.Sprint(said, s.err)
}

// close ends WireGuard, if it is in this process.
func (w *wire) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.known = false
	w.forget()
}

// forget gives up what belongs to an interface that is gone or is to go.
func (w *wire) forget() {
	if w.user != nil {
		w.user.close()
	}
	if w.client != nil {
		_ = w.client.Close()
	}
	w.user, w.client, w.heard = nil, nil, hearsay{}
}

// ensure compares everything once and changes what differs.
func (w *wire) ensure() wireState {
	if w.wanted == nil {
		removed, err := w.remove()
		if removed {
			w.log.Info("Removed the link", "interface", gateway.LinkInterface)
		}
		return wireState{err: err}
	}
	own, err := w.identity()
	if err != nil {
		return wireState{err: err}
	}
	status := &gateway.LinkStatus{Key: public(own.current), Next: public(own.next)}
	wanted, failed := w.wanted.without(status.Key)
	nic, err := w.nic()
	if err != nil {
		return wireState{status: status, failed: failed, err: err}
	}
	found, err := w.configure(wanted, own.current)
	if err != nil {
		return wireState{status: status, failed: failed, err: err}
	}
	if err := w.bringUp(nic); err != nil {
		return wireState{status: status, failed: failed, err: err}
	}
	unrouted, changed, err := ensureRoutes(nic.Attrs().Index, wanted.routes)
	for uuid, reason := range unrouted {
		failed[uuid] = errors.Join(failed[uuid], reason)
	}
	if changed > 0 && len(unrouted) == 0 && err == nil {
		w.log.Info("Wrote routes", "interface", gateway.LinkInterface, "changed", changed)
	}
	status.Peers = wanted.status(found, w.heard, time.Now())
	return wireState{status: status, failed: failed, err: err}
}

// identity returns the host's keys, after going over to the next one if it is time.
func (w *wire) identity() (keys, error) {
	own, err := w.files.need()
	if err != nil || own.next == (wgtypes.Key{}) || public(own.next) != w.wanted.switchTo {
		return own, err
	}
	if err := w.files.promote(); err != nil {
		return own, err
	}
	w.log.Info("Going over to the next key", "from", public(own.current).String(), "to", public(own.next).String())
	return keys{current: own.next}, nil
}

// without is the link without a peer that has the host's own key, which WireGuard can't have, and what to tell the networks
// that want it.
func (l *link) without(own wgtypes.Key) (*link, map[string]error) {
	failed := map[string]error{}
	rest := *l
	rest.peers = nil
	for _, p := range l.peers {
		if !slices.Contains(p.keys, own) {
			rest.peers = append(rest.peers, p)
			continue
		}
		for _, uuid := range p.networks {
			failed[uuid] = fmt.Errorf("peer %s has the key of this host: if one host is a copy of the other, remove %s on one of them and restart its agent", p.name, stateDir)
		}
	}
	return &rest, failed
}

// nic returns the interface, with the link's MTU, and makes it if there is none.
func (w *wire) nic() (netlink.Link, error) {
	nic, err := netlink.LinkByName(gateway.LinkInterface)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		if nic, err = w.create(); err != nil {
			return nil, fmt.Errorf("making the interface %s: %w", gateway.LinkInterface, err)
		}
		w.log.Info("Made the interface of the link", "interface", gateway.LinkInterface, "mtu", w.wanted.mtu, "port", w.wanted.port)
	}
	if err != nil {
		return nil, fmt.Errorf("looking for the interface %s: %w", gateway.LinkInterface, err)
	}
	if w.user == nil && !isOurLink(nic) {
		return nil, fmt.Errorf("interface %s: %w", gateway.LinkInterface, errForeign)
	}
	if nic.Attrs().MTU != w.wanted.mtu {
		if err := netlink.LinkSetMTU(nic, w.wanted.mtu); err != nil {
			return nil, fmt.Errorf("setting the MTU of %s to %d: %w", gateway.LinkInterface, w.wanted.mtu, err)
		}
	}
	return nic, nil
}

// isOurLink tells whether an interface is the kernel's WireGuard and made by an agent. One of WireGuard in a process, other
// than this one, belongs to that.
func isOurLink(nic netlink.Link) bool {
	return nic.Type() == "wireguard" && nic.Attrs().Alias == linkAlias
}

// create makes the interface: the kernel's, or else one of WireGuard in this process.
func (w *wire) create() (netlink.Link, error) {
	w.forget()
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.Alias = gateway.LinkInterface, w.wanted.mtu, linkAlias
	err := netlink.LinkAdd(&netlink.Wireguard{LinkAttrs: attrs})
	if errors.Is(err, unix.EOPNOTSUPP) {
		if !w.saidUser {
			w.log.Info("The kernel has no WireGuard, so the agent does it: the link is away whenever the agent is, and slower")
			w.saidUser = true
		}
		w.user, err = startUserspace(w.log, w.wanted.mtu)
	}
	if err != nil {
		return nil, err
	}
	nic, err := netlink.LinkByName(gateway.LinkInterface)
	if err == nil && nic.Attrs().Alias != linkAlias {
		err = netlink.LinkSetAlias(nic, linkAlias)
	}
	return nic, err
}

// configure gives the interface its key, port and peers. It returns the peers that it then has.
func (w *wire) configure(wanted *link, private wgtypes.Key) ([]wgtypes.Peer, error) {
	if w.user != nil && w.user.ended() {
		w.forget()
		return nil, fmt.Errorf("the interface %s was taken away", gateway.LinkInterface)
	}
	if w.client == nil {
		var err error
		if w.client, err = wgctrl.New(); err != nil {
			return nil, fmt.Errorf("configuring WireGuard: %w", err)
		}
	}
	found, err := w.client.Device(gateway.LinkInterface)
	if err != nil {
		return nil, fmt.Errorf("reading the interface %s: %w", gateway.LinkInterface, err)
	}
	now := time.Now()
	w.heard.listen(found.Peers, now)
	config := wgtypes.Config{Peers: wanted.changes(found.Peers, w.heard, now)}
	if found.PrivateKey != private {
		config.PrivateKey = &private
	}
	if found.ListenPort != wanted.port {
		config.ListenPort = &wanted.port
	}
	if config.PrivateKey == nil && config.ListenPort == nil && len(config.Peers) == 0 {
		return found.Peers, nil
	}
	if err := w.client.ConfigureDevice(gateway.LinkInterface, config); err != nil {
		return nil, fmt.Errorf("configuring the interface %s (is UDP port %d free?): %w", gateway.LinkInterface, wanted.port, err)
	}
	for _, p := range config.Peers {
		if p.Endpoint != nil {
			was := w.heard[p.PublicKey]
			was.endpoint = p.Endpoint.AddrPort()
			w.heard[p.PublicKey] = was
		}
		w.log.Info("Set up a peer", "key", p.PublicKey.String(), "endpoint", p.Endpoint, "removed", p.Remove, "ranges", len(p.AllowedIPs))
	}
	if found, err = w.client.Device(gateway.LinkInterface); err != nil {
		return nil, fmt.Errorf("reading the interface %s: %w", gateway.LinkInterface, err)
	}
	w.heard.listen(found.Peers, now)
	return found.Peers, nil
}

// bringUp has the interface carry packets.
func (w *wire) bringUp(nic netlink.Link) error {
	if nic.Attrs().Flags&net.FlagUp != 0 {
		return nil
	}
	if err := netlink.LinkSetUp(nic); err != nil {
		return fmt.Errorf("bringing the interface %s up: %w", gateway.LinkInterface, err)
	}
	if w.user != nil {
		if err := w.user.device.Up(); err != nil {
			return fmt.Errorf("bringing the interface %s up (is UDP port %d free?): %w", gateway.LinkInterface, w.wanted.port, err)
		}
	}
	return nil
}

// remove removes the interface if it is ours, and with it its routes. It returns whether there was one.
func (w *wire) remove() (bool, error) {
	if w.user != nil {
		w.forget()
		return true, nil
	}
	w.forget()
	nic, err := netlink.LinkByName(gateway.LinkInterface)
	if errors.As(err, &netlink.LinkNotFoundError{}) || err == nil && !isOurLink(nic) {
		return false, nil
	}
	if err == nil {
		err = netlink.LinkDel(nic)
	}
	if err != nil {
		return false, fmt.Errorf("removing the interface %s: %w", gateway.LinkInterface, err)
	}
	return true, nil
}
