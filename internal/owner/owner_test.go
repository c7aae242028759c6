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

package owner

import (
	"encoding/xml"
	"strings"
	"testing"
)

func TestRoundTrip(t *testing.T) {
	for _, want := range []Owner{
		{Kind: "LibvirtMachine", Namespace: "home", Name: "web-1", Cluster: "web"},
		{Kind: `a"b'c`, Namespace: "<&>", Name: "]]>", Cluster: "tab\tnew\nline ünï"},
		{},
	} {
		for _, element := range []string{"domain", "network"} {
			document := "<" + element + "><name>x</name><metadata>" + want.Render() +
				`<other:thing xmlns:other="https://example.org/other" name="no"/></metadata></` + element + ">"
			if err := xml.Unmarshal([]byte(document), new(struct{})); err != nil {
				t.Fatalf("%s: %v", document, err)
			}
			got, ok := Of(document)
			if !ok || got != want {
				t.Errorf("got %+v, %t, want %+v from %s", got, ok, want, document)
			}
		}
	}
}

// libvirt writes the mark back in its own way.
func TestOfReadsAnyPrefix(t *testing.T) {
	const document = `<domain type='kvm' id='3'>
  <metadata xmlns:x="https://infrastructure.cluster.x-k8s.io/libvirt/owner/v1">
    <x:owner cluster='web' name='web-1' namespace='home' kind='LibvirtMachine'/>
  </metadata>
</domain>`
	want := Owner{Kind: "LibvirtMachine", Namespace: "home", Name: "web-1", Cluster: "web"}
	if got, ok := Of(document); !ok || got != want {
		t.Errorf("got %+v, %t", got, ok)
	}
}

func TestOfFindsNone(t *testing.T) {
	ours := Owner{Kind: "LibvirtMachine", Namespace: "home", Name: "web-1", Cluster: "web"}.Render()
	for name, document := range map[string]string{
		"no metadata":           "<domain><name>x</name></domain>",
		"empty metadata":        "<domain><metadata/></domain>",
		"another version":       "<domain><metadata>" + strings.Replace(ours, "/owner/v1", "/owner/v2", 1) + "</metadata></domain>",
		"no namespace":          `<domain><metadata><owner kind="LibvirtMachine" name="web-1"/></metadata></domain>`,
		"outside of metadata":   "<domain>" + ours + "</domain>",
		"deeper in metadata":    `<domain><metadata><o:app xmlns:o="https://example.org/o">` + ours + "</o:app></metadata></domain>",
		"within a device":       "<domain><devices><metadata>" + ours + "</metadata></devices></domain>",
		"only in the text":      "<domain><metadata>&lt;capl:owner/&gt;</metadata></domain>",
		"a document that's cut": "<domain><metadata>" + ours + "</metadata>",
		"nothing":               "",
	} {
		if got, ok := Of(document); ok {
			t.Errorf("%s: got %+v", name, got)
		}
	}
}

func TestString(t *testing.T) {
	o := Owner{Kind: "LibvirtMachine", Namespace: "home", Name: "web-1", Cluster: "web"}
	if got, want := o.String(), "LibvirtMachine home/web-1 of cluster web"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
