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
	"testing"

	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/xmltest"
)

func TestRenderRootVolume(t *testing.T) {
	document, err := RenderRootVolume(testUUID, 20<<30, "/var/lib/libvirt/images/node.img", "raw")
	if err != nil {
		t.Fatal(err)
	}
	xmltest.Golden(t, "root-volume.xml", document)
	xmltest.Accepts(t, document, "vol-create", "default-pool")
}

func TestRenderSeedVolume(t *testing.T) {
	document, err := RenderSeedVolume(testUUID, 407552)
	if err != nil {
		t.Fatal(err)
	}
	xmltest.Golden(t, "seed-volume.xml", document)
	xmltest.Accepts(t, document, "vol-create", "default-pool")
}
