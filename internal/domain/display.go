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

import "libvirt.org/go/libvirtxml"

// renderVideos gives the guest a display, for pictures of it: firmware, boot loader and kernel write there what may never
// reach the serial console. Nothing serves it: there is no graphics device, and thus nothing to connect to. A plain VGA is
// what every firmware and every kernel knows, and what is built into QEMU everywhere.
func renderVideos() []libvirtxml.DomainVideo {
	return []libvirtxml.DomainVideo{{Model: libvirtxml.DomainVideoModel{Type: "vga", Heads: 1, Primary: "yes"}}}
}
