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

package host

import "strings"

// scaled is a number with a unit, as libvirt's XML writes sizes.
type scaled struct {
	Value int64  `xml:",chardata"`
	Unit  string `xml:"unit,attr"`
}

// bytes converts to bytes. otherwise is the unit when the XML names none.
func (s scaled) bytes(otherwise string) int64 {
	unit := s.Unit
	if unit == "" {
		unit = otherwise
	}
	switch unit {
	case "b", "bytes", "B":
		return s.Value
	}
	if unit == "" {
		return s.Value
	}
	exponent := strings.Index("KMGTPE", strings.ToUpper(unit[:1])) + 1
	base := int64(1024)
	if strings.HasSuffix(unit, "B") && !strings.HasSuffix(unit, "iB") {
		base = 1000
	}
	value := s.Value
	for range exponent {
		value *= base
	}
	return value
}
