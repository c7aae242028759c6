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

package hostagent

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/gateway"
)

// at is what a network with that third byte wants: port 80 and further ports of an external address.
func at(third, external string, ports ...uint16) gateway.Wanted {
	var w gateway.Wanted
	for _, port := range ports {
		w.Forwards = append(w.Forwards, forward("ingress", external, port, "10."+third+".0.130"))
	}
	return w
}

func node(uuid, third string, wanted gateway.Wanted, refused error) network {
	return network{
		Network: gateway.Network{
			UUID: uuid, Name: "default." + third, Bridge: gateway.TableName(uuid),
			Ranges: []netip.Prefix{netip.MustParsePrefix("10." + third + ".0.0/24")},
		},
		wanted: wanted, refused: refused,
	}
}

func TestDecide(t *testing.T) {
	const a, b, c = "203.0.113.10", "203.0.113.11", "203.0.113.12"
	web := func(w gateway.Wanted, refused error) network { return node(webUUID, "100", w, refused) }
	app := func(w gateway.Wanted, refused error) network { return node(appUUID, "101", w, refused) }
	bad := errors.New("junk")
	type wanted = map[string]gateway.Wanted
	for name, test := range map[string]struct {
		networks []network
		applied  wanted
		lets     wanted
		problems map[string]string
	}{
		"nothing":         {nil, nil, wanted{}, nil},
		"a first time":    {[]network{web(at("100", a, 80), nil)}, nil, wanted{webUUID: at("100", a, 80)}, nil},
		"nothing wanted":  {[]network{web(gateway.Wanted{}, gateway.ErrNone)}, nil, wanted{}, nil},
		"an empty wish":   {[]network{web(gateway.Wanted{}, nil)}, nil, wanted{webUUID: {}}, nil},
		"no wish anymore": {[]network{web(gateway.Wanted{}, gateway.ErrNone)}, wanted{webUUID: at("100", a, 80)}, wanted{}, nil},
		"a change":        {[]network{web(at("100", a, 81), nil)}, wanted{webUUID: at("100", a, 80)}, wanted{webUUID: at("100", a, 81)}, nil},
		"refused": {
			[]network{web(gateway.Wanted{}, bad)}, nil, wanted{},
			map[string]string{webUUID: "Refused: junk; until then nothing is let in"},
		},
		"refused later": {
			[]network{web(gateway.Wanted{}, bad)}, wanted{webUUID: at("100", a, 80)}, wanted{webUUID: at("100", a, 80)},
			map[string]string{webUUID: "Refused: junk; until then generation " + at("100", a, 80).Generation() + " stays"},
		},
		"refused, and what was before isn't good any more": {
			[]network{web(gateway.Wanted{}, bad)}, wanted{webUUID: at("7", a, 80)}, wanted{},
			map[string]string{webUUID: "Refused: junk; until then nothing"},
		},
		"another port for the link": {
			[]network{web(linkTo("far", 1, 51820, "10.110.0.0/25"), nil), app(linkTo("far", 1, 51821, "10.111.0.0/25"), nil)},
			nil, wanted{webUUID: linkTo("far", 1, 51820, "10.110.0.0/25")},
			map[string]string{appUUID: "Clash: the link's UDP port 51821 isn't the 51820 of network default.100, which was first"},
		},
		"the same range behind two hosts": {
			[]network{web(linkTo("far", 1, 51820, "10.110.0.0/25"), nil), app(linkTo("further", 2, 51820, "10.110.0.0/24"), nil)},
			wanted{appUUID: linkTo("further", 2, 51820, "10.110.0.0/24")}, wanted{appUUID: linkTo("further", 2, 51820, "10.110.0.0/24")},
			map[string]string{webUUID: "Clash: the range 10.110.0.0/25 of peer far overlaps 10.110.0.0/24 of peer further of network default.101, which was first"},
		},
		"two links": {
			[]network{web(linkTo("far", 1, 51820, "10.110.0.0/25"), nil), app(linkTo("far", 1, 51820, "10.111.0.0/25"), nil)},
			nil, wanted{webUUID: linkTo("far", 1, 51820, "10.110.0.0/25"), appUUID: linkTo("far", 1, 51820, "10.111.0.0/25")}, nil,
		},
		"two at once": {
			[]network{web(at("100", a, 80), nil), app(at("101", a, 80, 81), nil)}, nil, wanted{webUUID: at("100", a, 80)},
			map[string]string{appUUID: "Clash: ingress 203.0.113.10:80/tcp is taken by network default.100 (ingress), which was first"},
		},
		"the first has it": {
			[]network{web(at("100", a, 80), nil), app(at("101", a, 80), nil)},
			wanted{appUUID: at("101", a, 80)}, wanted{appUUID: at("101", a, 80)},
			map[string]string{webUUID: "Clash: ingress 203.0.113.10:80/tcp is taken by network default.101"},
		},
		"the second keeps what it has": {
			[]network{web(at("100", a, 80), nil), app(at("101", a, 80), nil)},
			wanted{webUUID: at("100", b, 80), appUUID: at("101", a, 80)}, wanted{webUUID: at("100", b, 80), appUUID: at("101", a, 80)},
			map[string]string{webUUID: "Clash: ingress 203.0.113.10:80/tcp is taken by network default.101"},
		},
		"one gives up what the other wants": {
			[]network{web(at("100", a, 80), nil), app(at("101", c, 80), nil)},
			wanted{webUUID: at("100", b, 80), appUUID: at("101", a, 80)}, wanted{webUUID: at("100", a, 80), appUUID: at("101", c, 80)}, nil,
		},
		"one that is refused keeps its address": {
			[]network{web(at("100", a, 80), nil), app(gateway.Wanted{}, bad)},
			wanted{appUUID: at("101", a, 80)}, wanted{appUUID: at("101", a, 80)},
			map[string]string{webUUID: "Clash: ", appUUID: "Refused: junk"},
		},
		"one that is gone doesn't": {
			[]network{web(at("100", a, 80), nil)}, wanted{appUUID: at("101", a, 80)}, wanted{webUUID: at("100", a, 80)}, nil,
		},
		"a status that can't be ours": {
			[]network{web(at("100", b, 80), nil), app(at("101", a, 80), nil)},
			wanted{webUUID: at("100", a, 80), appUUID: at("101", a, 80)}, wanted{webUUID: at("100", b, 80), appUUID: at("101", a, 80)}, nil,
		},
		"a network that can't be ours": {
			[]network{{Network: gateway.Network{UUID: webUUID}, broken: bad}}, wanted{webUUID: at("100", a, 80)}, wanted{},
			map[string]string{webUUID: "Refused: junk"},
		},
	} {
		got := decide(test.networks, test.applied)
		if len(got.lets) != len(test.lets) || len(got.problems) != len(test.problems) {
			t.Errorf("%s: got %+v", name, got)
			continue
		}
		for uuid, want := range test.lets {
			if lets := got.lets[uuid]; lets == nil || lets.Generation() != want.Generation() {
				t.Errorf("%s: network %s gets %+v", name, uuid, lets)
			}
		}
		for uuid, want := range test.problems {
			if p := got.problems[uuid]; !strings.HasPrefix(string(p.Kind)+": "+p.Message, want) {
				t.Errorf("%s: network %s has the problem %+v", name, uuid, p)
			}
		}
	}
}

// linkTo is what a network wants that is linked to one of a host with a key.
func linkTo(name string, key byte, port uint16, cidr string) gateway.Wanted {
	return gateway.Wanted{Link: &gateway.Link{Port: port, MTU: linkMTU, Peers: []gateway.Peer{{
		Name: name, Key: wgtypes.Key{key}, Ranges: []netip.Prefix{netip.MustParsePrefix(cidr)},
	}}}}
}

// A range of a peer within another cluster's network on the host would take what is that one's.
func TestLinksTakeNothingFromOthers(t *testing.T) {
	n := readNetworks([]string{definition(t, webUUID, rendered(t, linkTo("far", 1, linkPort, "10.101.0.0/16"))), definition(t, appUUID, "")})
	if len(n) != 2 || n[0].refused == nil || !strings.Contains(n[0].refused.Error(), "overlaps one of network default.app") {
		t.Errorf("read %+v", n)
	}
}

// An external address within another cluster's network would take what is that one's.
func TestForwardsTakeNothingFromOthers(t *testing.T) {
	n := readNetworks([]string{definition(t, webUUID, wants(t, forward("ingress", "10.101.0.9", 80, "10.100.0.130"))), definition(t, appUUID, "")})
	if len(n) != 2 || n[0].refused == nil || !strings.Contains(n[0].refused.Error(), "one of network default.app") {
		t.Errorf("read %+v", n)
	}
}

func TestMissing(t *testing.T) {
	w := at("100", "203.0.113.10", 80, 443)
	if got := missing(w, []netip.Addr{netip.MustParseAddr("203.0.113.10")}); len(got) > 0 {
		t.Errorf("got %+v", got)
	}
	if got := missing(w, nil); len(got) != 1 || got[0].External != "203.0.113.10" {
		t.Errorf("got %+v", got)
	}
}

func TestShorten(t *testing.T) {
	if got := shorten(strings.Repeat("ü", 1000)); len(got) > 504 || !strings.HasSuffix(got, "ü…") {
		t.Errorf("got %q", got)
	}
}

func TestRenderUnit(t *testing.T) {
	got := renderUnit("qemu+unix:///system?socket=/run/a%20b$c")
	if !strings.Contains(got, "ExecStart=/usr/local/bin/cluster-api-host-agent run --uri=qemu+unix:///system?socket=/run/a%%20b$$c\n") {
		t.Error(got)
	}
}
