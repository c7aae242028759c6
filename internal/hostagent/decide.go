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
	"fmt"

	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/gateway"
)

// plan is what the tables are to let in.
type plan struct {
	// lets is by the network's UUID. A network without it lets nothing in.
	lets map[string]*gateway.Wanted
	// problems are why a network doesn't get what its metadata wants, by its UUID.
	problems map[string]gateway.Problem
}

// decide says what the networks' tables are to let in, given what they let in now. What is refused leaves a network with
// what it has. Of two that want the same address and port the one that has it keeps it, and otherwise the one with the
// lower UUID is first.
func decide(networks []network, applied map[string]gateway.Wanted) plan {
	p := plan{lets: map[string]*gateway.Wanted{}, problems: map[string]gateway.Problem{}}
	for _, n := range networks {
		has, ok := applied[n.UUID]
		// What was good for the network before may not be any more, or was read from a status that isn't ours.
		if ok && n.broken == nil && !errors.Is(n.refused, gateway.ErrNone) && check(n, networks, has) == nil && clash(n, has, networks, p.lets) == nil {
			p.lets[n.UUID] = &has
		}
	}
	pending := map[string]error{}
	for _, n := range networks {
		switch {
		case n.broken != nil:
			p.problems[n.UUID] = gateway.Problem{Kind: gateway.ProblemRefused, Message: n.broken.Error()}
		case errors.Is(n.refused, gateway.ErrNone):
		case n.refused != nil:
			p.problems[n.UUID] = gateway.Problem{Kind: gateway.ProblemRefused, Message: n.refused.Error() + stays(p.lets[n.UUID])}
		case generation(p.lets[n.UUID]) != n.wanted.Generation():
			pending[n.UUID] = nil
		}
	}
	// A network that gives an address up makes room for another.
	for progress := true; progress; {
		progress = false
		for _, n := range networks {
			if _, ok := pending[n.UUID]; !ok {
				continue
			}
			if pending[n.UUID] = clash(n, n.wanted, networks, p.lets); pending[n.UUID] == nil {
				p.lets[n.UUID] = &n.wanted
				delete(pending, n.UUID)
				progress = true
			}
		}
	}
	for uuid, err := range pending {
		p.problems[uuid] = gateway.Problem{Kind: gateway.ProblemClash, Message: err.Error() + stays(p.lets[uuid])}
	}
	return p
}

// clash tells which network already lets in what another wants to.
func clash(n network, wanted gateway.Wanted, networks []network, lets map[string]*gateway.Wanted) error {
	for _, other := range networks {
		has := lets[other.UUID]
		if other.UUID == n.UUID || has == nil {
			continue
		}
		if err := clashOfLinks(other.Name, wanted.Link, has.Link); err != nil {
			return err
		}
		for _, f := range wanted.Forwards {
			for _, theirs := range has.Forwards {
				if f.Overlaps(theirs) {
					return fmt.Errorf("%s is taken by network %s (%s), which was first: choose another address or port for one of them",
						f, other.Name, theirs.Name)
				}
			}
		}
	}
	return nil
}

// clashOfLinks tells what keeps a link from being there beside that of another network, with which it shares the interface.
func clashOfLinks(name string, wanted, has *gateway.Link) error {
	if wanted == nil || has == nil {
		return nil
	}
	if wanted.Port != has.Port {
		return fmt.Errorf("the link's UDP port %d isn't the %d of network %s, which was first: the host has one port for all its links", wanted.Port, has.Port, name)
	}
	for _, p := range wanted.Peers {
		for _, r := range p.Ranges {
			for _, theirs := range has.Peers {
				for _, taken := range theirs.Ranges {
					if r.Overlaps(taken) {
						return fmt.Errorf("the range %s of peer %s overlaps %s of peer %s of network %s, which was first: choose another range for one of them",
							r, p.Name, taken, theirs.Name, name)
					}
				}
			}
		}
	}
	return nil
}

// stays says what a network is left with.
func stays(lets *gateway.Wanted) string {
	if lets == nil {
		return "; until then nothing is let in"
	}
	return fmt.Sprintf("; until then generation %s stays", lets.Generation())
}
