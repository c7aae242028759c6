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
	"errors"
	"fmt"
	"net"

	"github.com/go-logr/logr"
	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/ipc"
	"golang.zx2c4.com/wireguard/tun"

	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/gateway"
)

// userspace is WireGuard in this process, for kernels without it. It is configured by a socket as the kernel's is by netlink,
// and the interface is there as long as the process is.
type userspace struct {
	device *device.Device
	socket net.Listener
}

func startUserspace(log logr.Logger, mtu int) (*userspace, error) {
	nic, err := tun.CreateTUN(gateway.LinkInterface, mtu)
	if err != nil {
		return nil, err
	}
	file, err := ipc.UAPIOpen(gateway.LinkInterface)
	if err != nil {
		return nil, errors.Join(err, nic.Close())
	}
	socket, err := ipc.UAPIListen(gateway.LinkInterface, file)
	if err != nil {
		return nil, errors.Join(err, file.Close(), nic.Close())
	}
	say := func(format string, args ...any) {
		log.V(1).Info("WireGuard says", "what", fmt.Sprintf(format, args...))
	}
	u := &userspace{
		device: device.NewDevice(nic, conn.NewDefaultBind(), &device.Logger{Verbosef: device.DiscardLogf, Errorf: say}),
		socket: socket,
	}
	go func() {
		for {
			asker, err := socket.Accept()
			if err != nil {
				return // it was closed
			}
			go u.device.IpcHandle(asker)
		}
	}()
	return u, nil
}

// ended tells whether the interface was taken away.
func (u *userspace) ended() bool {
	select {
	case <-u.device.Wait():
		return true
	default:
		return false
	}
}

func (u *userspace) close() {
	_ = u.socket.Close() // nobody is left to care
	u.device.Close()
}
