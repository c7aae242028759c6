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
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/hosttest"
)

func TestDomainLifecycle(t *testing.T) {
	_, h, events := connect(t, hosttest.TestDriver(t))
	ctx, uuid := testContext(t), domainUUID(1)
	state := func(want State, reason string) {
		t.Helper()
		domain, err := h.Domain(uuid)
		if err != nil || domain.State != want || domain.Reason != reason {
			t.Fatalf("got %+v, %v; want %s %s", domain, err, want, reason)
		}
	}

	if _, err := h.Domain(uuid); !errors.Is(err, ErrNotFound) {
		t.Errorf("before it is defined: %v", err)
	}
	if err := h.StartDomain(ctx, uuid); !errors.Is(err, ErrNotFound) {
		t.Errorf("starting nothing: %v", err)
	}
	must(t, h.DefineDomain(ctx, domainXML("test", 1)))
	if domain, err := h.Domain(uuid); err != nil || domain.Name != "guest-1" || domain.MaxMemoryBytes != 64<<20 || domain.VCPUs != 1 || domain.State != Shutoff {
		t.Errorf("once defined: %+v, %v", domain, err)
	}
	must(t, h.SetAutostart(ctx, uuid))
	must(t, h.StartDomain(ctx, uuid))
	state(Running, "")
	must(t, h.StartDomain(ctx, uuid)) // running already
	if definition, err := h.DomainXML(ctx, uuid); err != nil || !strings.Contains(definition, uuid) {
		t.Errorf("its definition is %s, %v", definition, err)
	}
	if addresses, err := h.InterfaceAddresses(ctx, uuid, AddressFromLease); err != nil || len(addresses) != 0 {
		t.Errorf("addresses: %v, %v", addresses, err)
	}
	must(t, h.DefineDomain(ctx, domainXML("test", 1))) // again, while it runs
	state(Running, "")

	must(t, h.DestroyDomain(ctx, uuid))
	state(Shutoff, ReasonDestroyed)
	must(t, h.DestroyDomain(ctx, uuid))  // stopped already
	must(t, h.ShutdownDomain(ctx, uuid)) // likewise
	must(t, h.StartDomain(ctx, uuid))
	must(t, h.ShutdownDomain(ctx, uuid))
	eventually(t, "the guest shuts down", func() error {
		if domain, err := h.Domain(uuid); err != nil || domain.State != Shutoff || domain.Reason != ReasonShutdown {
			return errors.Join(err, errors.New(string(domain.State)+domain.Reason))
		}
		return nil
	})

	must(t, h.UndefineDomain(ctx, uuid))
	if _, err := h.Domain(uuid); !errors.Is(err, ErrNotFound) {
		t.Errorf("once undefined: %v", err)
	}
	if err := h.UndefineDomain(ctx, uuid); !errors.Is(err, ErrNotFound) {
		t.Errorf("undefining nothing: %v", err)
	}
	events.expect(t, Event{Kind: HostConnected})
	events.expect(t, Event{Kind: DomainChanged, UUID: uuid})
}

func TestDomainNameIsTaken(t *testing.T) {
	_, h, _ := connect(t, hosttest.TestDriver(t))
	ctx := testContext(t)
	must(t, h.DefineDomain(ctx, domainXML("test", 1)))
	err := h.DefineDomain(ctx, strings.Replace(domainXML("test", 1), domainUUID(1), domainUUID(2), 1))
	if !errors.Is(err, ErrExists) || !strings.Contains(err.Error(), "guest-1") {
		t.Errorf("got %v", err)
	}
	if domains := h.Domains(); len(domains) != 1 || domains[0].UUID != domainUUID(1) {
		t.Errorf("the domains are %v", domains)
	}
	for _, bad := range []string{"<domain>", "<domain type='test'><name>a</name></domain>"} {
		if err := h.DefineDomain(ctx, bad); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

func TestVolumes(t *testing.T) {
	_, h, events := connect(t, hosttest.TestDriver(t, hosttest.Volume("default", "image", "qcow2", 3<<30)))
	ctx := testContext(t)

	must(t, h.EnsureDirPool(ctx, "seeds", "/pools/seeds"))
	must(t, h.EnsureDirPool(ctx, "seeds", "/another/path")) // is left alone
	pool, err := h.StoragePool(ctx, "seeds")
	if err != nil || pool.Path != "/pools/seeds" || !pool.Active || pool.CapacityBytes == 0 {
		t.Errorf("got %+v, %v", pool, err)
	}
	events.expect(t, Event{Kind: StoragePoolChanged, Name: "seeds"})
	if _, err := h.StoragePool(ctx, "nowhere"); !errors.Is(err, ErrNotFound) {
		t.Errorf("a missing pool: %v", err)
	}

	image, err := h.Volume(ctx, "default", "image")
	if err != nil || image.Format != "qcow2" || image.CapacityBytes != 3<<30 || image.Path != "/pools/default/image" {
		t.Errorf("got %+v, %v", image, err)
	}
	if _, err := h.Volume(ctx, "default", "missing"); !errors.Is(err, ErrNotFound) {
		t.Errorf("a missing volume: %v", err)
	}
	if _, err := h.Volume(ctx, "nowhere", "missing"); !errors.Is(err, ErrNotFound) {
		t.Errorf("a volume of a missing pool: %v", err)
	}
	overlay := `<volume><name>root</name><capacity unit='GiB'>5</capacity><target><format type='qcow2'/></target>
		<backingStore><path>/pools/default/image</path><format type='qcow2'/></backingStore></volume>`
	must(t, h.CreateVolume(ctx, "default", overlay))
	root, err := h.Volume(ctx, "default", "root")
	if err != nil || root.BackingPath != image.Path || root.CapacityBytes != 5<<30 {
		t.Errorf("got %+v, %v", root, err)
	}
	if err := h.CreateVolume(ctx, "default", overlay); !errors.Is(err, ErrExists) {
		t.Errorf("creating it again: %v", err)
	}
	if err := h.CreateVolume(ctx, "nowhere", overlay); !errors.Is(err, ErrNotFound) {
		t.Errorf("in a missing pool: %v", err)
	}
	if err := h.CreateVolume(ctx, "default", volumeXML("huge", "raw", 1<<40)); !errors.Is(err, ErrNoSpace) {
		t.Errorf("larger than the pool: %v", err)
	}
	must(t, h.DeleteVolume(ctx, "default", "root"))
	if err := h.DeleteVolume(ctx, "default", "root"); !errors.Is(err, ErrNotFound) {
		t.Errorf("deleting it again: %v", err)
	}
}

// TestUploadOption replaces what the test driver lacks.
func TestUploadOption(t *testing.T) {
	content := []byte("content")
	var got []byte
	uri := hosttest.TestDriver(t, hosttest.Volume("default", "image", "raw", 100))
	_, h, _ := connect(t, uri, WithUpload(func(_ context.Context, _ *Host, _, _ string, _ int64, r io.Reader) (err error) {
		got, err = io.ReadAll(r)
		return err
	}))
	must(t, h.UploadVolume(testContext(t), "default", "image", int64(len(content)), bytes.NewReader(content)))
	if !bytes.Equal(got, content) {
		t.Errorf("got %q", got)
	}
	_, h, _ = connect(t, uri)
	if err := h.UploadVolume(testContext(t), "default", "image", 7, bytes.NewReader(content)); !errors.Is(err, ErrUnsupported) {
		t.Errorf("without the option: %v", err)
	}
}

func TestNetworks(t *testing.T) {
	_, h, events := connect(t, hosttest.TestDriver(t))
	ctx := testContext(t)

	must(t, h.EnsureNetwork(ctx, networkXML(networkUUID, "nodes", "10.7.0")))
	events.expect(t, Event{Kind: NetworkChanged, UUID: networkUUID})
	network, err := h.Network(ctx, networkUUID)
	if err != nil || network.Name != "nodes" || network.Bridge != "nodes" || !network.Active || !network.Persistent {
		t.Errorf("got %+v, %v", network, err)
	}
	if networks, err := h.Networks(ctx); err != nil || len(networks) != 1 || networks[0] != network {
		t.Errorf("got %v, %v", networks, err)
	}

	first, err := h.Reserve(ctx, networkUUID, "52:54:00:AA:00:01", "one", pickNext)
	if want := (Reservation{MAC: "52:54:00:aa:00:01", IP: "10.7.0.10", Name: "one"}); err != nil || first != want {
		t.Errorf("got %v, %v; want %v", first, err, want)
	}
	again, err := h.Reserve(ctx, networkUUID, "52:54:00:aa:00:01", "one", func([]Reservation) (string, error) {
		return "", errors.New("asked for a second address")
	})
	if err != nil || again != first {
		t.Errorf("reserving again: %v, %v", again, err)
	}
	second, err := h.Reserve(ctx, networkUUID, "52:54:00:aa:00:02", "two", pickNext)
	if err != nil || second.IP != "10.7.0.11" {
		t.Errorf("got %v, %v", second, err)
	}
	exhausted := errors.New("no address left")
	if _, err := h.Reserve(ctx, networkUUID, "52:54:00:aa:00:03", "three", func([]Reservation) (string, error) { return "", exhausted }); !errors.Is(err, exhausted) {
		t.Errorf("got %v", err)
	}
	must(t, h.Release(ctx, networkUUID, "52:54:00:AA:00:01"))
	must(t, h.Release(ctx, networkUUID, "52:54:00:aa:00:01")) // released already
	if left, err := h.Reservations(ctx, networkUUID); err != nil || len(left) != 1 || left[0] != second {
		t.Errorf("got %v, %v", left, err)
	}

	other := "0c5f3bb8-1f0a-4a5b-9d63-000000000002"
	if err := h.EnsureNetwork(ctx, networkXML(other, "nodes", "10.8.0")); !errors.Is(err, ErrExists) {
		t.Errorf("a name that is taken: %v", err)
	}
	if err := h.EnsureNetwork(ctx, "<network><name>a</name></network>"); !errors.Is(err, ErrInvalid) {
		t.Errorf("without a uuid: %v", err)
	}
	must(t, h.DeleteNetwork(ctx, networkUUID))
	if err := h.DeleteNetwork(ctx, networkUUID); !errors.Is(err, ErrNotFound) {
		t.Errorf("deleting it again: %v", err)
	}
	must(t, h.Release(ctx, networkUUID, "52:54:00:aa:00:02")) // gone with its network
	if _, err := h.Reserve(ctx, networkUUID, "52:54:00:aa:00:02", "two", pickNext); !errors.Is(err, ErrNotFound) {
		t.Errorf("reserving in it: %v", err)
	}
}

func TestFacts(t *testing.T) {
	_, h, _ := connect(t, hosttest.TestDriver(t, hosttest.Memory(4), hosttest.CPUs(2)))
	facts, err := h.Facts(testContext(t))
	must(t, err)
	if facts.MemoryBytes != 4<<30 || facts.CPUs != 2 || facts.Architecture != "amd64" || len(facts.DomainTypes) != 1 ||
		facts.DomainTypes[0] != "test" || strings.Count(facts.LibvirtVersion, ".") != 2 || facts.Hostname == "" {
		t.Errorf("got %+v", facts)
	}
}

func TestPool(t *testing.T) {
	p, events := newPool(t, quickly)
	if _, err := p.Get(testKey); !errors.Is(err, ErrNotFound) || errors.Is(err, ErrUnreachable) {
		t.Errorf("a host that was never set: %v", err)
	}
	p.Set(testKey, Config{URI: "qemu:///session"})
	eventually(t, "the refusal is told", func() error {
		_, err := p.Get(testKey)
		if !errors.Is(err, ErrInvalid) || !errors.Is(err, ErrUnreachable) {
			return err
		}
		return nil
	})
	cfg := Config{URI: hosttest.TestDriver(t)}
	p.Set(testKey, cfg)
	h := connected(t, p, testKey)
	events.expect(t, Event{Kind: HostConnected})
	must(t, h.DefineDomain(testContext(t), domainXML("test", 1)))

	p.Set(testKey, cfg) // the same: the test driver would forget its domains
	p.Set("default/other", Config{URI: hosttest.TestDriver(t)})
	if other := connected(t, p, "default/other"); len(other.Domains()) != 0 || len(h.Domains()) != 1 {
		t.Error("two hosts are mixed up")
	}

	events.forget()
	p.Set(testKey, Config{URI: hosttest.TestDriver(t)})
	events.expect(t, Event{Kind: HostDisconnected})
	events.expect(t, Event{Kind: HostConnected})
	events.expect(t, Event{Kind: DomainChanged, UUID: domainUUID(1)}) // vanished
	if len(h.Domains()) != 0 {
		t.Errorf("the new host has %v", h.Domains())
	}

	p.Remove(testKey)
	if _, err := p.Get(testKey); !errors.Is(err, ErrNotFound) {
		t.Errorf("a host that was removed: %v", err)
	}
	eventually(t, "who still holds the host is told", func() error {
		if err := h.StartDomain(testContext(t), domainUUID(1)); !errors.Is(err, ErrUnreachable) {
			return errors.New("it goes on")
		}
		return nil
	})
}

// TestPassword has the test driver ask for a name and a password.
func TestPassword(t *testing.T) {
	file := filepath.Join(t.TempDir(), "host.xml")
	must(t, os.WriteFile(file, []byte(`<node><auth><user password='secret'>operator</user></auth></node>`), 0o600))
	for _, tt := range []struct {
		name        string
		credentials Credentials
		want        error
	}{
		{"right", Credentials{Username: "operator", Password: "secret"}, nil},
		{"wrong", Credentials{Username: "operator", Password: "guess"}, ErrAuth},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, _ := newPool(t, quickly)
			p.Set(testKey, Config{URI: "test://" + file, Credentials: tt.credentials})
			eventually(t, "the answer", func() error {
				_, err := p.Get(testKey)
				if errors.Is(err, ErrConnecting) || !errors.Is(err, tt.want) {
					return errors.Join(errors.New("not yet"), err)
				}
				return nil
			})
		})
	}
}

// TestDefinitionNotMade has the host too busy for a definition: nothing is left of it to be mistaken for another's.
func TestDefinitionNotMade(t *testing.T) {
	_, h, _ := connect(t, hosttest.TestDriver(t), seldom)
	s, err := h.current()
	must(t, err)
	for range callsInFlight {
		must(t, s.control.acquire(testContext(t)))
	}
	ctx, cancel := context.WithTimeout(testContext(t), 10*time.Millisecond)
	defer cancel()
	if err := h.DefineDomain(ctx, domainXML("test", 1)); !errors.Is(err, ErrTimeout) {
		t.Errorf("got %v", err)
	}
	for range callsInFlight {
		s.control.release()
	}
	s.inventory.mu.Lock()
	defer s.inventory.mu.Unlock()
	if len(s.inventory.defining) > 0 {
		t.Errorf("%d definitions are announced", len(s.inventory.defining))
	}
}
