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

package crdtest

import (
	"cmp"
	"encoding/json"
	"maps"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"

	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/utils/ptr"
)

// source makes decisions of bytes. When they are used up, all decisions are for the least.
type source struct {
	data []byte
	// attempt counts how often a decision had to be made again, for bytes that always say the same.
	attempt int
}

func (s *source) next() int {
	if len(s.data) == 0 {
		return 0
	}
	first := s.data[0]
	s.data = s.data[1:]
	return int(first)
}

func (s *source) choose() bool { return s.next()%2 == 1 }

// upTo is a number from least to most, small ones mostly.
func (s *source) upTo(least, most int64) int64 {
	if most <= least {
		return least
	}
	n := int64(s.next())
	for range s.next() % 4 {
		n = n<<8 + int64(s.next())
	}
	return least + n%(most-least+1)
}

const (
	maxItems    = 3
	maxText     = 64
	maxRepeats  = 12
	maxInt      = 1<<31 - 1
	hostileTail = "\"'/>]]><inject a=\"b\">&amp;\n- inject: {a: b} # "
)

// known are texts of the kinds that rules ask for, and not patterns.
var known = []string{
	"10.100.0.10", "192.168.1.1", "fd00::1", "10.100.0.0/25", "192.168.1.0/24", "fd00::/64", "192.168.1.100-192.168.1.149",
	"52:54:00:12:34:56", "0000:01:00.0", "10de:2204", "https://images.example.org/node.qcow2", "0-3,^2", "node-1",
}

// value makes a value for a schema. Most are admitted.
func (s *source) value(schema *structuralschema.Structural) any {
	checks := schema.ValueValidation
	if checks == nil {
		checks = &structuralschema.ValueValidation{}
	}
	switch {
	case schema.XIntOrString:
		return s.quantity()
	case len(checks.Enum) > 0:
		return checks.Enum[s.next()%len(checks.Enum)].Object
	}
	switch schema.Type {
	case "boolean":
		return s.choose()
	case "integer":
		return s.upTo(int64(ptr.Deref(checks.Minimum, 0)), int64(ptr.Deref(checks.Maximum, maxInt)))
	case "string":
		return s.text(schema, checks)
	case "array":
		items := []any{}
		for range s.upTo(max(1, ptr.Deref(checks.MinItems, 0)), min(maxItems, ptr.Deref(checks.MaxItems, maxItems))) {
			items = append(items, s.value(schema.Items))
		}
		return items
	}
	return s.object(schema, checks)
}

func (s *source) object(schema *structuralschema.Structural, checks *structuralschema.ValueValidation) map[string]any {
	object := map[string]any{}
	if inner := schema.AdditionalProperties; inner != nil && inner.Structural != nil {
		for range 1 + s.next()%2 {
			object["key-"+string(rune('a'+s.next()%26))] = s.value(inner.Structural)
		}
		return object
	}
	names := slices.Sorted(maps.Keys(schema.Properties))
	for _, name := range names {
		if slices.Contains(checks.Required, name) || s.choose() {
			object[name] = s.value(new(schema.Properties[name]))
		}
	}
	if len(object) == 0 && len(names) > 0 {
		name := names[(s.next()+s.attempt)%len(names)]
		object[name] = s.value(new(schema.Properties[name]))
	}
	return object
}

func (s *source) quantity() string {
	amounts := []string{"1Gi", "512Mi", "2Gi", "20Gi", "5G", "64Gi", "1Ti", "100M", "1", "1.5Gi"}
	return amounts[s.next()%len(amounts)]
}

// matches is a rule that stands for a pattern, with a message of its own.
var matches = regexp.MustCompile(`^self\.matches\('(.*)'\)$`)

// ruledText is what the rules of a text ask for.
func ruledText(schema *structuralschema.Structural) (pattern string, quantity bool) {
	for _, validation := range schema.XValidations {
		if found := matches.FindStringSubmatch(validation.Rule); found != nil {
			pattern = found[1]
		}
		quantity = quantity || strings.HasPrefix(validation.Rule, "isQuantity(self)")
	}
	return pattern, quantity
}

func (s *source) text(schema *structuralschema.Structural, checks *structuralschema.ValueValidation) string {
	least, most := ptr.Deref(checks.MinLength, 0), min(maxText, ptr.Deref(checks.MaxLength, maxText))
	pattern, quantity := ruledText(schema)
	pattern = cmp.Or(checks.Pattern, pattern)
	if quantity && s.choose() {
		return s.quantity()
	}
	if pattern == "" {
		if k := s.next() % (2 * len(known)); k < len(known) {
			return known[k]
		}
		return s.raw(max(1, least), most)
	}
	parsed, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return ""
	}
	var text strings.Builder
	s.match(&text, parsed.Simplify())
	// A pattern that isn't anchored would admit anything around what it matches.
	if hostile := text.String() + hostileTail; s.choose() && regexp.MustCompile(pattern).MatchString(hostile) {
		return hostile
	}
	return text.String()
}

// raw is text of the bytes themselves. It is read from JSON in the end, and thus valid UTF-8.
func (s *source) raw(least, most int64) string {
	length := min(s.upTo(least, most), int64(len(s.data)))
	text := string(s.data[:length])
	s.data = s.data[length:]
	for int64(len(text)) < least {
		text += "x"
	}
	var clean string
	encoded, err := json.Marshal(text)
	if err == nil {
		err = json.Unmarshal(encoded, &clean)
	}
	if err != nil {
		return "x"
	}
	return clean
}

// match writes a text that a regular expression matches.
func (s *source) match(text *strings.Builder, expression *syntax.Regexp) {
	repeat := func(least, most int) {
		for range s.upTo(int64(least), int64(most)) {
			s.match(text, expression.Sub[0])
		}
	}
	switch expression.Op {
	case syntax.OpLiteral:
		text.WriteString(string(expression.Rune))
	case syntax.OpCharClass:
		pairs := expression.Rune
		k := s.next() % (len(pairs) / 2) * 2
		text.WriteRune(pairs[k] + rune(s.next())%(pairs[k+1]-pairs[k]+1))
	case syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		text.WriteByte(hostileTail[s.next()%len(hostileTail)])
	case syntax.OpCapture:
		s.match(text, expression.Sub[0])
	case syntax.OpStar:
		repeat(0, maxRepeats)
	case syntax.OpPlus:
		repeat(1, maxRepeats)
	case syntax.OpQuest:
		repeat(0, 1)
	case syntax.OpRepeat:
		most := expression.Max
		if most < 0 {
			most = expression.Min + maxRepeats
		}
		repeat(expression.Min, most)
	case syntax.OpConcat:
		for _, part := range expression.Sub {
			s.match(text, part)
		}
	case syntax.OpAlternate:
		s.match(text, expression.Sub[s.next()%len(expression.Sub)])
	}
}
