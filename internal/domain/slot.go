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
	"crypto/sha256"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// Slot is a place in a set of machines. Its disks and its host name outlive the machine that holds it.
type Slot struct {
	// Namespace and Cluster that the set is in.
	Namespace, Cluster string
	// Set is the kind and the name of what makes the machines, such as MachineDeployment/db.
	Set string
	// Number of the slot, from 0.
	Number int
}

const (
	// maxReadable is how much of a volume's name is for people.
	maxReadable = 120
	// maxHostname is what a DNS label may have.
	maxHostname = 63
)

// Key identifies the set of the slot in the names of volumes, which can carry no other mark.
func (s Slot) Key() string {
	sum := sha256.Sum256([]byte(strings.Join([]string{s.Namespace, s.Cluster, s.Set}, "\n")))
	return fmt.Sprintf("%x", sum[:8])
}

// VolumeName is the name of the volume with a disk of the slot. What identifies it comes first; the rest is for people.
func (s Slot) VolumeName(disk string) string {
	readable := s.Namespace + "." + s.Cluster + "." + s.name()
	return fmt.Sprintf("capl-slot-%s-%d-%s_%s.qcow2", s.Key(), s.Number, disk, readable[:min(len(readable), maxReadable)])
}

var (
	slotVolumeName = regexp.MustCompile(`^capl-slot-([0-9a-f]{16})-(0|[1-9][0-9]{0,8})-([a-z0-9](?:[-a-z0-9]{0,18}[a-z0-9])?)_[^/]*\.qcow2$`)
	noHostname     = regexp.MustCompile(`[^-a-z0-9]`)
)

// SlotVolume reads the key and the number of a slot from the name of a volume that is named like a disk of one. False
// when it isn't.
func SlotVolume(volume string) (key string, number int, ok bool) {
	found := slotVolumeName.FindStringSubmatch(volume)
	if found == nil {
		return "", 0, false
	}
	number, err := strconv.Atoi(found[2])
	return found[1], number, err == nil
}

// Hostname of the machine that holds the slot: the name of the set, a dash and the number. A name that is too long, or
// that can't be one of a host, is cut and ends in a hash before the number.
func (s Slot) Hostname() string {
	name, number := s.name(), "-"+strconv.Itoa(s.Number)
	usable := noHostname.ReplaceAllString(strings.ToLower(name), "-")
	if usable == name && len(name)+len(number) <= maxHostname {
		return name + number
	}
	hash := "-" + s.Key()[:8]
	return strings.TrimRight(usable[:min(len(usable), maxHostname-len(hash)-len(number))], "-") + hash + number
}

// name of the set, without its kind.
func (s Slot) name() string {
	_, name, _ := strings.Cut(s.Set, "/")
	return name
}
