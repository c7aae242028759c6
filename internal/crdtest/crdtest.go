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

// Spec makes a spec that is admitted, by what the bytes say. False when nothing that is could be made of what is required.
func (s *Schema) Spec(t testing.TB, data []byte) (map[string]any, bool) {
	t.Helper()
	source := &source{data: data}
	spec := map[string]any{}
	var required []string
	if checks := s.structural.ValueValidation; checks != nil {
		required = checks.Required
	}
	if !s.add(t, spec, required, source) {
		return nil, false
	}
	for _, name := range s.Fields() {
		if !slices.Contains(required, name) && source.choose() {
			s.add(t, spec, []string{name}, source)
		}
	}
	return spec, true
}

// attempts is how often fields are made anew that aren't admitted, as combinations aren't that make no sense.
const attempts = 12

// add adds fields to a spec. False when none that are admitted could be made.
func (s *Schema) add(t testing.TB, spec map[string]any, names []string, source *source) bool {
	t.Helper()
	most := attempts
	if len(spec) > 0 { // what isn't required can be left out as well
		most = 2
	}
	for source.attempt = range most {
		for _, name := range names {
			spec[name] = source.value(new(s.structural.Properties[name]))
		}
		if s.Admits(t, spec) == nil {
			return true
		}
	}
	for _, name := range names {
		delete(spec, name)
	}
	return false
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
