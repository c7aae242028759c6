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

// Package crdtest makes objects, in tests, that the schema of a CustomResourceDefinition admits: of any bytes, so that a
// fuzzer finds its way through all fields that there are, or will be.
package crdtest

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"testing"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"sigs.k8s.io/yaml"
)

// Schema is the schema of a kind's spec.
type Schema struct {
	structural *structuralschema.Structural
	schema     validation.SchemaValidator
	rules      *cel.Validator
}

// Load reads the schema of spec from the file of a CustomResourceDefinition.
func Load(t testing.TB, path string) *Schema {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var definition apiextensionsv1.CustomResourceDefinition
	if err := yaml.Unmarshal(content, &definition); err != nil {
		t.Fatalf("Reading %s: %v", path, err)
	}
	public := definition.Spec.Versions[0].Schema.OpenAPIV3Schema.Properties["spec"]
	var spec apiextensions.JSONSchemaProps
	if err := apiextensionsv1.Convert_v1_JSONSchemaProps_To_apiextensions_JSONSchemaProps(&public, &spec, nil); err != nil {
		t.Fatalf("Reading the schema in %s: %v", path, err)
	}
	structural, err := structuralschema.NewStructural(&spec)
	if err != nil {
		t.Fatalf("Reading the schema in %s: %v", path, err)
	}
	validator, _, err := validation.NewSchemaValidator(&spec)
	if err != nil {
		t.Fatalf("Reading the schema in %s: %v", path, err)
	}
	return &Schema{structural: structural, schema: validator, rules: cel.NewValidator(structural, false, celconfig.PerCallLimit)}
}

// Fields are the names of the fields of spec.
func (s *Schema) Fields() []string { return slices.Sorted(maps.Keys(s.structural.Properties)) }

// Admits tells whether a spec is admitted on creation. The error says why it isn't.
func (s *Schema) Admits(t testing.TB, spec map[string]any) error {
	t.Helper()
	found := validation.ValidateCustomResource(nil, spec, s.schema)
	if len(found) > 0 {
		return found.ToAggregate()
	}
	if s.rules == nil {
		return nil
	}
	found, _ = s.rules.Validate(t.Context(), field.NewPath("spec"), s.structural, spec, nil, celconfig.RuntimeCELCostBudget)
	return found.ToAggregate()
}

// attempts is how often what is required is made anew that isn't admitted, as combinations aren't that make no sense.
const attempts = 12

// Spec makes a spec that is admitted, by what the bytes say. False when none could be made of what is required.
func (s *Schema) Spec(t testing.TB, data []byte) (map[string]any, bool) {
	t.Helper()
	var required []string
	if checks := s.structural.ValueValidation; checks != nil {
		required = checks.Required
	}
	source := &source{data: data}
	spec := map[string]any{}
	for source.attempt = range attempts {
		for _, name := range required {
			spec[name] = source.value(new(s.structural.Properties[name]))
		}
		if s.Admits(t, spec) == nil {
			return s.extended(t, spec, source), true
		}
	}
	return nil, false
}

// extended is an admitted spec with some of the fields that aren't in it: as many as are admitted together.
func (s *Schema) extended(t testing.TB, spec map[string]any, source *source) map[string]any {
	t.Helper()
	whole := maps.Clone(spec)
	for _, name := range s.Fields() {
		if _, ok := spec[name]; !ok && source.choose() {
			whole[name] = source.value(new(s.structural.Properties[name]))
		}
	}
	if s.Admits(t, whole) == nil {
		return whole
	}
	for _, name := range slices.Sorted(maps.Keys(whole)) {
		if _, ok := spec[name]; ok {
			continue
		}
		spec[name] = whole[name]
		if s.Admits(t, spec) != nil {
			delete(spec, name)
		}
	}
	return spec
}

// Harmless is a copy of a value in which whatever means something in XML or YAML is an x.
func Harmless(value any) any {
	switch v := value.(type) {
	case map[string]any:
		clean := map[string]any{}
		for key, inner := range v {
			clean[HarmlessText(key)] = Harmless(inner)
		}
		return clean
	case []any:
		clean := make([]any, 0, len(v))
		for _, inner := range v {
			clean = append(clean, Harmless(inner))
		}
		return clean
	case string:
		return HarmlessText(v)
	}
	return value
}

// HarmlessText is a text in which whatever means something in XML or YAML is an x.
func HarmlessText(text string) string {
	clean := []rune(text)
	for k, r := range clean {
		if r < ' ' || slices.Contains([]rune(`<>&"'{}#`), r) {
			clean[k] = 'x'
		}
	}
	return string(clean)
}

// String describes a spec for people.
func String(spec map[string]any) string {
	text, err := yaml.Marshal(spec)
	if err != nil {
		return fmt.Sprint(spec)
	}
	return string(text)
}
