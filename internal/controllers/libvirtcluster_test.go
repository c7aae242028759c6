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
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"libvirt.org/go/libvirtxml"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/cluster-api/util/conditions"

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

func TestClusterSaysWhyItHasNoHost(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	kvm1 := s.readyHost("kvm1", testDriver(t))
	green := s.createCluster("green", "10.20.0.0/27", func(c *infrav1.LibvirtCluster) {
		c.Spec.HostSelector.MatchLabels = map[string]string{"site": "home"}
	})
	s.expectCondition(green, infrav1.ClusterHostsAvailableCondition, metav1.ConditionFalse, infrav1.ClusterNoHostSelectedReason,
		"spec.hostSelector selects no LibvirtHost in namespace "+s.namespace)
	s.expectCondition(green, infrav1.ReadyCondition, metav1.ConditionFalse, infrav1.ClusterNoHostSelectedReason)

	kvm2 := s.createHost("kvm2", testDriver(t), func(h *infrav1.LibvirtHost) {
		h.Labels["site"], h.Spec.Storage.ImagePool = "home", "images"
	})
	s.expectCondition(green, infrav1.ClusterHostsAvailableCondition, metav1.ConditionFalse, infrav1.ClusterNoHostReadyReason,
		"kvm2: StorageReady: storage pool images")

	change(s, kvm1, func(h *infrav1.LibvirtHost) { h.Labels["site"] = "home" })
	s.expectReady(green)
	if !slices.Equal(green.Status.Hosts, []string{"kvm1"}) {
		t.Errorf("The hosts are %v", green.Status.Hosts)
	}

	// A host that isn't selected any more loses the network of the cluster, and one that is gets it.
	change(s, kvm2, func(h *infrav1.LibvirtHost) { h.Spec.Storage.ImagePool = "default" })
	s.expectReady(kvm2)
	change(s, kvm1, func(h *infrav1.LibvirtHost) { delete(h.Labels, "site") })
	eventually(t, "the network has moved", func() error {
		s.refresh(green)
		if !slices.Equal(green.Status.Hosts, []string{"kvm2"}) {
			return fmt.Errorf("the hosts are %v\n%s", green.Status.Hosts, describe(green))
		}
		return nil
	})
	if found, err := s.kvm("kvm1").Network(t.Context(), green.Spec.Network.UUID); !errors.Is(err, host.ErrNotFound) {
		t.Errorf("kvm1 still has %+v, %v", found, err)
	}
}

func TestClusterNetworkMustNotOverlapAnother(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.readyHost("kvm1", testDriver(t))
	s.readyHost("kvm2", testDriver(t))
	must(t, s.kvm("kvm1").EnsureNetwork(t.Context(), foreignNetwork("foreign", foreignUUID, "10.20.0.1")))
	green := s.createCluster("green", "10.20.0.0/27")
	s.expectCondition(green, infrav1.ClusterNetworkReadyCondition, metav1.ConditionFalse, infrav1.ClusterNetworkConflictReason,
		"kvm1: 10.20.0.0/27 overlaps 10.20.0.0/24 of network foreign", "remove it")
	// The other host has its network all the same.
	eventually(t, "kvm2 has the network", func() error {
		_, err := s.kvm("kvm2").Network(t.Context(), string(green.UID))
		return err
	})

	s.settles(green)
	must(t, s.kvm("kvm1").DeleteNetwork(t.Context(), foreignUUID))
	s.expectWoken(green)
}

// TestHostThatCantBeLeft has a cluster on a host that isn't connected and doesn't belong to the cluster any more. That is
// nothing to the other hosts of the cluster, nor to its removal from them.
func TestHostThatCantBeLeft(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.readyHost("kvm1", testDriver(t), func(h *infrav1.LibvirtHost) { h.Labels["site"] = "home" })
	attic := s.createHost("attic", "qemu+libssh2://root@127.0.0.1/system", func(h *infrav1.LibvirtHost) { h.Spec.CredentialsRef.Name = "missing" })
	s.expectCondition(attic, infrav1.HostConnectedCondition, metav1.ConditionFalse, infrav1.HostCredentialsNotFoundReason)
	green := s.readyCluster("green", "10.20.0.0/27", func(c *infrav1.LibvirtCluster) { c.Spec.HostSelector.MatchLabels = map[string]string{"site": "home"} })
	changeStatus(s, green, func(c *infrav1.LibvirtCluster) { c.Status.Hosts = []string{"attic", "kvm1"} })
	staysSo(t, "the cluster is ready and hasn't given up the host", func() error {
		s.refresh(green)
		if !conditions.IsTrue(green, infrav1.ReadyCondition) || !slices.Equal(green.Status.Hosts, []string{"attic", "kvm1"}) {
			return fmt.Errorf("the hosts are %v\n%s", green.Status.Hosts, describe(green))
		}
		return nil
	})

	s.delete(green)
	s.expectCondition(green, infrav1.DeletingCondition, metav1.ConditionTrue, infrav1.HostUnreachableReason, "attic: not connected yet")
	eventually(t, "the network is gone from the host that can be reached", func() error {
		if _, err := s.kvm("kvm1").Network(t.Context(), green.Spec.Network.UUID); !errors.Is(err, host.ErrNotFound) {
			return fmt.Errorf("it is there, %w", err)
		}
		return nil
	})
	s.delete(attic)
	change(s, attic, func(h *infrav1.LibvirtHost) { h.Finalizers = nil })
	s.expectGone(green)
}

// TestHangOnOneHost has calls to two hosts hang while the third answers.
func TestHangOnOneHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		failures := onEach(t.Context(), []string{"hung", "hung too", "well"}, func(ctx context.Context, name string) error {
			if name != "well" {
				<-ctx.Done()
				return ctx.Err()
			}
			if took := time.Since(began); took > 0 {
				return fmt.Errorf("it had to wait for %s", took)
			}
			return nil
		})
		if !errors.Is(failures[0], context.DeadlineExceeded) || !errors.Is(failures[1], context.DeadlineExceeded) || failures[2] != nil {
			t.Errorf("got %v", failures)
		}
		if took := time.Since(began); took != perHost {
			t.Errorf("All of them took %s, want %s", took, perHost)
		}
	})
}

func TestClusterNeverTouchesAForeignNetwork(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.readyHost("kvm1", testDriver(t))
	must(t, s.kvm("kvm1").EnsureNetwork(t.Context(), foreignNetwork("foreign", foreignUUID, "10.99.0.1")))
	before, err := s.kvm("kvm1").Network(t.Context(), foreignUUID)
	must(t, err)
	green := s.createCluster("green", "10.20.0.0/27", func(c *infrav1.LibvirtCluster) { c.Spec.Network.UUID = foreignUUID })
	s.expectCondition(green, infrav1.ClusterNetworkReadyCondition, metav1.ConditionFalse, infrav1.ClusterNetworkConflictReason,
		"network foreign has our UUID "+foreignUUID)
	s.delete(green)
	s.expectGone(green)
	if after, err := s.kvm("kvm1").Network(t.Context(), foreignUUID); err != nil || after != before {
		t.Errorf("The foreign network was\n%+v\nand is\n%+v, %v", before, after, err)
	}
}

func TestClusterChecksItsEndpoint(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.readyHost("kvm1", testDriver(t))
	green := s.createCluster("green", "10.20.0.0/27", func(c *infrav1.LibvirtCluster) {
		c.Spec.ControlPlaneEndpoint = infrav1.APIEndpoint{Host: "10.20.0.12", Port: 6443}
	})
	s.expectCondition(green, infrav1.ClusterNetworkReadyCondition, metav1.ConditionFalse, infrav1.ClusterInvalidNetworkReason,
		"spec.controlPlaneEndpoint.host: 10.20.0.12 lies in the range that DHCP gives to nodes", "use one of 10.20.0.2-10.20.0.9")
	s.delete(green)
	s.expectGone(green)

	white := s.createCluster("white", "10.40.0.0/27", func(c *infrav1.LibvirtCluster) {
		change(s, s.cluster("white"), func(c *clusterv1.Cluster) { c.Spec.ControlPlaneEndpoint = clusterv1.APIEndpoint{} })
	})
	s.expectCondition(white, infrav1.ClusterNetworkReadyCondition, metav1.ConditionFalse, infrav1.ClusterEndpointNotSetReason,
		"set spec.controlPlaneEndpoint.host to an address of 10.40.0.2-10.40.0.9")
}
