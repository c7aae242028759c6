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
	"fmt"
	"net/netip"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/image"
)

// imageOptions are what the flags say of images: from where they may come, and how large they may be.
type imageOptions struct {
	allowHTTP        bool
	allowedCIDRs     []string
	maxSize, maxDisk resource.QuantityValue
}

// noCIDRs stands for no network: clusterctl knows no variable whose default is empty.
const noCIDRs = "none"

func (o *imageOptions) addFlags(fs *pflag.FlagSet) {
	o.maxSize = resource.QuantityValue{Quantity: *resource.NewQuantity(image.DefaultMaxFileBytes, resource.BinarySI)}
	o.maxDisk = resource.QuantityValue{Quantity: *resource.NewQuantity(image.DefaultMaxDiskBytes, resource.BinarySI)}
	fs.BoolVar(&o.allowHTTP, "image-allow-http", false, "Let images be downloaded by http, and not by https only.")
	fs.StringSliceVar(&o.allowedCIDRs, "image-allowed-cidrs", nil, "Networks such as 10.1.2.0/24 that images may be downloaded from although they are private, loopback, link-local or otherwise not public, or none.")
	fs.Var(&o.maxSize, "image-max-size", "How large the file of an image may be, both as it is downloaded and decompressed.")
	fs.Var(&o.maxDisk, "image-max-disk-size", "How large the disk in an image may be, as a machine sees it.")
}

// policy is what the flags say. The error names the flag.
func (o *imageOptions) policy() (image.Policy, error) {
	policy := image.Policy{AllowHTTP: o.allowHTTP, MaxFileBytes: o.maxSize.Value(), MaxDiskBytes: o.maxDisk.Value()}
	if policy.MaxFileBytes <= 0 || policy.MaxDiskBytes <= 0 {
		return image.Policy{}, fmt.Errorf("reading --image-max-size and --image-max-disk-size: %s and %s must be more than 0", &o.maxSize, &o.maxDisk)
	}
	for _, text := range o.allowedCIDRs {
		if text == noCIDRs {
			continue
		}
		network, err := netip.ParsePrefix(text)
		if err != nil {
			return image.Policy{}, fmt.Errorf("reading --image-allowed-cidrs: %w: name networks such as 10.1.2.0/24 or 10.1.2.3/32", err)
		}
		policy.AllowedNetworks = append(policy.AllowedNetworks, network.Masked())
	}
	return policy, nil
}
