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
	"fmt"
	"image"
	"image/color"
)

// maxPixels bounds a picture, whose size its own header tells.
const maxPixels = 1 << 26

// decodePPM reads a portable pixmap with binary samples of one byte, the form in which QEMU writes it.
func decodePPM(data []byte) (image.Image, error) {
	var magic string
	var width, height, depth int
	reader := bytes.NewReader(data)
	if _, err := fmt.Fscan(reader, &magic, &width, &height, &depth); err != nil {
		return nil, fmt.Errorf("reading the header of the pixmap: %w", err)
	}
	if magic != "P6" {
		return nil, fmt.Errorf("the pixmap starts with %q and not with P6", magic)
	}
	// The one white space behind the depth is part of the header.
	if _, err := reader.ReadByte(); err != nil {
		return nil, fmt.Errorf("reading the header of the pixmap: %w", err)
	}
	if depth != 255 || width < 1 || height < 1 || width > maxPixels/height {
		return nil, fmt.Errorf("the pixmap has %dx%d pixels of depth %d", width, height, depth)
	}
	samples := data[len(data)-reader.Len():]
	if len(samples) < 3*width*height {
		return nil, fmt.Errorf("the pixmap ends after %d of %d bytes", len(samples), 3*width*height)
	}
	picture := image.NewRGBA(image.Rect(0, 0, width, height))
	for i := range width * height {
		picture.SetRGBA(i%width, i/width, color.RGBA{samples[3*i], samples[3*i+1], samples[3*i+2], 255})
	}
	return picture, nil
}
