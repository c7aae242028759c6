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

package gateway

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// allows checks that an element has a name, exactly the given attributes, no text, and no children but of the given names.
func (e readElement) allows(name string, attributes []string, children ...string) error {
	if e.XMLName.Local != name {
		return fmt.Errorf("the gateway has an unknown element %q where %s was expected", e.XMLName.Local, name)
	}
	var found []string
	for _, attribute := range e.Attrs {
		if attribute.Name.Space == "xmlns" || attribute.Name.Local == "xmlns" {
			continue
		}
		found = append(found, attribute.Name.Local)
	}
	slices.Sort(found)
	if wanted := slices.Sorted(slices.Values(attributes)); !slices.Equal(found, wanted) {
		return fmt.Errorf("the gateway's element %s has the attributes %q instead of %q", name, found, wanted)
	}
	if strings.TrimSpace(e.Text) != "" {
		return fmt.Errorf("the gateway's element %s has the text %q", name, strings.TrimSpace(e.Text))
	}
	for _, c := range e.Children {
		if !slices.Contains(children, c.XMLName.Local) || c.XMLName.Space != Namespace {
			return fmt.Errorf("the gateway's element %s has an unknown child %q", name, c.XMLName.Local)
		}
	}
	return nil
}

// attr is the value of an attribute that allows has seen.
func (e readElement) attr(name string) string {
	for _, attribute := range e.Attrs {
		if attribute.Name.Space == "" && attribute.Name.Local == name {
			return attribute.Value
		}
	}
	return ""
}

func parsePort(value string) (uint16, error) {
	port, err := strconv.ParseUint(value, 10, 16)
	if err != nil || port == 0 {
		return 0, fmt.Errorf("%q is not a port", value)
	}
	return uint16(port), nil
}
