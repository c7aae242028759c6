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

package bootstrap

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	ignition3 "github.com/coreos/ignition/v2/config"
	ignition2 "github.com/flatcar/ignition/config/v2_3"
	"github.com/vincent-petithory/dataurl"
)

// File is a file that Ignition writes.
type File struct {
	Path    string
	Mode    int
	Content []byte
}

// Paths that Ignition is given besides those of the network configuration.
const (
	hostnamePath = "/etc/hostname"
	reportPath   = "/etc/systemd/system/kubeadm.service.d/90-cluster-api.conf"
)

// report has kubeadm's unit leave its last lines where the guest agent finds them when it fails. What cloud-init tells by
// itself nobody tells in a guest with Ignition.
const report = `[Service]
ExecStopPost=/bin/sh -c 'test "$SERVICE_RESULT" = success || { mkdir -p /run/cluster-api && journalctl --unit kubeadm.service --lines 40 --output cat --no-pager >` + FailureLog + `; }'
`

// CheckIgnition tells whether bootstrap data is an Ignition config that RenderIgnition takes.
func CheckIgnition(userData []byte) error {
	_, err := parseIgnition(userData)
	return err
}

// RenderIgnition returns the Ignition config of a guest: the bootstrap data, with the placeholders {{ ds.meta_data.… }}
// that cloud-init knows filled in wherever they stand, and with files for what a NoCloud seed carries beside its user
// data. The config keeps its version, because that is what its author knows the guest to read. Where it has a file of
// the same path, or a placeholder of a name that isn't known, it stays as it is.
func RenderIgnition(seed Seed, network []File) ([]byte, error) {
	config, err := parseIgnition(seed.UserData)
	if err != nil {
		return nil, err
	}
	fill := strings.NewReplacer(placeholders(seed)...)
	fillIn(config, fill)
	storage, _ := config["storage"].(map[string]any)
	if storage == nil {
		storage = map[string]any{}
	}
	files, _ := storage["files"].([]any)
	ours := append([]File{
		{hostnamePath, 0o644, []byte(seed.LocalHostname + "\n")},
		{reportPath, 0o644, []byte(report)},
	}, network...)
	for _, file := range ours {
		if !slices.ContainsFunc(files, func(f any) bool { return pathOf(f) == file.Path }) {
			files = append(files, entry(file, major(config)))
		}
	}
	storage["files"], config["storage"] = files, storage
	return json.Marshal(config)
}

// parseIgnition reads an Ignition config and checks it by Ignition's own rules: those of Flatcar's for version 2, which
// kubeadm's bootstrap provider writes.
func parseIgnition(userData []byte) (map[string]any, error) {
	decoder := json.NewDecoder(bytes.NewReader(userData))
	decoder.UseNumber()
	var config map[string]any
	if err := decoder.Decode(&config); err != nil {
		return nil, fmt.Errorf("the bootstrap data isn't an Ignition config: %w: see KubeadmConfig spec.format and spec.ignition", err)
	}
	var found fmt.Stringer
	var err error
	switch major(config) {
	case "2":
		_, found, err = ignition2.Parse(userData)
	case "3":
		_, found, err = ignition3.Parse(userData)
	default:
		return nil, fmt.Errorf("the bootstrap data is an Ignition config of version %q: versions 2 and 3 are served", version(config))
	}
	if err != nil {
		return nil, fmt.Errorf("the bootstrap data isn't a valid Ignition config: %w: %s", err, strings.TrimSpace(found.String()))
	}
	return config, nil
}

func version(config map[string]any) string {
	head, _ := config["ignition"].(map[string]any)
	text, _ := head["version"].(string)
	return text
}

func major(config map[string]any) string {
	first, _, _ := strings.Cut(version(config), ".")
	return first
}

func pathOf(file any) string {
	object, _ := file.(map[string]any)
	path, _ := object["path"].(string)
	return path
}

// entry is a file in the words of a major version.
func entry(file File, major string) map[string]any {
	e := map[string]any{
		"path":     file.Path,
		"mode":     file.Mode,
		"contents": map[string]any{"source": dataURL(file.Content)},
	}
	if major == "2" {
		e["filesystem"] = "root"
	} else {
		e["overwrite"] = true
	}
	return e
}

// placeholders are those of cloud-init that a guest's meta-data fills in, each followed by its value.
func placeholders(seed Seed) []string {
	var pairs []string
	for name, value := range map[string]string{
		"instance_id": seed.InstanceID, "local_hostname": seed.LocalHostname, "local_ipv4": seed.LocalIPv4,
	} {
		if value != "" {
			pairs = append(pairs, "{{ ds.meta_data."+name+" }}", value, "{{ds.meta_data."+name+"}}", value)
		}
	}
	return pairs
}

// fillIn replaces in all strings below a value, and in the files that are written out in data URLs. A file whose digest is
// given is what it is.
func fillIn(value any, fill *strings.Replacer) any {
	switch v := value.(type) {
	case string:
		if strings.HasPrefix(v, "data:") {
			return fillInURL(v, fill)
		}
		return fill.Replace(v)
	case []any:
		for k := range v {
			v[k] = fillIn(v[k], fill)
		}
	case map[string]any:
		if verified(v) {
			return v
		}
		for k := range v {
			v[k] = fillIn(v[k], fill)
		}
	}
	return value
}

func verified(object map[string]any) bool {
	verification, _ := object["verification"].(map[string]any)
	hash, _ := verification["hash"].(string)
	return hash != ""
}

func fillInURL(source string, fill *strings.Replacer) string {
	parsed, err := dataurl.DecodeString(source)
	if err != nil {
		return source // Ignition will say what is wrong with it
	}
	filled := fill.Replace(string(parsed.Data))
	if filled == string(parsed.Data) {
		return source
	}
	return dataURL([]byte(filled))
}

func dataURL(content []byte) string {
	return dataurl.New(content, "text/plain").String()
}
