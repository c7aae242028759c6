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

package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"time"
)

// How long a packet may be on its way there and back, and how often it is sent.
const (
	packetTimeout = 2 * time.Second
	datagramTries = 3
)

// echo sends datagrams of each length and wants them back. It tells what became of
// those that didn't come back, each of which it sends several times.
func echo(ctx context.Context, target string, from, to int, out io.Writer) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "udp", target)
	if err != nil {
		return err
	}
	defer conn.Close()
	var lost []string
	for length := from; length <= to && ctx.Err() == nil; length++ {
		var err error
		for range datagramTries {
			if err = echoOnce(conn, length); err == nil {
				break
			}
		}
		if err != nil {
			lost = append(lost, fmt.Sprintf("%d: %v", length, err))
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if len(lost) > 0 {
		return fmt.Errorf("%d of %d datagrams didn't come back: %s", len(lost), to-from+1, strings.Join(lost, "; "))
	}
	_, err = fmt.Fprintf(out, "%d datagrams came back\n", to-from+1)
	return err
}

func echoOnce(conn net.Conn, length int) error {
	sent := bytes.Repeat([]byte{byte(length)}, length)
	if err := conn.SetDeadline(time.Now().Add(packetTimeout)); err != nil {
		return err
	}
	if _, err := conn.Write(sent); err != nil {
		return errors.Unwrap(err)
	}
	came := make([]byte, 1<<16)
	for {
		n, err := conn.Read(came)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return errors.New("silence")
		}
		if err != nil {
			return errors.Unwrap(err)
		}
		if bytes.Equal(came[:n], sent) {
			return nil
		}
	}
}

// Of ICMP (RFC 792).
const (
	echoReply     = 0
	unreachable   = 3
	echoRequest   = 8
	fragNeeded    = 4
	icmpHeader    = 8
	quotedAt      = icmpHeader + 20 + 4 // The identifier in the packet that an error quotes.
	longestPacket = 1 << 16
)

// ping sends echo requests that nobody may fragment, and tells what became of each.
// All of them must be answered.
func ping(ctx context.Context, target netip.Addr, size, count int, out io.Writer) error {
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var err error
		return errors.Join(raw.Control(func(fd uintptr) {
			err = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IP, syscall.IP_MTU_DISCOVER, syscall.IP_PMTUDISC_DO)
		}), err)
	}}
	conn, err := config.ListenPacket(ctx, "ip4:icmp", "0.0.0.0")
	if err != nil {
		return err
	}
	defer conn.Close()
	answered := 0
	for sequence := range count {
		what, ok := pingOnce(conn, target, size, sequence)
		fmt.Fprintf(out, "%d bytes: %s\n", size, what)
		if ok {
			answered++
		}
	}
	if answered < count {
		return fmt.Errorf("%d of %d were answered", answered, count)
	}
	return nil
}

func pingOnce(conn net.PacketConn, target netip.Addr, size, sequence int) (what string, answered bool) {
	packet := make([]byte, icmpHeader+size)
	packet[0] = echoRequest
	identifier := uint16(os.Getpid())
	binary.BigEndian.PutUint16(packet[4:], identifier)
	binary.BigEndian.PutUint16(packet[6:], uint16(sequence))
	binary.BigEndian.PutUint16(packet[2:], checksum(packet))
	started := time.Now()
	if err := conn.SetDeadline(started.Add(packetTimeout)); err != nil {
		return err.Error(), false
	}
	if _, err := conn.WriteTo(packet, &net.IPAddr{IP: target.AsSlice()}); err != nil {
		return err.Error(), false
	}
	came := make([]byte, longestPacket)
	for {
		n, from, err := conn.ReadFrom(came)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return "silence", false
		}
		if err != nil {
			return err.Error(), false
		}
		switch {
		case n >= icmpHeader && came[0] == echoReply && binary.BigEndian.Uint16(came[4:]) == identifier && binary.BigEndian.Uint16(came[6:]) == uint16(sequence):
			return fmt.Sprintf("answered in %s", time.Since(started).Round(100*time.Microsecond)), true
		case n >= quotedAt+2 && came[0] == unreachable && binary.BigEndian.Uint16(came[quotedAt:]) == identifier:
			if came[1] == fragNeeded {
				return fmt.Sprintf("fragmentation needed and not allowed, says %s: the MTU is %d", from, binary.BigEndian.Uint16(came[6:])), false
			}
			return fmt.Sprintf("unreachable (%d), says %s", came[1], from), false
		}
	}
}

// checksum is that of the internet protocols (RFC 1071).
func checksum(packet []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(packet); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(packet[i:]))
	}
	if len(packet)%2 == 1 {
		sum += uint32(packet[len(packet)-1]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
