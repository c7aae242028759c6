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

package controllers

import (
	"errors"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"libvirt.org/go/libvirtxml"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/host"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/owner"
)

func TestClusterGetsItsNetworkOnEveryHost(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.readyHost("kvm1", testDriver(t), func(h *infrav1.LibvirtHost) { h.Spec.FailureDomain = "cellar" })
	s.readyHost("kvm2", testDriver(t))
	green := s.readyCluster("green", "10.20.0.0/25", func(c *infrav1.LibvirtCluster) {
		c.Spec.Network.IngressCIDR, c.Spec.Network.MTU = "10.20.0.128/25", 1400
	})

	uuid := green.Spec.Network.UUID
	if uuid != string(green.UID) {
		t.Errorf("The network's UUID is %q, the LibvirtCluster's %q", uuid, green.UID)
	}
	if green.Spec.ControlPlaneEndpoint != (infrav1.APIEndpoint{Host: "10.20.0.2", Port: 6443}) {
		t.Errorf("The endpoint is %v", green.Spec.ControlPlaneEndpoint)
	}
	if !ptr.Deref(green.Status.Initialization.Provisioned, false) {
		t.Error("It isn't provisioned")
	}
	if !slices.Equal(green.Status.Hosts, []string{"kvm1", "kvm2"}) {
		t.Errorf("The hosts are %v", green.Status.Hosts)
	}
	var domains []string
	for _, domain := range green.Status.FailureDomains {
		domains = append(domains, domain.Name)
	}
	if !slices.Equal(domains, []string{"cellar", "kvm2"}) {
		t.Errorf("The failure domains are %v", green.Status.FailureDomains)
	}
	for _, hostName := range green.Status.Hosts {
		found, err := s.kvm(hostName).Network(t.Context(), uuid)
		if err != nil || !found.Active || !found.Persistent {
			t.Fatalf("%s has %+v, %v", hostName, found, err)
		}
		if found.Name != s.namespace+".green" || !strings.HasPrefix(found.Bridge, "capl-") {
			t.Errorf("%s: the network is %s on the bridge %s", hostName, found.Name, found.Bridge)
		}
		if by, _ := owner.Of(found.XML); by.Name != "green" || by.Namespace != s.namespace || by.Kind != "LibvirtCluster" {
			t.Errorf("%s: the network belongs to %s", hostName, by)
		}
		net := parse[libvirtxml.Network](t, found.XML)
		if len(net.IPs) != 2 || net.IPs[0].Address != "10.20.0.1" || net.IPs[1].Address != "10.20.0.129" || net.MTU.Size != 1400 {
			t.Errorf("%s: the network is\n%s", hostName, found.XML)
		}
	}

	s.delete(green)
	s.expectGone(green)
	for _, hostName := range []string{"kvm1", "kvm2"} {
		if found, err := s.kvm(hostName).Network(t.Context(), uuid); !errors.Is(err, host.ErrNotFound) {
			t.Errorf("%s still has %+v, %v", hostName, found, err)
		}
	}
}

func TestClusterWaitsForItsMachinesToGo(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.readyHost("kvm1", testDriver(t))
	green := s.readyCluster("green", "10.20.0.0/27")
	libvirtMachine := s.readyMachine("green", "green-a")

	s.delete(green)
	s.expectCondition(green, infrav1.DeletingCondition, metav1.ConditionTrue, infrav1.ClusterMachinesLeftReason, "1 LibvirtMachine", "green-a")
	s.delete(libvirtMachine)
	s.expectGone(libvirtMachine)
	s.expectGone(green)
}
