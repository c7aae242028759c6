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

package plane

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/drone/envsubst/v2"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
)

// kustomizeBuild renders the kustomization in dir.
func kustomizeBuild(ctx context.Context, binDir, dir string) ([]byte, error) {
	var stdout, stderr bytes.Buffer
	build := exec.CommandContext(ctx, filepath.Join(binDir, "kustomize"), "build", dir)
	build.Stdout, build.Stderr = &stdout, &stderr
	if err := build.Run(); err != nil {
		return nil, fmt.Errorf("building the kustomization %s: %w: %s", dir, err, strings.TrimSpace(stderr.String()))
	}
	return stdout.Bytes(), nil
}

// expand replaces ${NAME} and ${NAME:=default} the way clusterctl does.
func expand(manifests []byte, variables map[string]string) ([]byte, error) {
	expanded, err := envsubst.Eval(string(manifests), func(name string) string { return variables[name] })
	if err != nil {
		return nil, fmt.Errorf("expanding the variables of the manifests: %w", err)
	}
	return []byte(expanded), nil
}

// decode splits a stream of YAML documents into objects.
func decode(manifests []byte) ([]*unstructured.Unstructured, error) {
	var objects []*unstructured.Unstructured
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(manifests), 4096)
	for {
		object := &unstructured.Unstructured{}
		if err := decoder.Decode(&object.Object); err != nil {
			if errors.Is(err, io.EOF) {
				return objects, nil
			}
			return nil, fmt.Errorf("decoding manifest %d: %w", len(objects)+1, err)
		}
		if len(object.Object) > 0 {
			objects = append(objects, object)
		}
	}
}

// components returns a provider's objects as its release would have them, before anything is
// made local.
func components(ctx context.Context, binDir string, provider Provider, variables map[string]string) ([]*unstructured.Unstructured, error) {
	manifests, err := kustomizeBuild(ctx, binDir, provider.Config)
	if err != nil {
		return nil, err
	}
	manifests, err = expand(manifests, variables)
	if err != nil {
		return nil, err
	}
	return decode(manifests)
}

// readObjects reads a file of manifests.
func readObjects(path string) ([]*unstructured.Unstructured, error) {
	manifests, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading manifests: %w", err)
	}
	objects, err := decode(manifests)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	return objects, nil
}
