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

package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path"
	"runtime"
	"slices"
	"strings"
)

// The media types of an OCI image layout.
const (
	mediaTypeManifest = "application/vnd.oci.image.manifest.v1+json"
	mediaTypeConfig   = "application/vnd.oci.image.config.v1+json"
	mediaTypeLayer    = "application/vnd.oci.image.layer.v1.tar+gzip"
	mediaTypeIndex    = "application/vnd.oci.image.index.v1+json"
)

// image is a container image to be written: an optional base layer and one layer of files.
type image struct {
	name       string
	base       *layer
	files      []file
	entrypoint []string
	cmd        []string
	env        []string
}

// file is a regular file of an image; its source is a path of this machine, or
// nothing for an empty file.
type file struct {
	path   string
	source string
}

type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int               `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// layer is a compressed layer that is already in an archive.
type layer struct {
	descriptor descriptor
	diffID     string
}

// archive is an OCI image layout in one tar, with any number of images that share blobs.
type archive struct {
	tar       *tar.Writer
	written   map[string]bool
	manifests []descriptor
}

func newArchive(w io.Writer) *archive {
	return &archive{tar: tar.NewWriter(w), written: map[string]bool{}}
}

// addImage writes an image's blobs and lists it in the index under its name.
func (a *archive) addImage(img image) error {
	var layers []*layer
	if img.base != nil {
		layers = append(layers, img.base)
	}
	content, err := layerOf(img.files)
	if err != nil {
		return err
	}
	top, err := a.addLayer(bytes.NewReader(content))
	if err != nil {
		return err
	}
	layers = append(layers, top)

	var descriptors []descriptor
	var diffIDs []string
	for _, l := range layers {
		descriptors = append(descriptors, l.descriptor)
		diffIDs = append(diffIDs, l.diffID)
	}
	config, err := a.addJSON(mediaTypeConfig, map[string]any{
		"architecture": runtime.GOARCH,
		"os":           "linux",
		"config":       map[string]any{"Entrypoint": img.entrypoint, "Cmd": img.cmd, "Env": img.env},
		"rootfs":       map[string]any{"type": "layers", "diff_ids": diffIDs},
	})
	if err != nil {
		return err
	}
	manifest, err := a.addJSON(mediaTypeManifest, map[string]any{
		"schemaVersion": 2, "mediaType": mediaTypeManifest, "config": config, "layers": descriptors,
	})
	if err != nil {
		return err
	}
	manifest.Annotations = map[string]string{"io.containerd.image.name": img.name}
	a.manifests = append(a.manifests, manifest)
	return nil
}

// addLayer compresses an uncompressed layer and writes it.
func (a *archive) addLayer(uncompressed io.Reader) (*layer, error) {
	var compressed bytes.Buffer
	zip, err := gzip.NewWriterLevel(&compressed, gzip.BestSpeed)
	if err != nil {
		return nil, err
	}
	diffID := sha256.New()
	if _, err := io.Copy(io.MultiWriter(zip, diffID), uncompressed); err != nil {
		return nil, fmt.Errorf("compressing a layer: %w", err)
	}
	if err := zip.Close(); err != nil {
		return nil, fmt.Errorf("compressing a layer: %w", err)
	}
	blob, err := a.addBlob(mediaTypeLayer, compressed.Bytes())
	if err != nil {
		return nil, err
	}
	return &layer{descriptor: blob, diffID: "sha256:" + hex.EncodeToString(diffID.Sum(nil))}, nil
}

func (a *archive) addJSON(mediaType string, value any) (descriptor, error) {
	content, err := json.Marshal(value)
	if err != nil {
		return descriptor{}, err
	}
	return a.addBlob(mediaType, content)
}

func (a *archive) addBlob(mediaType string, content []byte) (descriptor, error) {
	sum := sha256.Sum256(content)
	digest := hex.EncodeToString(sum[:])
	if !a.written[digest] {
		if err := writeFile(a.tar, "blobs/sha256/"+digest, 0o644, content); err != nil {
			return descriptor{}, err
		}
		a.written[digest] = true
	}
	return descriptor{MediaType: mediaType, Digest: "sha256:" + digest, Size: len(content)}, nil
}

// close writes the index and ends the archive.
func (a *archive) close() error {
	index, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": mediaTypeIndex, "manifests": a.manifests,
	})
	if err != nil {
		return err
	}
	if err := writeFile(a.tar, "index.json", 0o644, index); err != nil {
		return err
	}
	if err := writeFile(a.tar, "oci-layout", 0o644, []byte(`{"imageLayoutVersion":"1.0.0"}`)); err != nil {
		return err
	}
	return a.tar.Close()
}

// layerOf returns a tar of files, all of them executable and owned by root, with the
// directories that lead to them.
func layerOf(files []file) ([]byte, error) {
	var content bytes.Buffer
	w := tar.NewWriter(&content)
	made := map[string]bool{".": true, "/": true}
	files = slices.Clone(files)
	slices.SortFunc(files, func(a, b file) int { return strings.Compare(a.path, b.path) })
	for _, f := range files {
		var body []byte
		if f.source != "" {
			var err error
			if body, err = os.ReadFile(f.source); err != nil {
				return nil, fmt.Errorf("reading the content of %s: %w", f.path, err)
			}
		}
		if err := writeParents(w, path.Dir(f.path), made); err != nil {
			return nil, err
		}
		if err := writeFile(w, f.path, 0o755, body); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return content.Bytes(), nil
}

func writeParents(w *tar.Writer, dir string, made map[string]bool) error {
	if made[dir] {
		return nil
	}
	if err := writeParents(w, path.Dir(dir), made); err != nil {
		return err
	}
	made[dir] = true
	return w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755})
}

func writeFile(w *tar.Writer, name string, mode int64, content []byte) error {
	header := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(content))}
	if err := w.WriteHeader(header); err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	if _, err := w.Write(content); err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	return nil
}
