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
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// ingress and api are what a cluster with both ways in wants.
func ingress(port uint16) Forward {
	return Forward{
		Name: "ingress", Protocol: TCP,
		External: netip.MustParseAddr("203.0.113.10"), Port: port,
		Target: netip.MustParseAddr("10.100.0.130"), TargetPort: port,
	}
}

func api(sources ...string) Forward {
	f := Forward{
		Name: "apiServerAccess", Protocol: TCP,
		External: netip.MustParseAddr("203.0.113.11"), Port: 6443,
		Target: netip.MustParseAddr("10.100.0.2"), TargetPort: 6443,
	}
	for _, source := range sources {
		f.Sources = append(f.Sources, netip.MustParsePrefix(source))
	}
	return f
}

var both = Wanted{Forwards: []Forward{ingress(80), ingress(443), api("198.51.100.0/24", "192.0.2.7/32")}}

var compareAddresses = cmp.Options{
	cmpopts.EquateEmpty(), cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}),
}

// document is the XML of a network with something in its metadata.
func document(t *testing.T, metadata string) string {
	t.Helper()
	return "<network><name>x</name><metadata>" + metadata + "</metadata></network>"
}

func rendered(t *testing.T, w Wanted) string {
	t.Helper()
	element, err := w.Render()
	if err != nil {
		t.Fatal(err)
	}
	return element
}

func TestWantedRoundTrip(t *testing.T) {
	udp := Forward{
		Name: "game <&\"'>", Protocol: UDP, External: netip.MustParseAddr("203.0.113.12"), Port: 65535,
		Target: netip.MustParseAddr("10.100.0.1"), TargetPort: 1, Sources: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")},
	}
	for _, want := range []Wanted{{}, both, {Forwards: []Forward{udp}}} {
		got, err := Read(document(t, rendered(t, want)))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, compareAddresses); diff != "" {
			t.Error(diff)
		}
	}
}

// libvirt writes back what it was given in its own way: quotes, blanks, and further elements beside ours.
func TestReadsWhatLibvirtMadeOfIt(t *testing.T) {
	text := fmt.Sprintf(`<network>
  <name>default.web</name>
  <uuid>0b5c7c8e-6f3b-4c1b-9b7e-2d1c7a4e9a10</uuid>
  <metadata>
    <other:thing xmlns:other='https://example.org/other'><forward/></other:thing>
    <x:gateway xmlns:x='%s' generation='%s'>
      <x:forward name='ingress' protocol='tcp' external='203.0.113.10' port='80' target='10.100.0.130' targetPort='80'/>
    </x:gateway>
  </metadata>
  <forward mode='open'/>
</network>`, Namespace, Wanted{Forwards: []Forward{ingress(80)}}.Generation())
	got, err := Read(text)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Wanted{Forwards: []Forward{ingress(80)}}, got, compareAddresses); diff != "" {
		t.Error(diff)
	}
}

func TestReadRefuses(t *testing.T) {
	good := rendered(t, both)
	change := func(old, now string) string {
		if !strings.Contains(good, old) {
			t.Fatalf("%s isn't in %s", old, good)
		}
		return document(t, strings.Replace(good, old, now, 1))
	}
	for name, c := range map[string]struct{ text, says string }{
		"another version":         {change("/gateway/v1", "/gateway/v7"), "it is v7 and this program reads v1"},
		"an unknown element":      {change("</capl:forward>", "</capl:forward><capl:rule/>"), `unknown child "rule"`},
		"an element of others":    {change("</capl:forward>", `</capl:forward><o:forward xmlns:o="https://example.org"/>`), "unknown child"},
		"an unknown root":         {strings.ReplaceAll(change("capl:gateway ", "capl:gate "), "/capl:gateway", "/capl:gate"), `unknown element "gate"`},
		"an unknown attribute":    {change(` name="ingress"`, ` name="ingress" snat="yes"`), "snat"},
		"an attribute of others":  {change(` name="ingress"`, ` name="ingress" capl:name="x"`), "attributes"},
		"a missing attribute":     {change(` targetPort="80"`, ""), "targetPort"},
		"text":                    {change("</capl:forward>", "let everything in</capl:forward>"), "let everything in"},
		"another generation":      {change(`generation="`, `generation="0`), "changed by something else"},
		"a change of the content": {change(`target="10.100.0.130"`, `target="10.100.0.131"`), "changed by something else"},
		"another protocol":        {change(`protocol="tcp"`, `protocol="sctp"`), "neither tcp nor udp"},
		"a port that is none":     {change(` port="80"`, ` port="0"`), "not a port"},
		"a port that is too high": {change(` port="80"`, ` port="65536"`), "not a port"},
		"an address that is none": {change(`external="203.0.113.10"`, `external="everywhere"`), "everywhere"},
		"IPv6":                    {change(`external="203.0.113.10"`, `external="2001:db8::1"`), "IPv4"},
		"a range with host bits":  {change(`cidr="198.51.100.0/24"`, `cidr="198.51.100.1/24"`), "not an IPv4 range"},
		"a range of IPv6":         {change(`cidr="198.51.100.0/24"`, `cidr="2001:db8::/32"`), "not an IPv4 range"},
		"a range that is none":    {change(`cidr="198.51.100.0/24"`, `cidr="all"`), "not an IPv4 range"},
		"a source with a child":   {change("</capl:source>", "<capl:source/></capl:source>"), "unknown child"},
		"something cut":           {good[:len(good)/2], ""},
	} {
		got, err := Read(c.text)
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: got %+v, %v; want an error with %q", name, got, err, c.says)
		}
		if len(got.Forwards) > 0 {
			t.Errorf("%s: forwards came with the error", name)
		}
	}
	if _, err := Read(change("/gateway/v1", "/gateway/v7")); !errors.Is(err, ErrVersion) {
		t.Errorf("got %v", err)
	}
	for name, text := range map[string]string{
		"no metadata":       "<network/>",
		"others' metadata":  document(t, `<o:x xmlns:o="https://example.org">`+good+`</o:x>`),
		"outside metadata":  "<network>" + good + "</network>",
		"another namespace": document(t, strings.ReplaceAll(good, "/gateway/v1", "/gate/v1")),
	} {
		if _, err := Read(text); !errors.Is(err, ErrNone) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestGeneration(t *testing.T) {
	same := Wanted{Forwards: []Forward{api("192.0.2.7/32", "198.51.100.0/24"), ingress(443), ingress(80)}}
	if both.Generation() != same.Generation() {
		t.Error("the order counts")
	}
	seen := map[string]Wanted{}
	for _, w := range []Wanted{{}, both, {Forwards: both.Forwards[:2]}, {Forwards: []Forward{api()}}, {Forwards: []Forward{api("192.0.2.7/32")}}} {
		generation := w.Generation()
		if other, ok := seen[generation]; ok || len(generation) != 16 {
			t.Errorf("%+v and %+v have the generation %q", w, other, generation)
		}
		seen[generation] = w
	}
}

func FuzzRead(f *testing.F) {
	element, err := both.Render()
	if err != nil {
		f.Fatal(err)
	}
	f.Add("<network><metadata>" + element + "</metadata></network>")
	f.Add("<network><metadata>" + strings.ReplaceAll(element, "v1", "v2") + "</metadata></network>")
	n := Network{
		UUID: "0b5c7c8e-6f3b-4c1b-9b7e-2d1c7a4e9a10", Bridge: "capl-0b5c7c8e6f",
		Ranges: []netip.Prefix{netip.MustParsePrefix("10.100.0.0/25")},
	}
	f.Fuzz(func(t *testing.T, text string) {
		w, err := Read(text)
		if err != nil {
			return
		}
		// Nothing that was written by strangers gets into the rules but addresses, ports and protocols.
		again, err := Read(document(t, rendered(t, w)))
		if err != nil || again.Generation() != w.Generation() {
			t.Errorf("%v: %+v became %+v", err, w, again)
		}
		// Each forward is three rules, whatever its name.
		if lines := strings.Count(RenderTable(n, nil, w), "\n") - strings.Count(RenderTable(n, nil, Wanted{}), "\n"); lines != 3*len(w.Forwards) {
			t.Errorf("%+v makes %d rules", w, lines)
		}
		if err := Check(w, n.Ranges, nil); err != nil && len(w.Forwards) == 0 {
			t.Error(err)
		}
	})
}
