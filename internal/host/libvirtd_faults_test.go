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
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/hosttest"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/lab/privatehost"
)

// signalGuest sends a signal, such as -KILL, to the QEMU process of a domain.
func signalGuest(t *testing.T, lab *privatehost.Host, signal, name string) {
	t.Helper()
	pid, err := os.ReadFile(lab.Path("/run/libvirt/qemu/" + name + ".pid"))
	must(t, err)
	if out, err := lab.Inside(testContext(t), "kill", signal, strings.TrimSpace(string(pid))).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

func TestLibvirtdCrash(t *testing.T) {
	lab := hosttest.Libvirtd(t)
	_, h, events := connect(t, socketURI(lab))
	ctx, uuid := testContext(t), domainUUID(1)
	must(t, h.DefineDomain(ctx, domainXML("qemu", 1)))
	must(t, h.StartDomain(ctx, uuid))
	eventually(t, "its events are in", func() error {
		if domain, err := h.Domain(uuid); err != nil || domain.State != Running {
			return errors.Join(err, errors.New(string(domain.State)))
		}
		return nil
	})
	events.forget()
	start := time.Now()
	signalGuest(t, lab, "-KILL", "guest-1")
	eventually(t, "the crash is seen", func() error {
		if domain, err := h.Domain(uuid); err != nil || domain.State != Shutoff || domain.Reason != ReasonCrashed {
			return fmt.Errorf("got %+v, %w", domain, err)
		}
		return nil
	})
	events.expect(t, Event{Kind: DomainChanged, UUID: uuid})
	took := time.Since(start)
	t.Logf("A crash was told after %s", took)
	if took > time.Second {
		t.Errorf("that is too long")
	}
	// What the event said is also what libvirt answers when it is asked.
	s, err := h.current()
	must(t, err)
	if state, reason, err := s.state(ctx, uuid); err != nil || state != Shutoff || reason != ReasonCrashed {
		t.Errorf("libvirt says %s %s, %v", state, reason, err)
	}
	must(t, h.StartDomain(ctx, uuid))
}

// TestLibvirtdRestart kills the daemon; the guests go on, but for one, which dies meanwhile.
func TestLibvirtdRestart(t *testing.T) {
	lab := hosttest.Libvirtd(t)
	p, h, events := connect(t, socketURI(lab), quickly, func(p *Pool) { p.timing.secondLook = 2 * time.Second })
	ctx := testContext(t)
	for n := 1; n <= 3; n++ {
		must(t, h.DefineDomain(ctx, domainXML("qemu", n)))
	}
	must(t, h.StartDomain(ctx, domainUUID(1)))
	must(t, h.StartDomain(ctx, domainUUID(2)))
	must(t, h.CreateVolume(ctx, "default", volumeXML("a", "qcow2", 1<<20)))
	must(t, h.EnsureNetwork(ctx, networkXML(networkUUID, "nodes", "10.7.0")))
	eventually(t, "their events are in", func() error { return settled(h) })
	events.forget()

	must(t, lab.StopDaemon(ctx, syscall.SIGKILL))
	events.expect(t, Event{Kind: HostDisconnected})
	if _, err := p.Get(testKey); !errors.Is(err, ErrUnreachable) {
		t.Errorf("without a daemon: %v", err)
	}
	if _, err := h.Domain(domainUUID(1)); !errors.Is(err, ErrUnreachable) {
		t.Errorf("its inventory: %v", err)
	}
	if err := h.StartDomain(ctx, domainUUID(3)); !errors.Is(err, ErrUnreachable) {
		t.Errorf("a call: %v", err)
	}
	signalGuest(t, lab, "-KILL", "guest-2")
	must(t, os.Remove(lab.Path("/etc/libvirt/qemu/guest-3.xml")))

	start := time.Now()
	must(t, lab.StartDaemon(ctx))
	connected(t, p, testKey)
	t.Logf("Connected %s after the daemon was started again", time.Since(start))
	events.expect(t, Event{Kind: HostConnected})
	events.expect(t, Event{Kind: DomainChanged, UUID: domainUUID(2)}) // died
	events.expect(t, Event{Kind: DomainChanged, UUID: domainUUID(3)}) // vanished
	if slices.Contains(events.seen(), Event{Host: testKey, Kind: DomainChanged, UUID: domainUUID(1)}) {
		t.Error("the guest that went on is said to have changed")
	}
	if domain, err := h.Domain(domainUUID(1)); err != nil || domain.State != Running || domain.MaxMemoryBytes != 64<<20 {
		t.Errorf("the guest that went on: %+v, %v", domain, err)
	}
	if domain, err := h.Domain(domainUUID(2)); err != nil || domain.State != Shutoff {
		t.Errorf("the guest that died: %+v, %v", domain, err)
	} else {
		t.Logf("libvirt's reason for the guest that died meanwhile: %s", domain.Reason)
	}
	// The old host goes on working, with handles and events of its own.
	must(t, h.DestroyDomain(ctx, domainUUID(1)))
	if _, err := h.Reserve(ctx, networkUUID, "52:54:00:00:00:01", "one", pickNext); err != nil {
		t.Error(err)
	}
	must(t, h.DeleteVolume(ctx, "default", "a"))
	must(t, h.DeleteNetwork(ctx, networkUUID))
	eventually(t, "events arrive", func() error {
		if domain, err := h.Domain(domainUUID(1)); err != nil || domain.State != Shutoff {
			return fmt.Errorf("got %+v, %w", domain, err)
		}
		return nil
	})
}

// TestLibvirtdRestartTakesDeadForAlive has a guest die without the daemon, which is then slow to find out: until then it
// says that the guest runs, and it sends no event when it knows better.
func TestLibvirtdRestartTakesDeadForAlive(t *testing.T) {
	lab := hosttest.Libvirtd(t)
	p, h, events := connect(t, socketURI(lab), quickly, func(p *Pool) { p.timing.secondLook = 2 * time.Second })
	ctx, uuid := testContext(t), domainUUID(1)
	must(t, h.DefineDomain(ctx, domainXML("qemu", 1)))
	must(t, h.StartDomain(ctx, uuid))
	eventually(t, "its events are in", func() error {
		if domain, err := h.Domain(uuid); err != nil || domain.State != Running {
			return fmt.Errorf("got %+v, %w", domain, err)
		}
		return nil
	})
	must(t, lab.StopDaemon(ctx, syscall.SIGKILL))
	events.expect(t, Event{Kind: HostDisconnected})
	signalGuest(t, lab, "-KILL", "guest-1")
	refuse := blockUnix(t, lab.Path("/var/lib/libvirt/qemu/domain-1-guest-1/monitor.sock"))
	must(t, lab.StartDaemon(ctx))
	connected(t, p, testKey)
	if domain, err := h.Domain(uuid); err != nil || domain.State != Running {
		t.Fatalf("before the daemon knows: %+v, %v", domain, err)
	}
	events.forget()
	refuse()
	events.expect(t, Event{Kind: DomainChanged, UUID: uuid})
	if domain, err := h.Domain(uuid); err != nil || domain.State != Shutoff {
		t.Errorf("when the daemon knows: %+v, %v", domain, err)
	}
}

// blockUnix puts a socket in the place of another that lets its clients wait, until it is told to refuse them.
func blockUnix(t *testing.T, path string) (refuse func()) {
	t.Helper()
	must(t, os.Remove(path))
	dir, err := os.Open(filepath.Dir(path)) // a socket's path must be short
	must(t, err)
	address := &syscall.SockaddrUnix{Name: fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path))}
	listener, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	must(t, err)
	must(t, syscall.Bind(listener, address))
	must(t, syscall.Listen(listener, 0))
	must(t, os.Chmod(path, 0o777))
	// Its queue has room for one.
	client, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	must(t, err)
	must(t, syscall.Connect(client, address))
	refuse = sync.OnceFunc(func() {
		must(t, errors.Join(syscall.Close(listener), syscall.Close(client), dir.Close()))
	})
	t.Cleanup(refuse)
	return refuse
}

// settled waits for the inventory to have the events of everything that was done.
func settled(h *Host) error {
	for n, want := range map[int]State{1: Running, 2: Running, 3: Shutoff} {
		if domain, err := h.Domain(domainUUID(n)); err != nil || domain.State != want {
			return fmt.Errorf("got %+v, %w", domain, err)
		}
	}
	return nil
}

// TestLibvirtdKilledDuringCalls kills the daemon again and again under calls: each comes back, one that was said to have
// succeeded has, and the others failed for want of the daemon and can be made again.
func TestLibvirtdKilledDuringCalls(t *testing.T) {
	lab := hosttest.Libvirtd(t)
	p, h, _ := connect(t, socketURI(lab), quickly)
	ctx := testContext(t)
	content := bytes.Repeat([]byte("kept"), 1<<8)
	upload := func(name string) error {
		return h.UploadVolume(ctx, "default", name, int64(len(content)), bytes.NewReader(content))
	}
	var (
		mu                         sync.Mutex
		created, uploaded, unknown []string
		defined                    = map[int]int{} // how often
		cut                        int
	)
	// settle notes how a call ended.
	settle := func(err error, note func()) bool {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case err == nil:
			note()
		case errors.Is(err, ErrUnreachable), errors.Is(err, ErrHostBusy):
			cut++
		default:
			t.Errorf("got %v", err)
		}
		return err == nil
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for n := range 4 {
		wg.Go(func() {
			for round := 0; ; round++ {
				select {
				case <-stop:
					return
				default:
				}
				name := fmt.Sprintf("v-%d-%d", n, round)
				ok := settle(h.CreateVolume(ctx, "default", volumeXML(name, "raw", len(content))), func() { created = append(created, name) })
				if ok {
					ok = settle(upload(name), func() { uploaded = append(uploaded, name) })
				} else {
					mu.Lock()
					unknown = append(unknown, name)
					mu.Unlock()
				}
				if !settle(h.DefineDomain(ctx, domainXML("qemu", n+1)), func() { defined[n+1]++ }) || !ok {
					time.Sleep(5 * time.Millisecond)
				}
			}
		})
	}
	for round := 1; round <= 3; round++ {
		connected(t, p, testKey)
		eventually(t, "calls succeed", func() error {
			mu.Lock()
			defer mu.Unlock()
			if len(uploaded) < 5*round || len(defined) < 4 {
				return fmt.Errorf("%d volumes were filled, %d domains defined", len(uploaded), len(defined))
			}
			return nil
		})
		must(t, lab.StopDaemon(ctx, syscall.SIGKILL))
		must(t, lab.StartDaemon(ctx))
	}
	close(stop)
	done := make(chan struct{})
	go func() { defer close(done); wg.Wait() }()
	select {
	case <-done:
	case <-ctx.Done():
		t.Fatal("a call never came back")
	}
	connected(t, p, testKey)

	t.Logf("%d volumes were created, %d filled, %d domains defined; %d calls were cut", len(created), len(uploaded), len(defined), cut)
	if cut < 3 {
		t.Error("that shows nothing")
	}
	for _, name := range created {
		if volume, err := h.Volume(ctx, "default", name); err != nil || volume.CapacityBytes != int64(len(content)) {
			t.Errorf("%s was created: %+v, %v", name, volume, err)
		}
	}
	for _, name := range uploaded {
		var got bytes.Buffer
		if err := h.DownloadVolume(ctx, "default", name, &got, 0, int64(len(content))); err != nil || !bytes.Equal(got.Bytes(), content) {
			t.Errorf("%s was filled: %d bytes, %v", name, got.Len(), err)
		}
	}
	for _, name := range unknown { // it may be there, or half of it: then it is made anew
		if err := h.DeleteVolume(ctx, "default", name); err != nil && !errors.Is(err, ErrNotFound) {
			t.Error(err)
		}
	}
	for _, name := range unknown[:min(len(unknown), 4)] {
		must(t, h.CreateVolume(ctx, "default", volumeXML(name, "raw", len(content))))
		must(t, upload(name))
	}
	for n := range defined {
		domain, err := h.Domain(domainUUID(n))
		if _, xmlErr := h.DomainXML(ctx, domainUUID(n)); err != nil || xmlErr != nil || domain.MaxMemoryBytes != 64<<20 {
			t.Errorf("domain %d was defined: %+v, %v, %v", n, domain, err, xmlErr)
		}
	}
}

// TestLibvirtdHangs stops a daemon in its tracks while another host goes on.
func TestLibvirtdHangs(t *testing.T) {
	lab, neighbour := hosttest.Libvirtd(t), hosttest.Libvirtd(t)
	p, h, events := connect(t, socketURI(lab), quickly)
	p.Set("default/neighbour", Config{URI: socketURI(neighbour)})
	good := connected(t, p, "default/neighbour")
	ctx := testContext(t)
	must(t, h.DefineDomain(ctx, domainXML("qemu", 1)))
	must(t, good.DefineDomain(ctx, domainXML("qemu", 1)))

	must(t, lab.SignalDaemon(syscall.SIGSTOP))
	start := time.Now()
	short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	if _, err := h.DomainXML(short, domainUUID(1)); !errors.Is(err, ErrTimeout) {
		t.Errorf("a call: %v", err)
	}
	if waited := time.Since(start); waited > time.Second {
		t.Errorf("its caller was let go after %s", waited)
	}
	// As many callers as there are workers. Those whose calls are under way are stuck with the host, no others.
	const callers = 50
	results := make(chan error, callers)
	for range callers {
		go func() {
			_, err := h.DomainXML(ctx, domainUUID(1))
			results <- err
		}()
	}
	const stuck = callsInFlight - 1 // the first call still has a slot
	for range callers - stuck {
		if err := <-results; !errors.Is(err, ErrHostBusy) || errors.Is(err, ErrUnreachable) {
			t.Errorf("a patient call: %v", err)
		}
	}
	freed := time.Since(start)
	if freed > quick.silence+time.Second {
		t.Errorf("callers were let go after %s", freed)
	}
	again := time.Now()
	if _, err := h.DomainXML(ctx, domainUUID(1)); !errors.Is(err, ErrHostBusy) && !errors.Is(err, ErrUnreachable) {
		t.Errorf("the next call: %v", err)
	}
	if took := time.Since(again); took > 100*time.Millisecond {
		t.Errorf("the next call took %s", took)
	}
	for range 10 {
		start := time.Now()
		if _, err := good.DomainXML(ctx, domainUUID(1)); err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took > time.Second {
			t.Errorf("the neighbour took %s", took)
		}
	}
	for range stuck {
		if err := <-results; !errors.Is(err, ErrUnreachable) {
			t.Errorf("a call that was under way: %v", err)
		}
	}
	events.expect(t, Event{Kind: HostDisconnected})
	t.Logf("Callers were let go after %s, the host was given up after %s", freed, time.Since(start))
	if _, err := p.Get(testKey); !errors.Is(err, ErrUnreachable) {
		t.Errorf("the host: %v", err)
	}
	must(t, lab.SignalDaemon(syscall.SIGCONT))
	start = time.Now()
	connected(t, p, testKey)
	t.Logf("Connected %s after it went on", time.Since(start))
	events.expect(t, Event{Kind: HostConnected})
	if _, err := h.DomainXML(ctx, domainUUID(1)); err != nil {
		t.Error(err)
	}
}

// TestLibvirtdHiccup stops a daemon for a moment: the connection stands, and calls are made again at once.
func TestLibvirtdHiccup(t *testing.T) {
	lab := hosttest.Libvirtd(t)
	_, h, events := connect(t, socketURI(lab), quickly, func(p *Pool) { p.timing.pingDeadline = time.Minute })
	ctx := testContext(t)
	must(t, h.DefineDomain(ctx, domainXML("qemu", 1)))
	events.forget()
	must(t, lab.SignalDaemon(syscall.SIGSTOP))
	underWay := make(chan error, 1)
	go func() {
		_, err := h.DomainXML(ctx, domainUUID(1))
		underWay <- err
	}()
	eventually(t, "the host is suspected", func() error {
		short, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
		defer cancel()
		if _, err := h.DomainXML(short, domainUUID(1)); !errors.Is(err, ErrHostBusy) {
			return fmt.Errorf("got %w", err)
		}
		return nil
	})
	must(t, lab.SignalDaemon(syscall.SIGCONT))
	start := time.Now()
	must(t, <-underWay)
	eventually(t, "the host is itself again", func() error {
		_, err := h.DomainXML(ctx, domainUUID(1))
		return err
	})
	if took := time.Since(start); took > time.Second {
		t.Errorf("it took %s", took)
	}
	if slices.Contains(events.seen(), Event{Host: testKey, Kind: HostDisconnected}) {
		t.Error("it was given up")
	}
}

// TestSilence dials a peer that accepts and then says nothing. It does so again and again, but each dial that hangs holds
// a thread, so there are few of them.
func TestSilence(t *testing.T) {
	p, _ := newPool(t, quickly)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer listener.Close() // accepts and says nothing
	cfg := Config{
		URI:         "qemu+libssh2://root@" + listener.Addr().String() + "/system",
		Credentials: Credentials{SSHPrivateKey: []byte("key"), KnownHosts: []byte("# nobody\n")},
	}
	p.timing.dial = 50 * time.Millisecond
	p.timing.maxBackoff = defaultTiming.maxBackoff
	p.Set(testKey, cfg)
	eventually(t, "the silence is told", func() error {
		if _, err := p.Get(testKey); !errors.Is(err, ErrTimeout) || !errors.Is(err, ErrUnreachable) {
			return fmt.Errorf("got %w", err)
		}
		return nil
	})
	p.mu.Lock()
	h := p.hosts[testKey].host
	p.mu.Unlock()
	eventually(t, "it is dialled again", func() error {
		if hanging := h.dialing.Load(); hanging <= hangingAtMost {
			return fmt.Errorf("%d dials", hanging)
		}
		return nil
	})
	time.Sleep(2 * time.Second) // in which 40 would fit
	if hanging := h.dialing.Load(); hanging > hangingAtMost+1 {
		t.Errorf("%d dials hang", hanging)
	}
}
