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

// Command netcheck answers by HTTP and UDP, and asks other netchecks. Pods of the
// end-to-end tests run it to show that pods reach pods, services by name, and the
// outside, and with packets of which lengths.
//
//	netcheck serve [-listen ADDRESS]
//	netcheck get [-timeout DURATION] [-count] URL
//	netcheck put [-timeout DURATION] [-bytes N] URL
//	netcheck udp [-from N] [-to N] ADDRESS:PORT
//	netcheck ping [-size N] [-count N] [-wait DURATION] [-interval DURATION] ADDRESS
//	netcheck dns [-timeout DURATION] -server ADDRESS:PORT NAME
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "netcheck:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 0 {
		return errors.New("say what to do: serve, get, put, udp, ping or dns")
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()

	flags := flag.NewFlagSet(args[0], flag.ContinueOnError)
	timeout := flags.Duration("timeout", 10*time.Second, "how long all of it may take")
	// one is the only argument after the flags.
	one := func(what string) (string, error) {
		if err := flags.Parse(args[1:]); err != nil {
			return "", err
		}
		if flags.NArg() != 1 {
			return "", fmt.Errorf("%s needs exactly one %s", args[0], what)
		}
		return flags.Arg(0), nil
	}
	within := func() (context.Context, context.CancelFunc) { return context.WithTimeout(ctx, *timeout) }

	switch args[0] {
	case "serve":
		listen := flags.String("listen", ":8080", "address to serve on, by TCP and UDP")
		if err := flags.Parse(args[1:]); err != nil {
			return err
		}
		return serve(ctx, *listen)
	case "get":
		count := flags.Bool("count", false, "print how many bytes came and how, instead of the bytes")
		url, err := one("URL")
		if err != nil {
			return err
		}
		ctx, cancel := within()
		defer cancel()
		return get(ctx, url, *count, os.Stdout)
	case "put":
		length := flags.Int64("bytes", 10<<20, "how many bytes to send")
		url, err := one("URL")
		if err != nil {
			return err
		}
		ctx, cancel := within()
		defer cancel()
		return put(ctx, url, *length, os.Stdout)
	case "udp":
		from, to := flags.Int("from", 1300, "length of the first datagram"), flags.Int("to", 1500, "length of the last one")
		target, err := one("ADDRESS:PORT")
		if err != nil {
			return err
		}
		return echo(ctx, target, *from, *to, os.Stdout)
	case "ping":
		var p pinger
		flags.IntVar(&p.size, "size", 56, "bytes after the ICMP header")
		flags.IntVar(&p.count, "count", 3, "how many to send")
		flags.DurationVar(&p.wait, "wait", packetTimeout, "how long to wait for each answer")
		flags.DurationVar(&p.interval, "interval", 0, "how long to wait after an answer")
		target, err := one("ADDRESS")
		if err != nil {
			return err
		}
		if p.target, err = netip.ParseAddr(target); err != nil {
			return err
		}
		return p.ping(ctx, os.Stdout)
	case "dns":
		server := flags.String("server", "", "ADDRESS:PORT of the DNS server, which is asked by TCP")
		name, err := one("NAME")
		if err != nil {
			return err
		}
		ctx, cancel := within()
		defer cancel()
		return lookUp(ctx, *server, name, os.Stdout)
	default:
		return fmt.Errorf("unknown command %q: use serve, get, put, udp, ping or dns", args[0])
	}
}
