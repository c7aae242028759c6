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
	"math/rand/v2"
	"net"
	"syscall"
	"time"
)

// patience is how long an outage of a remote host may last until dials become rare, if something answers them: each is
// a login that fails, and an entry in a log.
const patience = 5 * time.Minute

// limit is the longest pause until the next dial after one that failed. A local socket that isn't there costs nothing.
// What was refused will be again, until somebody does something about it.
func limit(err error, remote bool, outage time.Duration, t timing) time.Duration {
	if errors.Is(err, ErrAuth) || errors.Is(err, ErrInvalid) || errors.Is(err, ErrOtherHost) || remote && outage > patience {
		return t.maxBackoff
	}
	return t.soon
}

// pause waits between two attempts to connect.
func (h *Host) pause(ctx context.Context, failures int, atMost time.Duration) {
	timer := time.NewTimer(delay(failures, int(h.dialing.Load()), h.timing, atMost, rand.Float64()))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-h.hurry:
	case <-ctx.Done():
	}
}

// hangingAtMost is how many dials may hang before the next ones become rare.
const hangingAtMost = 3

// delay is the time until the next attempt: doubling from backoff to its limit, with up to half of it taken off at
// random. Each dial that hangs holds a thread, so when there are several the attempts become rare, but never end.
func delay(failures, hanging int, t timing, atMost time.Duration, random float64) time.Duration {
	d := atMost
	if failures < 16 {
		d = min(t.backoff<<failures, atMost)
	}
	if hanging > hangingAtMost {
		d = time.Duration(hanging) * t.maxBackoff
	}
	return d - time.Duration(random*float64(d)/2)
}

// errNoAnswer means that nothing accepts connections at a host's address.
var errNoAnswer = errors.New("nothing answers")

const (
	// knockInterval is the time between two connections that are tried, which go on side by side: one to a host that is
	// down may hang for long after the host is back.
	knockInterval = 500 * time.Millisecond
	// knockWindow is how long it is tried before the failure is told. It doesn't end as a new try begins.
	knockWindow = 7 * knockInterval / 2
)

// knock waits for something to accept a connection at a TCP address, which is closed at once. It costs a host that is
// down a packet now and then, and finds it when it is back, while a dial would still hang.
func knock(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, knockWindow)
	defer cancel()
	results := make(chan error, knockWindow/knockInterval+1)
	again := time.NewTicker(knockInterval)
	defer again.Stop()
	var last error
	for {
		go func() {
			conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
			if err == nil {
				_ = conn.Close()
			}
			results <- err
		}()
		for next := false; !next; {
			select {
			case err := <-results:
				if err == nil {
					return nil
				}
				last = err
			case <-again.C:
				next = true
			case <-ctx.Done():
				return unanswered(address, last)
			}
		}
	}
}

// unanswered tells one kind of failure from another in the same words each time, or it would be news each time.
func unanswered(address string, err error) error {
	var lookup *net.DNSError
	switch {
	case errors.As(err, &lookup):
		return fmt.Errorf("%w: the name in %s can't be looked up: %s", errNoAnswer, address, lookup.Err)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%w: %s refuses connections", errNoAnswer, address)
	default:
		return fmt.Errorf("%w at %s", errNoAnswer, address)
	}
}
