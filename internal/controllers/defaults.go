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

package controllers

import (
	"cmp"
	"slices"

	"k8s.io/utils/ptr"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
)

// What an unset field of the API means.
const (
	// defaultReservedMemory is kept free for the host itself, in bytes.
	defaultReservedMemory = 1 << 30

	// defaultReservedStorage of the disk pool is kept for images and what else is there, in bytes.
	defaultReservedStorage = 10 << 30

	// defaultCPUOvercommitPercent lets four virtual CPUs share a logical one.
	defaultCPUOvercommitPercent = 400

	// seedPoolParent is the directory in which seed pools are created.
	seedPoolParent = "/var/lib/libvirt/"
)

func imagePool(h *infrav1.LibvirtHost) string {
	return orDefault(h.Spec.Storage.ImagePool, infrav1.DefaultPool)
}

func diskPool(h *infrav1.LibvirtHost) string {
	return orDefault(h.Spec.Storage.DiskPool, infrav1.DefaultPool)
}

// extraDiskPools are the pools that may hold disks beside the disk pool.
func extraDiskPools(h *infrav1.LibvirtHost) []string {
	return slices.DeleteFunc(slices.Clone(h.Spec.Storage.ExtraDiskPools), func(pool string) bool { return pool == diskPool(h) })
}

// diskPools are all pools that may hold disks.
func diskPools(h *infrav1.LibvirtHost) []string {
	return append([]string{diskPool(h)}, extraDiskPools(h)...)
}

func seedPool(h *infrav1.LibvirtHost) string {
	return orDefault(h.Spec.Storage.SeedPool, infrav1.DefaultSeedPool)
}

func failureDomain(h *infrav1.LibvirtHost) string {
	return orDefault(h.Spec.FailureDomain, h.Name)
}

func reservedMemory(h *infrav1.LibvirtHost) int64 {
	if h.Spec.Reserved.Memory == nil {
		return defaultReservedMemory
	}
	return h.Spec.Reserved.Memory.Value()
}

func reservedStorage(h *infrav1.LibvirtHost) int64 {
	if h.Spec.Reserved.Storage == nil {
		return defaultReservedStorage
	}
	return h.Spec.Reserved.Storage.Value()
}

// vcpusFor is how many virtual CPUs machines may have on a host with that many logical ones.
func vcpusFor(h *infrav1.LibvirtHost, cpus int32) int64 {
	own := max(int64(cpus)-int64(ptr.Deref(h.Spec.Reserved.CPUs, 0)), 0)
	return own * int64(cmp.Or(h.Spec.CPUOvercommitPercent, defaultCPUOvercommitPercent)) / 100
}

func domainType(m *infrav1.LibvirtMachine) infrav1.DomainType {
	return orDefault(m.Spec.DomainType, infrav1.DomainTypeKVM)
}

func orDefault[T ~string](value, fallback T) T {
	if value == "" {
		return fallback
	}
	return value
}
