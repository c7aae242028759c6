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

// Package hosttest gives tests real hosts: libvirt's test driver with a host
// file of the test's own, a private libvirtd, and a real sshd before it.
//
// # What the test driver is
//
// Every virConnectOpen of the same test:///<file> makes a host of its own,
// read afresh from the file, and closing the connection forgets it. A program
// that is to see one host must therefore keep one connection per URI open, as
// a test must that looks over its shoulder: share the connection, don't open
// another. (Several connections see one host in `test+unix:///default` through
// the socket of a private libvirtd, as long as one of them is open.)
//
// Works, on libvirt 9.0: define with DOMAIN_DEFINE_VALIDATE, of type kvm, qemu
// or test, any architecture, CPU mode, firmware and device; create, destroy,
// suspend, resume, reboot, ShutdownFlags(0) (shuts off at once); states with
// reasons; autostart; metadata, live and config; lifecycle and metadata-change
// events (registering for I/O-error and agent events succeeds, they just never
// come); GetAllDomainStats (state only); interface addresses (an address of
// the network, whatever the source asked for, without regard to reservations);
// undefine with the flags for managed save and snapshots; pool define, build,
// create, destroy, refresh, autostart and events; volume create, with backing
// store and permissions, create from, look-up by name, path and key, delete;
// network define, create, destroy, autostart, events; NetworkUpdate of
// reservations, a duplicate and a missing one being errors as on a real host;
// node info; capabilities (of an i686 test host); close callbacks.
//
// Doesn't, with ERR_NO_SUPPORT: volume upload, resize and wipe; DHCP leases and
// ports of networks; domain capabilities; attaching, updating and detaching
// devices; guest agent and guest info; keepalive; memory statistics; network
// filters; secrets. With ERR_INVALID_ARG (8, unsupported flags): undefine
// with the flags for NVRAM or checkpoints; shutdown by ACPI or agent; the
// inactive XML of a network; creating a pool with build. GetFreeMemory fails
// without saying why.
//
// Differs: redefining a running network shows in no XML; a pool can't be
// defined again under its name (operation failed); a volume's allocation
// equals its capacity, and a pool (of 100 GiB) has no room for more; starting
// a running domain, and a full pool, are ERR_INTERNAL_ERROR.
package hosttest
