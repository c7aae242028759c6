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
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Images is the directory of a host's `default` pool, as libvirtd sees it.
const Images = "/var/lib/libvirt/images"

const defaultPool = `<pool type='dir'>
  <name>default</name>
  <target><path>` + Images + `</path></target>
</pool>
`

// libvirtdConf is libvirtd's configuration. libvirt takes the first of several
// lines for the same setting, so the caller's come first.
func libvirtdConf(opts *Options) string {
	return lines(append(opts.Libvirtd,
		`auth_unix_rw="none"`,
		`unix_sock_rw_perms="0700"`,
		`host_uuid="`+hostUUID(opts.Name, opts.Dir)+`"`,
		`log_level=3`,
		// Lets through whatever log_level and log_filters let through.
		`log_outputs="1:file:/var/log/libvirt/libvirtd.log"`,
	))
}

// qemuConf is the QEMU driver's configuration: guests run as root, without the
// confinement that the machine may not offer inside a container.
func qemuConf(opts *Options) string {
	return lines(append(opts.QEMU,
		`security_driver="none"`,
		`user="root"`,
		`group="root"`,
		`namespaces=[]`,
		`cgroup_controllers=[]`,
	))
}

func lines(of []string) string { return strings.Join(of, "\n") + "\n" }

// hostUUID tells the hosts of a machine apart: by default libvirt reports the
// UUID of the hardware, the same for all.
func hostUUID(name, dir string) string {
	sum := sha256.Sum256([]byte(name + "\n" + dir))
	sum[6], sum[8] = sum[6]&0x0f|0x80, sum[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", sum[:4], sum[4:6], sum[6:8], sum[8:10], sum[10:16])
}

// writeFiles lays out the host's directory. What a running system would have
// lost in a power cut is removed, all else is kept.
func writeFiles(opts *Options) error {
	if err := os.RemoveAll(filepath.Join(opts.Dir, "run")); err != nil {
		return fmt.Errorf("emptying /run: %w", err)
	}
	first := true
	if _, err := os.Stat(filepath.Join(opts.Dir, "etc")); err == nil {
		first = false
	}
	for _, dir := range []string{"run/lock", "etc/storage/autostart", "etc/nwfilter", "lib/images", "log/qemu", "cache"} {
		if err := os.MkdirAll(filepath.Join(opts.Dir, dir), 0o755); err != nil {
			return fmt.Errorf("laying out the host's directory: %w", err)
		}
	}
	files := map[string]string{
		"etc/libvirtd.conf": libvirtdConf(opts),
		"etc/qemu.conf":     qemuConf(opts),
		"etc/virtlogd.conf": "",
		"hosts":             "127.0.0.1 localhost " + opts.Name + "\n",
		"resolv.conf":       "",
	}
	if first {
		files["etc/storage/default.xml"] = defaultPool
		link := filepath.Join(opts.Dir, "etc/storage/autostart/default.xml")
		if err := os.Symlink("/etc/libvirt/storage/default.xml", link); err != nil && !errors.Is(err, os.ErrExist) {
			return fmt.Errorf("laying out the host's directory: %w", err)
		}
		if err := copyFilters(filepath.Join(opts.Dir, "etc/nwfilter")); err != nil {
			return err
		}
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(opts.Dir, name), []byte(content), 0o600); err != nil {
			return fmt.Errorf("laying out the host's directory: %w", err)
		}
	}
	// Read by programs that give up root, such as dnsmasq.
	for _, name := range []string{"hosts", "resolv.conf"} {
		if err := os.Chmod(filepath.Join(opts.Dir, name), 0o644); err != nil {
			return fmt.Errorf("laying out the host's directory: %w", err)
		}
	}
	return nil
}

// copyFilters gives the host the network filters that the distribution ships.
func copyFilters(to string) error {
	filters, err := filepath.Glob("/etc/libvirt/nwfilter/*.xml")
	if err != nil {
		return err
	}
	for _, filter := range filters {
		content, err := os.ReadFile(filter)
		if err != nil {
			return fmt.Errorf("copying network filters: %w", err)
		}
		if err := os.WriteFile(filepath.Join(to, filepath.Base(filter)), content, 0o600); err != nil {
			return fmt.Errorf("copying network filters: %w", err)
		}
	}
	return nil
}
