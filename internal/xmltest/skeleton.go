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

package xmltest

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
	"unicode/utf8"
)

// Skeleton is a document without what it says: the names of its elements and attributes, in their order. It fails the test
// if the document isn't well-formed.
func Skeleton(t testing.TB, document string) string {
	t.Helper()
	var skeleton strings.Builder
	decoder := xml.NewDecoder(strings.NewReader(document))
	for {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			return skeleton.String()
		}
		if err != nil {
			t.Fatalf("It is no XML: %v\n%s", err, document)
		}
		switch token := token.(type) {
		case xml.StartElement:
			skeleton.WriteString("<" + token.Name.Local)
			for _, attribute := range token.Attr {
				skeleton.WriteString(" " + attribute.Name.Local)
			}
			skeleton.WriteString(">")
		case xml.EndElement:
			skeleton.WriteString("</>\n")
		case xml.Comment, xml.ProcInst, xml.Directive:
			t.Fatalf("It has what isn't an element: %v\n%s", token, document)
		}
	}
}

// Representable tells whether XML can express a text. Of others, no document says what they were.
func Representable(text string) bool {
	if !utf8.ValidString(text) {
		return false
	}
	for _, r := range text {
		if r < ' ' && r != '\t' && r != '\n' && r != '\r' || r == 0xfffe || r == 0xffff {
			return false
		}
	}
	return true
}
