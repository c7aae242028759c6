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

// How long a packet may be on its way there and back, and how often a datagram is
// sent.
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

// pinger sends echo requests that nobody may fragment.
type pinger struct {
	target         netip.Addr
	size, count    int
	wait, interval time.Duration
}

// ping tells what became of each request that wasn't answered, and sums up. All of
// them must be answered.
func (p pinger) ping(ctx context.Context, out io.Writer) error {
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
	answered, last := 0, time.Now()
	var longest time.Duration
	for sequence := 0; sequence < p.count && ctx.Err() == nil; sequence++ {
		if err := p.once(conn, sequence); err != nil {
			fmt.Fprintf(out, "%d bytes: %v\n", p.size, err)
			continue
		}
		answered++
		longest, last = max(longest, time.Since(last)), time.Now()
		select {
		case <-ctx.Done():
		case <-time.After(p.interval):
		}
	}
	longest = max(longest, time.Since(last))
	fmt.Fprintf(out, "%d of %d were answered, the longest time without an answer was %s\n", answered, p.count, longest.Round(time.Millisecond))
	if answered < p.count {
		return errors.New("not all of them were answered")
	}
	return nil
}

// once sends one request. The error says what came instead of an answer.
func (p pinger) once(conn net.PacketConn, sequence int) error {
	packet := make([]byte, icmpHeader+p.size)
	packet[0] = echoRequest
	identifier := uint16(os.Getpid())
	binary.BigEndian.PutUint16(packet[4:], identifier)
	binary.BigEndian.PutUint16(packet[6:], uint16(sequence))
	binary.BigEndian.PutUint16(packet[2:], checksum(packet))
	if err := conn.SetDeadline(time.Now().Add(p.wait)); err != nil {
		return err
	}
	if _, err := conn.WriteTo(packet, &net.IPAddr{IP: p.target.AsSlice()}); err != nil {
		return err
	}
	came := make([]byte, longestPacket)
	for {
		n, from, err := conn.ReadFrom(came)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return errors.New("silence")
		}
		if err != nil {
			return err
		}
		switch {
		case n >= icmpHeader && came[0] == echoReply && binary.BigEndian.Uint16(came[4:]) == identifier && binary.BigEndian.Uint16(came[6:]) == uint16(sequence):
			return nil
		case n >= quotedAt+2 && came[0] == unreachable && binary.BigEndian.Uint16(came[quotedAt:]) == identifier:
			if came[1] == fragNeeded {
				return fmt.Errorf("fragmentation needed, says %s: the MTU is %d", from, binary.BigEndian.Uint16(came[6:]))
			}
			return fmt.Errorf("unreachable (%d), says %s", came[1], from)
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
