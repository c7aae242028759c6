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
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/image"
)

func TestImageOptions(t *testing.T) {
	defaults := image.Policy{MaxFileBytes: image.DefaultMaxFileBytes, MaxDiskBytes: image.DefaultMaxDiskBytes}
	with := func(change func(*image.Policy)) image.Policy {
		policy := defaults
		change(&policy)
		return policy
	}
	for args, want := range map[string]image.Policy{
		"": defaults,
		// As a Deployment has them in which nothing was set.
		"--image-allow-http=false --image-allowed-cidrs=none": defaults,
		"--image-allowed-cidrs=":                              defaults,
		"--image-allow-http":                                  with(func(p *image.Policy) { p.AllowHTTP = true }),
		"--image-allowed-cidrs=10.1.2.3/16,fd00::/8": with(func(p *image.Policy) {
			p.AllowedNetworks = []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("fd00::/8")}
		}),
		"--image-max-size=10Gi --image-max-disk-size=100G": with(func(p *image.Policy) { p.MaxFileBytes, p.MaxDiskBytes = 10<<30, 100e9 }),
	} {
		got, err := parseImageOptions(t, args)
		if err != nil || got.AllowHTTP != want.AllowHTTP || !slices.Equal(got.AllowedNetworks, want.AllowedNetworks) ||
			got.MaxFileBytes != want.MaxFileBytes || got.MaxDiskBytes != want.MaxDiskBytes {
			t.Errorf("%q: got %+v, %v, want %+v", args, got, err, want)
		}
	}
	for args, word := range map[string]string{
		"--image-allowed-cidrs=10.1.2.3":      "10.1.2.3/32",
		"--image-allowed-cidrs=example.org/8": "--image-allowed-cidrs",
		"--image-max-size=0":                  "--image-max-size",
		"--image-max-disk-size=-1Gi":          "--image-max-disk-size",
	} {
		if got, err := parseImageOptions(t, args); err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("%q: got %+v, %v", args, got, err)
		}
	}
}

func parseImageOptions(t *testing.T, args string) (image.Policy, error) {
	t.Helper()
	var options imageOptions
	flags := pflag.NewFlagSet("manager", pflag.ContinueOnError)
	options.addFlags(flags)
	if err := flags.Parse(strings.Fields(args)); err != nil {
		t.Fatal(err)
	}
	return options.policy()
}
