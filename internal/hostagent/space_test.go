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
	"bufio"
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netns"
)

// space is a network namespace that plays a machine: a guest, or the internet.
type space struct {
	t     *testing.T
	pid   int
	netns string
}

func newSpace(t *testing.T) *space {
	t.Helper()
	cmd := exec.Command("sleep", "infinity")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	// The signal comes when the thread ends that started it.
	started := make(chan error)
	end := make(chan struct{})
	go func() {
		runtime.LockOSThread()
		started <- cmd.Start()
		<-end
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { close(end) })
	s := &space{t: t, pid: cmd.Process.Pid, netns: "/proc/" + strconv.Itoa(cmd.Process.Pid) + "/ns/net"}
	s.run("ip", "link", "set", "lo", "up")
	return s
}

// run runs a command in the space.
func (s *space) run(name string, args ...string) {
	s.t.Helper()
	out, err := exec.Command("nsenter", append([]string{"--net=" + s.netns, "--", name}, args...)...).CombinedOutput()
	if err != nil {
		s.t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
}

// inside runs something on a thread in the space. The thread is never unlocked, and ends with its goroutine.
func inside[T any](path string, f func() (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	go func() {
		runtime.LockOSThread()
		ns, err := netns.GetFromPath(path)
		if err == nil {
			err = netns.Set(ns)
			_ = ns.Close()
		}
		if err != nil {
			done <- result{err: err}
			return
		}
		value, err := f()
		done <- result{value, err}
	}()
	r := <-done
	return r.value, r.err
}

// serve answers each TCP connection to an address with the client's address, until the test ends.
func (s *space) serve(address string) {
	s.t.Helper()
	listener, err := inside(s.netns, func() (net.Listener, error) { return net.Listen("tcp4", address) })
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				fmt.Fprintln(conn, netip.MustParseAddrPort(conn.RemoteAddr().String()).Addr())
				_, _ = io.Copy(conn, conn) // and then whatever it says, until it has said all
			}()
		}
	}()
}

// serveUDP answers each packet to an address with the client's address.
func (s *space) serveUDP(address string) {
	s.t.Helper()
	conn, err := inside(s.netns, func() (net.PacketConn, error) { return net.ListenPacket("udp4", address) })
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { conn.Close() })
	go func() {
		buffer := make([]byte, 100)
		for {
			_, from, err := conn.ReadFrom(buffer)
			if err != nil {
				return
			}
			_, _ = conn.WriteTo([]byte(netip.MustParseAddrPort(from.String()).Addr().String()+"\n"), from)
		}
	}()
}

// dialTimeout is how long an address may stay silent: much longer than an answer takes here.
const dialTimeout = time.Second

// connect opens a connection from an address of the space, any if it is empty.
func (s *space) connect(network, from, to string) (net.Conn, error) {
	return connect(s.netns, network, from, to)
}

func connect(path, network, from, to string) (net.Conn, error) {
	return inside(path, func() (net.Conn, error) {
		dialer := net.Dialer{Timeout: dialTimeout}
		switch {
		case from != "" && network == "udp4":
			dialer.LocalAddr = &net.UDPAddr{IP: net.ParseIP(from)}
		case from != "":
			dialer.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from)}
		}
		return dialer.DialContext(context.Background(), network, to)
	})
}

// ask connects from the namespace of a path and returns the address that the server saw.
func ask(path, network, from, to string) (string, error) {
	conn, err := connect(path, network, from, to)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(dialTimeout))
	if network == "udp4" {
		fmt.Fprintln(conn, "hello")
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	return strings.TrimSpace(line), err
}

// open returns those of the ports at an address to which a connection can be made.
func (s *space) open(address string, ports []int) []int {
	s.t.Helper()
	type answer struct {
		port int
		open bool
	}
	const workers = 24
	todo, answers := make(chan int), make(chan answer)
	for range workers {
		go func() {
			_, _ = inside(s.netns, func() (struct{}, error) {
				for port := range todo {
					conn, err := (&net.Dialer{Timeout: dialTimeout}).Dial("tcp4", net.JoinHostPort(address, strconv.Itoa(port)))
					if err == nil {
						conn.Close()
					}
					answers <- answer{port, err == nil}
				}
				return struct{}{}, nil
			})
		}()
	}
	go func() {
		for _, port := range ports {
			todo <- port
		}
		close(todo)
	}()
	var found []int
	for range ports {
		if a := <-answers; a.open {
			found = append(found, a.port)
		}
	}
	return found
}

// plug links the space to an interface of that name in another namespace, and gives it addresses.
func (s *space) plug(path, name string, addresses ...string) {
	s.t.Helper()
	command(s.t, path, "ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", strconv.Itoa(s.pid))
	command(s.t, path, "ip", "link", "set", name, "up")
	for _, address := range addresses {
		s.run("ip", "addr", "add", address, "dev", "eth0")
	}
	s.run("ip", "link", "set", "eth0", "up")
}

// command runs a command in the namespace of a path.
func command(t *testing.T, path, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command("nsenter", append([]string{"--net=" + path, "--", name}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// script runs a shell script in the namespace of a path.
func script(t *testing.T, path, text string) string {
	t.Helper()
	return command(t, path, "sh", "-ec", text)
}

// self is this program, which runs as the agent, too: see TestMain.
var self = os.Args[0]

// program is the agent that is tested: the one that HOST_AGENT names, such as that which is shipped.
func program() string { return cmp.Or(os.Getenv("HOST_AGENT"), self) }

// echoes tells whether a connection to serve's server still gets answers, within some time.
func echoes(conn net.Conn, within time.Duration) bool {
	_ = conn.SetDeadline(time.Now().Add(within))
	if _, err := fmt.Fprintln(conn, "hello"); err != nil {
		return false
	}
	buffer := make([]byte, 100)
	for {
		n, err := conn.Read(buffer)
		if err != nil {
			return false
		}
		if strings.Contains(string(buffer[:n]), "hello") {
			return true
		}
	}
}
