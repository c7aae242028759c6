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
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// evilRanges are those that a peer has that isn't what it should be.
var evilRanges = rangesOf("10.120.0.0/25")

// evil is the WireGuard of a host that is in the hands of somebody else: it sends whatever it likes.
type evil struct {
	t      *testing.T
	key    wgtypes.Key
	device *device.Device
}

// newEvil has it in a space.
func newEvil(s *space) *evil {
	s.t.Helper()
	private, err := wgtypes.GeneratePrivateKey()
	if err != nil {
		s.t.Fatal(err)
	}
	nic, err := inside(s.netns, func() (tun.Device, error) { return tun.CreateTUN("evil", linkMTU) })
	if err != nil {
		s.t.Fatal(err)
	}
	log := &device.Logger{Verbosef: device.DiscardLogf, Errorf: device.DiscardLogf}
	e := &evil{t: s.t, key: private.PublicKey(), device: device.NewDevice(nic, conn.NewDefaultBind(), log)}
	s.t.Cleanup(e.device.Close)
	e.set("private_key=" + hex.EncodeToString(private[:]))
	if _, err := inside(s.netns, func() (struct{}, error) { return struct{}{}, e.device.Up() }); err != nil {
		s.t.Fatal(err)
	}
	return e
}

func (e *evil) set(lines ...string) {
	e.t.Helper()
	if err := e.device.IpcSet(strings.Join(lines, "\n") + "\n"); err != nil {
		e.t.Fatal(err)
	}
}

// connect has it send packets for some ranges to the near host of a pair, from addresses of its own and of others.
func (e *evil) connect(s *space, host wgtypes.Key, to ...string) {
	e.t.Helper()
	e.set("public_key="+hex.EncodeToString(host[:]), fmt.Sprintf("endpoint=%s:%d", nearAddress, linkPort), "persistent_keepalive_interval=1", "allowed_ip=0.0.0.0/0")
	for _, address := range []string{"10.120.0.5/32", "10.99.0.1/32", "10.110.0.66/32"} {
		s.run("ip", "addr", "add", address, "dev", "evil")
	}
	s.run("ip", "link", "set", "evil", "up")
	for _, cidr := range to {
		s.run("ip", "route", "replace", cidr, "dev", "evil")
	}
}
