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

package host

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"libvirt.org/go/libvirt"
)

// agentTimeout is how long, in seconds, a guest agent may take for a command. libvirt gives it as much again to show that
// it is there at all.
const agentTimeout = 5

// agentPatience is how long a caller waits for its turn to ask an agent. One that waits for the agent of another guest to
// be given up shouldn't keep a worker.
const agentPatience = 2 * time.Second

// agents is what a session knows of the agents in the guests of its host. A guest decides what its agent answers and
// when, so at most one agent of a host is asked at a time, however many there are: the connection's other slots stay
// free.
type agents struct {
	slot chan struct{}
	// subscribing is set by who subscribes to the coming and going of agents.
	subscribing atomic.Bool

	mu sync.Mutex
	// subscribed tells that agents are seen to come and go.
	subscribed bool
	// connected tells of the domains whose agent was seen to come or go.
	connected map[string]bool
	// reads tells of the agents that were asked whether they read files.
	reads map[string]bool
}

func newAgents() *agents {
	return &agents{slot: make(chan struct{}, 1), connected: map[string]bool{}, reads: map[string]bool{}}
}

// turned notes that the agent of a domain came or went. What it said before it did counts no more.
func (a *agents) turned(uuid string, connected bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.connected[uuid] = connected
	delete(a.reads, uuid)
}

// follow notes that agents are seen to come and go.
func (a *agents) follow() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.subscribed = true
}

// absent notes that the agent of a domain isn't there, because its guest stops or has only just started. That is of use
// to who will see it come.
func (a *agents) absent(uuid string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.reads, uuid)
	delete(a.connected, uuid)
	if a.subscribed {
		a.connected[uuid] = false
	}
}

// drop forgets the agent of a domain that is gone.
func (a *agents) drop(uuid string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.connected, uuid)
	delete(a.reads, uuid)
}

// FollowAgents has AgentConnected know of guests that are started from now on. It is a call in the life of a connection,
// and only for who wants to know: hosts that are merely reconnected to don't cost it. Where it fails nothing is known of
// agents but what they answer.
func (h *Host) FollowAgents(ctx context.Context) {
	if s, err := h.current(); err == nil {
		s.followAgents(ctx)
	}
}

// AgentConnected tells whether the agent of a domain's guest is connected, without a call but FollowAgents's. An agent that
// came before that, and hasn't gone since, isn't known.
func (h *Host) AgentConnected(ctx context.Context, uuid string) (connected, known bool) {
	s, err := h.current()
	if err != nil {
		return false, false
	}
	s.followAgents(ctx)
	s.agents.mu.Lock()
	defer s.agents.mu.Unlock()
	connected, known = s.agents.connected[uuid]
	return connected, known
}

// ReadGuestFile asks the agent of a domain's guest for the end of a file, of at most limit bytes.
// ErrNotFound: there is no such file, or the agent can't open it. ErrInactive: no agent is connected, or it doesn't
// answer. ErrUnsupported: the agent, or the host, refuses to read files. ErrHostBusy: other agents of the host are being
// asked.
func (h *Host) ReadGuestFile(ctx context.Context, uuid, path string, limit int) ([]byte, error) {
	s, err := h.current()
	if err != nil {
		return nil, err
	}
	if err := s.agentReads(ctx, uuid); err != nil {
		return nil, err
	}
	file, err := ask[int64](ctx, s, uuid, "guest-file-open", map[string]any{"path": path, "mode": "r"})
	if refused(err) {
		return nil, fmt.Errorf("opening %s in the guest of domain %s: %w: %w", path, uuid, ErrNotFound, err)
	}
	if err != nil {
		return nil, fmt.Errorf("opening %s in the guest of domain %s: %w", path, uuid, err)
	}
	content, err := s.readEnd(ctx, uuid, file, limit)
	_, closeErr := ask[struct{}](ctx, s, uuid, "guest-file-close", map[string]any{"handle": file})
	if err := errors.Join(err, closeErr); err != nil {
		return nil, fmt.Errorf("reading %s in the guest of domain %s: %w", path, uuid, err)
	}
	return content, nil
}

// readEnd reads the end of an open file. One that is shorter than limit can't be sought that far back from its end, and
// is read from its beginning.
func (s *session) readEnd(ctx context.Context, uuid string, file int64, limit int) ([]byte, error) {
	_, err := ask[json.RawMessage](ctx, s, uuid, "guest-file-seek", map[string]any{"handle": file, "offset": -limit, "whence": "end"})
	if err != nil && !refused(err) {
		return nil, err
	}
	read, err := ask[struct {
		Content string `json:"buf-b64"`
	}](ctx, s, uuid, "guest-file-read", map[string]any{"handle": file, "count": limit})
	if err != nil {
		return nil, err
	}
	content, err := base64.StdEncoding.DecodeString(read.Content)
	if err != nil {
		return nil, fmt.Errorf("decoding what the agent read: %w", err)
	}
	return content[:min(len(content), limit)], nil
}

// agentReads makes sure that an agent isn't told to refuse what reading a file takes. It is asked once.
func (s *session) agentReads(ctx context.Context, uuid string) error {
	s.agents.mu.Lock()
	reads, known := s.agents.reads[uuid]
	s.agents.mu.Unlock()
	if !known {
		info, err := ask[struct {
			Commands []struct {
				Name    string `json:"name"`
				Enabled bool   `json:"enabled"`
			} `json:"supported_commands"`
		}](ctx, s, uuid, "guest-info", nil)
		if err != nil {
			return fmt.Errorf("asking the agent of domain %s what it does: %w", uuid, err)
		}
		enabled := map[string]bool{}
		for _, command := range info.Commands {
			enabled[command.Name] = command.Enabled
		}
		reads = enabled["guest-file-open"] && enabled["guest-file-seek"] && enabled["guest-file-read"] && enabled["guest-file-close"]
		s.agents.mu.Lock()
		s.agents.reads[uuid] = reads
		s.agents.mu.Unlock()
	}
	if !reads {
		return fmt.Errorf("the agent of domain %s refuses to read files: %w", uuid, ErrUnsupported)
	}
	return nil
}

// refused tells whether an agent answered that it can't do what it was asked. libvirt has no code for that but the one
// for everything else, and the agent none at all.
func refused(err error) bool {
	return code(err) == libvirt.ERR_INTERNAL_ERROR && !errors.Is(err, ErrUnreachable)
}

// ask has an agent execute a command and returns its answer.
func ask[T any](ctx context.Context, s *session, uuid, command string, arguments map[string]any) (T, error) {
	var answer struct {
		Return T `json:"return"`
	}
	request := map[string]any{"execute": command}
	if arguments != nil {
		request["arguments"] = arguments
	}
	encoded, err := json.Marshal(request)
	if err != nil {
		return answer.Return, fmt.Errorf("encoding %s: %w", command, err)
	}
	text, err := s.agentCommand(ctx, uuid, string(encoded))
	if err != nil {
		return answer.Return, fmt.Errorf("%s: %w", command, err)
	}
	if err := json.Unmarshal([]byte(text), &answer); err != nil {
		return answer.Return, fmt.Errorf("decoding the answer to %s: %w", command, err)
	}
	return answer.Return, nil
}

// agentCommand passes a command on to an agent. The slot is free again when the call has come back, which may be after
// its caller was let go.
func (s *session) agentCommand(ctx context.Context, uuid, command string) (string, error) {
	turn, cancel := context.WithTimeout(ctx, agentPatience)
	defer cancel()
	select {
	case s.agents.slot <- struct{}{}:
	case <-turn.Done():
		return "", fmt.Errorf("%w: other agents of its guests are being asked", ErrHostBusy)
	}
	free := sync.OnceFunc(func() { <-s.agents.slot })
	var begun atomic.Bool
	answer, err := onDomain(ctx, s, uuid, "domainQemuAgentCommand", func(dom *libvirt.Domain) (string, error) {
		begun.Store(true)
		defer free()
		return dom.QemuAgentCommand(command, agentTimeout, 0)
	})
	if !begun.Load() {
		free()
	}
	switch code(err) {
	case libvirt.ERR_AGENT_UNRESPONSIVE, libvirt.ERR_AGENT_COMMAND_TIMEOUT, libvirt.ERR_AGENT_UNSYNCED, libvirt.ERR_OPERATION_INVALID:
		err = fmt.Errorf("%w: %w", ErrInactive, err)
	}
	return answer, err
}

// followAgents subscribes to the coming and going of agents, once.
func (s *session) followAgents(ctx context.Context) {
	if !s.agents.subscribing.CompareAndSwap(false, true) {
		return
	}
	var begun atomic.Bool
	conn := s.control.libvirt
	err := registration{s.control, "connectDomainEventCallbackRegisterAny", func() (int, error) {
		begun.Store(true)
		id, err := conn.DomainEventAgentLifecycleRegister(nil, s.onAgentLifecycle)
		if err == nil {
			s.agents.follow()
		}
		return id, err
	}, conn.DomainEventDeregister}.make(ctx)
	if err != nil && !begun.Load() {
		s.agents.subscribing.Store(false) // the host was busy with other calls
	}
}

func (s *session) onAgentLifecycle(_ *libvirt.Connect, dom *libvirt.Domain, event *libvirt.DomainEventAgentLifecycle) {
	uuid, err := dom.GetUUIDString()
	if err != nil {
		return
	}
	s.agents.turned(uuid, event.State == libvirt.CONNECT_DOMAIN_EVENT_AGENT_LIFECYCLE_STATE_CONNECTED)
	s.emit(Event{Kind: DomainChanged, UUID: uuid})
}
