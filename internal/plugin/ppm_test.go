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

package plugin

import (
	"bytes"
	"image/color"
	"image/png"
	"strings"
	"testing"
)

func TestToPNG(t *testing.T) {
	// Two pixels, of which the second starts with a byte that is a white space, as the first might.
	encoded, err := toPNG("image/x-portable-pixmap", []byte("P6\n2 1\n255\n\n\x00\x01\x20\xff\x80"))
	must(t, err)
	picture, err := png.Decode(bytes.NewReader(encoded))
	must(t, err)
	if got, want := picture.At(0, 0), (color.RGBA{10, 0, 1, 255}); color.RGBAModel.Convert(got) != want {
		t.Errorf("The first pixel is %v, want %v", got, want)
	}
	if got, want := picture.At(1, 0), (color.RGBA{32, 255, 128, 255}); color.RGBAModel.Convert(got) != want {
		t.Errorf("The second pixel is %v, want %v", got, want)
	}
	again, err := toPNG("image/png", encoded)
	if err != nil || !bytes.Equal(again, encoded) {
		t.Errorf("A PNG became something else: %v", err)
	}
	for _, tt := range []struct{ mimeType, content, want string }{
		{"image/x-portable-pixmap", "", "reading the header"},
		{"image/x-portable-pixmap", "P5\n1 1\n255\nxxx", `starts with "P5"`},
		{"image/x-portable-pixmap", "P6\n1 1\n255", "reading the header"},
		{"image/x-portable-pixmap", "P6\n2 2\n255\nxxx", "ends after 3 of 12 bytes"},
		{"image/x-portable-pixmap", "P6\n1 1\n65535\nxxxxxx", "depth 65535"},
		{"image/x-portable-pixmap", "P6\n99999999 99999999\n255\nxxx", "99999999x99999999 pixels"},
		{"image/x-portable-pixmap", "P6\n-1 1\n255\nxxx", "-1x1 pixels"},
		{"image/png", "no picture", "png: invalid format"},
		{"image/gif", "GIF89a", "image/gif, which isn't known here"},
	} {
		if _, err := toPNG(tt.mimeType, []byte(tt.content)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s %q: got %v, want %s", tt.mimeType, tt.content, err, tt.want)
		}
	}
}
