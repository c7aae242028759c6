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
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"

	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/lab/privatehost"
)

const testKey = "default/host"

// testTimeout bounds what a single test waits for.
const testTimeout = time.Minute

// quick is the timing of tests: as the default one, but for impatient people.
var quick = timing{
	ping:         200 * time.Millisecond,
	pingDeadline: 2 * time.Second,
	silence:      500 * time.Millisecond,
	dial:         5 * time.Second,
	backoff:      20 * time.Millisecond,
	soon:         500 * time.Millisecond,
	maxBackoff:   500 * time.Millisecond,
	resync:       time.Hour,
	secondLook:   time.Hour,
}

func quickly(p *Pool) { p.timing = quick }

// seldom keeps pings out of the way of tests that count calls.
func seldom(p *Pool) { p.timing.ping = time.Hour }

// newPool returns a pool that is closed when the test ends, and what it emits.
func newPool(t *testing.T, opts ...Option) (*Pool, *recorder) {
	t.Helper()
	p := NewPool(logr.Discard(), opts...)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := p.Start(ctx); err != nil {
			t.Errorf("the pool ended with %v", err)
		}
	}()
	r := &recorder{}
	go r.run(ctx, p.Events())
	t.Cleanup(func() {
		cancel()
		select {
		case <-done:
		case <-time.After(testTimeout):
			t.Error("the pool does not close")
		}
	})
	return p, r
}

// connect returns a connected host.
func connect(t *testing.T, uri string, opts ...Option) (*Pool, *Host, *recorder) {
	t.Helper()
	p, r := newPool(t, opts...)
	p.Set(testKey, Config{URI: uri})
	return p, connected(t, p, testKey), r
}

func connected(t *testing.T, p *Pool, key string) *Host {
	t.Helper()
	var h *Host
	eventually(t, "the host is connected", func() (err error) {
		h, err = p.Get(key)
		return err
	})
	return h
}

// socketURI is how a private host is reached.
func socketURI(h *privatehost.Host) string { return "qemu+unix:///system?socket=" + h.Socket() }

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	t.Cleanup(cancel)
	return ctx
}

func eventually(t *testing.T, what string, check func() error) {
	t.Helper()
	deadline := time.Now().Add(testTimeout)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %s: %v", what, testTimeout, err)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// recorder keeps the events of a pool.
type recorder struct {
	mu     sync.Mutex
	events []Event
}

func (r *recorder) run(ctx context.Context, events <-chan Event) {
	for {
		select {
		case e := <-events:
			r.mu.Lock()
			r.events = append(r.events, e)
			r.mu.Unlock()
		case <-ctx.Done():
			return
		}
	}
}

func (r *recorder) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = nil
}

func (r *recorder) seen() []Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.events)
}

func (r *recorder) expect(t *testing.T, want Event) {
	t.Helper()
	want.Host = testKey
	eventually(t, fmt.Sprintf("the event %+v", want), func() error {
		if seen := r.seen(); !slices.Contains(seen, want) {
			return fmt.Errorf("saw %+v", seen)
		}
		return nil
	})
}

// spent returns the calls made since before, as "2 networkUpdate, 1 …", leaving out pings.
func spent(before, after map[string]uint64) (total uint64, list string) {
	var parts []string
	for procedure, n := range after {
		if n -= before[procedure]; n > 0 && procedure != "connectGetLibVersion" {
			total += n
			parts = append(parts, fmt.Sprintf("%d %s", n, procedure))
		}
	}
	slices.Sort(parts)
	return total, strings.Join(parts, ", ")
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func domainUUID(n int) string { return fmt.Sprintf("6a3e0b52-9c1d-4f7e-8b20-%012d", n) }

const networkUUID = "0c5f3bb8-1f0a-4a5b-9d63-000000000001"

func domainXML(kind string, n int) string {
	return fmt.Sprintf(`<domain type='%s'>
  <name>guest-%d</name>
  <uuid>%s</uuid>
  <memory unit='MiB'>64</memory>
  <vcpu>1</vcpu>
  <os><type arch='x86_64'>hvm</type></os>
</domain>`, kind, n, domainUUID(n))
}

func networkXML(uuid, name, prefix string) string {
	return fmt.Sprintf(`<network>
  <name>%s</name>
  <uuid>%s</uuid>
  <bridge name='%s'/>
  <forward mode='open'/>
  <ip address='%s.1' netmask='255.255.255.0'>
    <dhcp><range start='%s.100' end='%s.200'/></dhcp>
  </ip>
</network>`, name, uuid, name, prefix, prefix, prefix)
}

func volumeXML(name, format string, capacity int) string {
	return fmt.Sprintf(`<volume><name>%s</name><capacity>%d</capacity><target><format type='%s'/></target></volume>`, name, capacity, format)
}

// pickNext picks the first free address from .10 on, as an address plan would.
func pickNext(taken []Reservation) (string, error) {
	for n := 10; n < 100; n++ {
		ip := fmt.Sprintf("10.7.0.%d", n)
		if !slices.ContainsFunc(taken, func(r Reservation) bool { return r.IP == ip }) {
			return ip, nil
		}
	}
	return "", errors.New("no address is left")
}
