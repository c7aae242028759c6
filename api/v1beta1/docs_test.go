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

package v1beta1_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"strconv"
	"strings"
	"testing"
)

// A user who looks up the reason of a condition finds it.
func TestEveryReasonIsInTheTroubleshootingPage(t *testing.T) {
	page, err := os.ReadFile("../../docs/troubleshooting.md")
	if err != nil {
		t.Fatal(err)
	}
	reasons := constants(t, "conditions.go", "Reason")
	if len(reasons) < 10 {
		t.Fatalf("found %d reasons in conditions.go", len(reasons))
	}
	for name, reason := range reasons {
		if !strings.Contains(string(page), "`"+reason+"`") {
			t.Errorf("docs/troubleshooting.md doesn't have `%s` (%s)", reason, name)
		}
	}
}

// A user who looks up a condition finds it.
func TestEveryConditionIsInTheReference(t *testing.T) {
	page, err := os.ReadFile("../../docs/reference/conditions.md")
	if err != nil {
		t.Fatal(err)
	}
	for name, condition := range constants(t, "conditions.go", "Condition") {
		if !strings.Contains(string(page), "`"+condition+"`") {
			t.Errorf("docs/reference/conditions.md doesn't have `%s` (%s)", condition, name)
		}
	}
}

// constants reads the string constants of a file whose names end in suffix.
func constants(t *testing.T, file, suffix string) map[string]string {
	t.Helper()
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for _, declaration := range parsed.Decls {
		general, ok := declaration.(*ast.GenDecl)
		if !ok || general.Tok != token.CONST {
			continue
		}
		for _, spec := range general.Specs {
			value, ok := spec.(*ast.ValueSpec)
			if !ok || len(value.Values) != 1 || !strings.HasSuffix(value.Names[0].Name, suffix) {
				continue
			}
			literal, ok := value.Values[0].(*ast.BasicLit)
			if !ok {
				t.Fatalf("%s isn't a literal", value.Names[0].Name)
			}
			text, err := strconv.Unquote(literal.Value)
			if err != nil {
				t.Fatal(err)
			}
			found[value.Names[0].Name] = text
		}
	}
	return found
}
