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

package domain

import (
	"cmp"

	"k8s.io/utils/ptr"
	"libvirt.org/go/libvirtxml"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
)

// renderSerial is the first serial port, with a log of what the guest writes to it unless the spec forbids it.
func renderSerial(d Definition) libvirtxml.DomainSerial {
	serial := libvirtxml.DomainSerial{
		Source: &libvirtxml.DomainChardevSource{Pty: &libvirtxml.DomainChardevSourcePty{}},
		Target: &libvirtxml.DomainSerialTarget{Port: ptr.To[uint](0)},
	}
	log := &libvirtxml.DomainChardevLog{File: "/var/log/libvirt/qemu/" + d.Name + "-console.log"}
	switch cmp.Or(d.Spec.SerialConsole.Log, infrav1.ConsoleLogAppend) {
	case infrav1.ConsoleLogAppend:
		log.Append = "on"
	case infrav1.ConsoleLogOverwrite:
		log.Append = "off"
	default:
		return serial
	}
	serial.Log = log
	return serial
}

var watchdogActions = map[infrav1.WatchdogAction]string{
	infrav1.WatchdogReset:     "reset",
	infrav1.WatchdogPowerOff:  "poweroff",
	infrav1.WatchdogPause:     "pause",
	infrav1.WatchdogInjectNMI: "inject-nmi",
	infrav1.WatchdogNone:      "none",
}

// renderWatchdog is the watchdog, which rests until the guest opens it.
func renderWatchdog(watchdog infrav1.Watchdog) libvirtxml.DomainWatchdog {
	return libvirtxml.DomainWatchdog{
		Model: "i6300esb", Action: watchdogActions[cmp.Or(watchdog.Action, infrav1.WatchdogReset)],
	}
}
