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
	"context"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/gateway"
)

// foreign is what others have on a host: it must never change. The last table has a name like one of ours.
const foreign = `nft -f - <<'END'
table inet filter {
	set friends { type ipv4_addr; elements = { 192.0.2.1, 192.0.2.2 }; }
	chain input {
		type filter hook input priority filter; policy accept;
		ip saddr @friends counter accept
		tcp dport 25 drop
	}
	chain forward { type filter hook forward priority filter; policy accept; }
}
table ip nat {
	chain prerouting {
		type nat hook prerouting priority dstnat; policy accept;
		ip daddr 203.0.113.1 tcp dport 2222 dnat to 192.0.2.9:22
	}
}
table inet capl-ffffffffff {
	chain forward { type filter hook forward priority filter; policy accept; counter; }
}
table ip capl-0b5c7c8e6f {
	chain forward { type filter hook forward priority filter; policy accept; counter; }
}
END
`

// The rules come back whatever becomes of them, of the agent or of libvirtd, and nothing of others changes.
func TestSurvives(t *testing.T) {
	s := newSite(t)
	script(t, s.host.Netns(), foreign)
	others := s.others()
	first := forward("ingress", ingressOutside, 80, "10.100.0.130")
	s.define(webUUID, wants(t, first))
	s.start()
	s.applied(webUUID, first)
	good := s.table(webUUID)
	restored := func(what string) {
		t.Helper()
		eventually(t, "the table after "+what, func() error {
			if now := s.table(webUUID); now != good {
				return fmt.Errorf("the table is\n%s", now)
			}
			return nil
		})
	}
	name := gateway.TableName(webUUID)
	ctx, cancel := context.WithTimeout(context.Background(), 4*patiently)
	defer cancel()

	for what, command := range map[string]string{
		"its removal":          "nft delete table inet " + name,
		"a rule too many":      "nft insert rule inet " + name + " forward accept",
		"a rule too few":       "nft flush chain inet " + name + " forward",
		"a chain too few":      "nft delete chain inet " + name + " output",
		"an empty table":       "nft flush table inet " + name + "; for c in prerouting output postrouting forward; do nft delete chain inet " + name + " $c; done",
		"a table put to sleep": "nft add table inet " + name + " '{ flags dormant; }'",
	} {
		script(t, s.host.Netns(), command)
		restored(what)
	}
	if now := s.others(); now != others {
		t.Errorf("other rules changed from\n%s to\n%s", others, now)
	}

	t.Run("a flush of the rule set", func(t *testing.T) {
		script(t, s.host.Netns(), "nft flush ruleset;"+foreign)
		restored("a flush")
		others = s.others()
	})
	t.Run("a restart", func(t *testing.T) {
		s.stop(syscall.SIGTERM)
		if s.table(webUUID) != good {
			t.Error("the agent took its table along")
		}
		script(t, s.host.Netns(), "nft insert rule inet "+name+" forward accept")
		s.start()
		restored("a restart")
	})
	t.Run("libvirtd's end", func(t *testing.T) {
		if err := s.host.StopDaemon(ctx, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		// Without libvirt the agent goes by what it knows.
		script(t, s.host.Netns(), "nft delete table inet "+name)
		restored("the daemon's end")
		if err := s.host.StartDaemon(ctx); err != nil {
			t.Fatal(err)
		}
		eventually(t, "libvirt", func() error { _, err := s.status(); return err })
		second := forward("ingress", ingressOutside, 443, "10.100.0.130")
		s.define(webUUID, wants(t, first, second))
		s.applied(webUUID, first, second)
		good = s.table(webUUID)
	})
	t.Run("a boot", func(t *testing.T) {
		s.stop(syscall.SIGKILL)
		if err := s.host.StopDaemon(ctx, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		script(t, s.host.Netns(), "nft flush ruleset;"+foreign)
		others = s.others()
		s.start()
		if err := s.host.StartDaemon(ctx); err != nil {
			t.Fatal(err)
		}
		restored("a boot")
	})
	t.Run("a network that goes while the agent is away", func(t *testing.T) {
		s.stop(syscall.SIGKILL)
		s.undefine(webUUID)
		s.start()
		eventually(t, "the table to go", func() error {
			if table := s.table(webUUID); table != "" {
				return fmt.Errorf("there is still %s", table)
			}
			return nil
		})
	})
	if now := s.others(); now != others {
		t.Errorf("other rules changed from\n%s to\n%s", others, now)
	}
}

// A table of another's with the name of ours is told of and left alone; what has no mark of ours, or is forwarded by
// libvirt, is none of the agent's business.
func TestStrangers(t *testing.T) {
	s := newSite(t)
	name := gateway.TableName(webUUID)
	script(t, s.host.Netns(), "nft 'table inet "+name+" { chain theirs { counter; }; }'")
	theirs := s.table(webUUID)
	first := forward("ingress", ingressOutside, 80, "10.100.0.130")
	s.define(webUUID, wants(t, first))
	ctx, cancel := context.WithTimeout(context.Background(), patiently)
	defer cancel()
	nat := strings.Replace(definition(t, appUUID, wants(t, first)), `<forward mode="open">`, `<forward mode="nat">`, 1)
	if err := s.libvirt.EnsureNetwork(ctx, nat); err != nil {
		t.Fatal(err)
	}
	s.start()
	found := s.told(webUUID, "the table to be told of", func(n gateway.NetworkStatus) bool { return len(n.Problems) > 0 })
	if p := found.Problems[0]; p.Kind != gateway.ProblemFailed || !strings.Contains(p.Message, name) || found.Generation != "" {
		t.Errorf("told %+v", found)
	}
	if s.table(webUUID) != theirs {
		t.Error("the table of another was changed")
	}
	script(t, s.host.Netns(), "nft delete table inet "+name)
	s.applied(webUUID, first)
	if table := s.table(appUUID); table != "" {
		t.Errorf("a network that libvirt forwards has the table %s", table)
	}
	if status, err := s.status(); err != nil || len(status.Networks) != 1 {
		t.Errorf("told %+v, %v", status, err)
	}
}

// What isn't right is refused and told, and leaves what was there before.
func TestRefused(t *testing.T) {
	s := newSite(t)
	s.start()
	first := forward("ingress", ingressOutside, 80, "10.100.0.130")
	outside := wants(t, forward("ingress", ingressOutside, 81, "10.101.0.130"))
	bad := map[string]struct{ metadata, says string }{
		"another version":  {strings.ReplaceAll(wants(t, first), "/gateway/v1", "/gateway/v2"), "it is v2 and this program reads v1"},
		"junk":             {`<capl:gateway xmlns:capl="` + gateway.Namespace + `"><capl:allow all="yes"/></capl:gateway>`, "attributes"},
		"a target outside": {outside, "outside the network's ranges"},
	}
	s.define(webUUID, bad["a target outside"].metadata)
	never := s.told(webUUID, "a refusal", func(n gateway.NetworkStatus) bool { return len(n.Problems) > 0 })
	if never.Generation != "" || never.Problems[0].Kind != gateway.ProblemRefused {
		t.Errorf("told %+v", never)
	}
	if table := s.table(webUUID); !strings.Contains(table, "masquerade") || strings.Contains(table, "dnat ip to") {
		t.Errorf("without anything acceptable the table is %s", table)
	}
	s.define(webUUID, wants(t, first))
	s.applied(webUUID, first)
	good := s.table(webUUID)
	for name, c := range bad {
		s.define(webUUID, c.metadata)
		found := s.told(webUUID, "a refusal", func(n gateway.NetworkStatus) bool {
			return len(n.Problems) == 1 && strings.Contains(n.Problems[0].Message, c.says)
		})
		if found.Problems[0].Kind != gateway.ProblemRefused || found.Generation != (gateway.Wanted{Forwards: []gateway.Forward{first}}).Generation() {
			t.Errorf("%s: told %+v", name, found)
		}
		if s.table(webUUID) != good {
			t.Errorf("%s: the table is now %s", name, s.table(webUUID))
		}
	}
	// What was applied is known after a restart, and after a boot.
	s.stop(syscall.SIGKILL)
	script(t, s.host.Netns(), "nft flush ruleset")
	s.start()
	eventually(t, "the table of before", func() error {
		if now := s.table(webUUID); now != good {
			return fmt.Errorf("the table is\n%s", now)
		}
		return nil
	})
	s.define(webUUID, "")
	s.told(webUUID, "nothing to be wanted", func(n gateway.NetworkStatus) bool { return n.Generation == "" && len(n.Problems) == 0 })
	if table := s.table(webUUID); strings.Contains(table, "dnat ip to") {
		t.Errorf("nothing is wanted and the table is %s", table)
	}
}

// Of two clusters that want the same address and port the first has it, also after a restart.
func TestClash(t *testing.T) {
	s := newSite(t)
	s.start()
	// The one that is first has the higher UUID.
	first := forward("ingress", ingressOutside, 80, "10.101.0.130")
	second := forward("ingress", ingressOutside, 80, "10.100.0.130")
	s.define(appUUID, wants(t, first))
	s.applied(appUUID, first)
	s.define(webUUID, wants(t, second))
	clash := func() {
		t.Helper()
		found := s.told(webUUID, "a clash", func(n gateway.NetworkStatus) bool { return len(n.Problems) > 0 })
		if p := found.Problems[0]; p.Kind != gateway.ProblemClash || !strings.Contains(p.Message, "default.app") || found.Generation != "" {
			t.Errorf("told %+v", found)
		}
		s.applied(appUUID, first)
		if table := s.table(webUUID); strings.Contains(table, "dnat ip to") {
			t.Errorf("the second has the table %s", table)
		}
	}
	clash()
	s.stop(syscall.SIGKILL)
	script(t, s.host.Netns(), "nft flush ruleset")
	s.start()
	eventually(t, "the tables", func() error {
		if s.table(webUUID) == "" || s.table(appUUID) == "" {
			return fmt.Errorf("not there yet")
		}
		return nil
	})
	clash()
	// The first gives the address up.
	other := forward("ingress", apiOutside, 80, "10.101.0.130")
	s.define(appUUID, wants(t, other))
	s.applied(appUUID, other)
	s.applied(webUUID, second)
}

// An address that the host doesn't have is told of until it has it.
func TestAddress(t *testing.T) {
	s := newSite(t)
	s.start()
	first := forward("ingress", "203.0.113.77", 80, "10.100.0.130")
	s.define(webUUID, wants(t, first))
	found := s.told(webUUID, "the address to be missed", func(n gateway.NetworkStatus) bool { return len(n.Problems) > 0 })
	if p := found.Problems[0]; p.Kind != gateway.ProblemAddress || p.External != "203.0.113.77" || found.Generation == "" {
		t.Errorf("told %+v", found)
	}
	script(t, s.host.Netns(), "ip addr add 203.0.113.77/32 dev internet")
	s.applied(webUUID, first)
	script(t, s.host.Netns(), "ip addr del 203.0.113.77/32 dev internet")
	s.told(webUUID, "the address to be missed again", func(n gateway.NetworkStatus) bool { return len(n.Problems) > 0 })
}
