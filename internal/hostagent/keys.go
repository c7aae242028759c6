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

package hostagent

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// stateDir is where the host's keys are, unless a flag says otherwise.
const stateDir = "/var/lib/cluster-api-host-agent"

// keyFiles are the files with the host's private keys: the one in use, and the next one as long as there is one. They are
// the only place where a private key is but for the interface itself.
type keyFiles struct{ dir string }

func (k keyFiles) current() string { return filepath.Join(k.dir, "wireguard.key") }
func (k keyFiles) next() string    { return filepath.Join(k.dir, "wireguard-next.key") }

// keys are the host's private ones. Zero is none.
type keys struct{ current, next wgtypes.Key }

// read returns the keys that there are.
func (k keyFiles) read() (keys, error) {
	current, currentErr := readKey(k.current())
	next, nextErr := readKey(k.next())
	return keys{current, next}, errors.Join(currentErr, nextErr)
}

// need returns the keys, and makes the one in use if there is none.
func (k keyFiles) need() (keys, error) {
	found, err := k.read()
	if err != nil || found.current != (wgtypes.Key{}) {
		return found, err
	}
	found.current, err = k.make(k.current())
	return found, err
}

// promote makes the next key the one in use.
func (k keyFiles) promote() error {
	if err := os.Rename(k.next(), k.current()); err != nil {
		return fmt.Errorf("going over to the next key: %w", err)
	}
	return nil
}

func (k keyFiles) make(path string) (wgtypes.Key, error) {
	key, err := wgtypes.GeneratePrivateKey()
	if err != nil {
		return wgtypes.Key{}, fmt.Errorf("making a WireGuard key: %w", err)
	}
	if err := os.MkdirAll(k.dir, 0o700); err != nil {
		return wgtypes.Key{}, fmt.Errorf("making the directory of the host's keys: %w", err)
	}
	if err := replace(path, []byte(key.String()+"\n"), 0o600); err != nil {
		return wgtypes.Key{}, fmt.Errorf("writing the key %s: %w", path, err)
	}
	return key, nil
}

// readKey reads a key, zero if there is no such file. What is in a file that isn't right is no part of the error.
func readKey(path string) (wgtypes.Key, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return wgtypes.Key{}, nil
	}
	if err != nil {
		return wgtypes.Key{}, fmt.Errorf("reading a WireGuard key: %w", err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return wgtypes.Key{}, fmt.Errorf("reading a WireGuard key: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return wgtypes.Key{}, fmt.Errorf("reading a WireGuard key: others than root may read %s too: remove it for a new key, or chmod 600 it", path)
	}
	key, err := wgtypes.ParseKey(strings.TrimSpace(string(text)))
	if err != nil {
		return wgtypes.Key{}, fmt.Errorf("reading a WireGuard key: there is none in %s: remove it for a new one", path)
	}
	return key, nil
}

// public is the public key of a private one, zero for none.
func public(private wgtypes.Key) wgtypes.Key {
	if private == (wgtypes.Key{}) {
		return wgtypes.Key{}
	}
	return private.PublicKey()
}

// addStateDir adds the flag that says where the host's keys are.
func addStateDir(cmd *cobra.Command, dir *string) {
	cmd.Flags().StringVar(dir, "state-dir", stateDir, "Where the host's WireGuard key is kept, for root only.")
}

func newRotateKeyCommand() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "rotate-key",
		Short: "Have this host go over to a new WireGuard key, once all others know it",
		Long: "Makes the next WireGuard key of this host. The agent announces it, the manager tells it to the hosts at the other\n" +
			"ends of its links, and when all of them know it, the agent goes over to it.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			files := keyFiles{dir}
			found, err := files.read()
			if err != nil {
				return err
			}
			if found.current == (wgtypes.Key{}) {
				return fmt.Errorf("%s has no key yet: the agent makes it when the first cluster wants a link", dir)
			}
			if found.next != (wgtypes.Key{}) {
				fmt.Fprintf(cmd.OutOrStdout(), "The host is already on its way from key %s to %s\n", public(found.current), public(found.next))
				return nil
			}
			next, err := files.make(files.next())
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "The host will go over from key %s to %s\n", public(found.current), public(next))
			return nil
		},
	}
	addStateDir(cmd, &dir)
	return cmd
}
