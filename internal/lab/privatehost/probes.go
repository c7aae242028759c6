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

package privatehost

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// libvirtd asks every QEMU binary what it can do, which takes seconds under
// emulation, and caches the answers together with all they depend on (binary,
// daemon, kernel, CPU). The hosts of a machine share them by a directory in
// the project's cache.

// loadProbes gives a new host what earlier ones have learned.
func loadProbes(dir string) error {
	return copyProbes(sharedProbes(), probesDir(dir))
}

// saveProbes keeps what the host has learned.
func (h *Host) saveProbes() error {
	return copyProbes(probesDir(h.dir), sharedProbes())
}

func probesDir(dir string) string { return filepath.Join(dir, "cache/qemu/capabilities") }

// sharedProbes returns nothing when there is no place for a cache.
func sharedProbes() string {
	cache := os.Getenv("CAPL_CACHE")
	if cache == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			return ""
		}
		cache = filepath.Join(user, "cluster-api-provider-libvirt")
	}
	return filepath.Join(cache, "libvirt")
}

// copyProbes copies the answers that differ. Each file is replaced at once, so
// that hosts may do this at the same time.
func copyProbes(from, to string) error {
	if from == "" || to == "" {
		return nil
	}
	files, err := filepath.Glob(filepath.Join(from, "*.xml"))
	if err != nil {
		return err
	}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("copying what is known of QEMU: %w", err)
		}
		if err := replaceFile(filepath.Join(to, filepath.Base(file)), content); err != nil {
			return fmt.Errorf("copying what is known of QEMU: %w", err)
		}
	}
	return nil
}

func replaceFile(path string, content []byte) error {
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, content) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	next, err := os.CreateTemp(filepath.Dir(path), "next-")
	if err != nil {
		return err
	}
	defer os.Remove(next.Name()) // once renamed, it is not there any more
	if _, err := next.Write(content); err != nil {
		next.Close()
		return err
	}
	if err := next.Close(); err != nil {
		return err
	}
	return os.Rename(next.Name(), path)
}
