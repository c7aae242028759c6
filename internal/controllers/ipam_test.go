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

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	ipamv1 "sigs.k8s.io/cluster-api/api/ipam/v1beta2"
	"sigs.k8s.io/cluster-api/util/conditions"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/domain"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/hosttest"
)

// ipPool is a pool of the provider below.
type ipPool struct {
	addresses []string // with the length of the prefix
	gateway   string
}

const (
	ipamGroup     = "ipam.example.org"
	ipamFinalizer = "ipam.example.org/release"
)

func poolRef(name string) ipamv1.IPPoolReference {
	return ipamv1.IPPoolReference{APIGroup: ipamGroup, Kind: "TestPool", Name: name}
}

// startIPAM runs an IPAM provider in the namespace of the scene until the test ends. It answers IPAddressClaims with
// IPAddresses by the contract of Cluster API.
func (s *scene) startIPAM(pools map[string]ipPool) {
	s.t.Helper()
	watcher, err := client.NewWithWatch(apiConfig, client.Options{Scheme: scheme})
	must(s.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	changes, err := watcher.Watch(ctx, &ipamv1.IPAddressClaimList{}, client.InNamespace(s.namespace))
	if err != nil {
		cancel()
		s.t.Fatal(err)
	}
	ended := make(chan struct{})
	s.t.Cleanup(func() {
		cancel()
		changes.Stop()
		<-ended
	})
	go func() {
		defer close(ended)
		taken := map[string]string{}
		for event := range changes.ResultChan() {
			claim, ok := event.Object.(*ipamv1.IPAddressClaim)
			if !ok {
				continue
			}
			if err := answer(ctx, claim, pools, taken); err != nil && ctx.Err() == nil && !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) {
				s.t.Errorf("The IPAM provider: %v", err)
			}
		}
	}()
}

// answer answers a claim, or takes back what was given once nobody else holds on to it. Taken are the addresses that were
// given, and to which claim.
func answer(ctx context.Context, claim *ipamv1.IPAddressClaim, pools map[string]ipPool, taken map[string]string) error {
	before := claim.DeepCopy()
	if !claim.DeletionTimestamp.IsZero() {
		if !slices.Equal(claim.Finalizers, []string{ipamFinalizer}) {
			return nil
		}
		address := &ipamv1.IPAddress{ObjectMeta: metav1.ObjectMeta{Namespace: claim.Namespace, Name: claim.Name}}
		if err := api.Delete(ctx, address); client.IgnoreNotFound(err) != nil {
			return err
		}
		for address, by := range taken {
			if by == claim.Name {
				delete(taken, address)
			}
		}
		controllerutil.RemoveFinalizer(claim, ipamFinalizer)
		return api.Patch(ctx, claim, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}))
	}
	if controllerutil.AddFinalizer(claim, ipamFinalizer) {
		return api.Patch(ctx, claim, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}))
	}
	pool, ok := pools[claim.Spec.PoolRef.Name]
	if !ok || claim.Status.AddressRef.Name != "" {
		return nil
	}
	free := slices.IndexFunc(pool.addresses, func(a string) bool { return taken[a] == "" })
	if free < 0 {
		conditions.Set(claim, metav1.Condition{
			Type: ipamv1.IPAddressClaimReadyCondition, Status: metav1.ConditionFalse, Reason: ipamv1.IPAddressClaimReadyPoolExhaustedReason,
			Message: fmt.Sprintf("all %d addresses are in use", len(pool.addresses)),
		})
		return api.Status().Patch(ctx, claim, client.MergeFrom(before))
	}
	given := pool.addresses[free]
	addr, bits, _ := strings.Cut(given, "/")
	var length int32
	if _, err := fmt.Sscan(bits, &length); err != nil {
		return err
	}
	address := &ipamv1.IPAddress{
		ObjectMeta: metav1.ObjectMeta{Namespace: claim.Namespace, Name: claim.Name, Labels: claim.Labels},
		Spec: ipamv1.IPAddressSpec{
			ClaimRef: ipamv1.IPAddressClaimReference{Name: claim.Name}, PoolRef: claim.Spec.PoolRef,
			Address: addr, Prefix: ptr.To(length), Gateway: pool.gateway,
		},
	}
	if err := api.Create(ctx, address); err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	taken[given] = claim.Name
	claim.Status.AddressRef.Name = address.Name
	return api.Status().Patch(ctx, claim, client.MergeFrom(before))
}

// fromPools gives an interface addresses from pools.
func fromPools(i infrav1.Interface, pools ...string) infrav1.Interface {
	i.Addressing = infrav1.InterfaceAddressingIPAM
	for _, pool := range pools {
		i.AddressesFromPools = append(i.AddressesFromPools, poolRef(pool))
	}
	return i
}

func (s *scene) claim(name string) *ipamv1.IPAddressClaim {
	return &ipamv1.IPAddressClaim{ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: name}}
}

// expectNoClaims waits until all claims of the scene but those named are gone.
func (s *scene) expectNoClaims(but ...string) {
	s.t.Helper()
	eventually(s.t, "the claims are given back", func() error {
		var claims ipamv1.IPAddressClaimList
		if err := api.List(s.t.Context(), &claims, client.InNamespace(s.namespace)); err != nil {
			return err
		}
		for i := range claims.Items {
			if c := &claims.Items[i]; !slices.Contains(but, c.Name) {
				return fmt.Errorf("%s is there, with %v", c.Name, c.Finalizers)
			}
		}
		return nil
	})
}

func TestAddressesFromPools(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.startIPAM(map[string]ipPool{
		"four":  {addresses: []string{"192.168.7.10/24", "192.168.7.11/24"}, gateway: "192.168.7.1"},
		"six":   {addresses: []string{"2001:db8:7::10/64", "2001:db8:7::11/64", "2001:db8:7::12/64"}, gateway: "2001:db8:7::1"},
		"plain": {addresses: []string{"192.168.8.10/24"}},
	})
	s.readyHost("kvm1", testDriver(t, hosttest.Bridge("br9")))
	green := s.readyCluster("green", "10.20.0.0/27")
	dual := s.readyMachine("green", "dual", interfaces(fromPools(onBridge("br9"), "four", "six")))
	only6 := s.readyMachine("green", "only6", interfaces(fromPools(onBridge("br9"), "six")))
	only4 := s.readyMachine("green", "only4", interfaces(fromPools(onBridge("br9"), "plain"), fromPools(infrav1.Interface{
		Name: "second", Source: infrav1.InterfaceSourceBridge, Bridge: infrav1.InterfaceBridge{Name: "br9"}, DefaultRoute: infrav1.DefaultRouteUse,
	}, "four")))
	for _, tt := range []struct {
		m    *infrav1.LibvirtMachine
		ips  []string
		seed []string
		not  []string
	}{
		{dual, []string{"192.168.7.10", "2001:db8:7::10"}, []string{`addresses: ["192.168.7.10/24", "2001:db8:7::10/64"]`, "via: 10.20.0.1\n"}, []string{"192.168.7.1\n", "2001:db8:7::1\""}},
		{only6, []string{"2001:db8:7::11"}, []string{`addresses: ["2001:db8:7::11/64"]`, "via: 10.20.0.1\n"}, []string{"2001:db8:7::1\""}},
		{only4, []string{"192.168.8.10", "192.168.7.11"}, []string{`addresses: ["192.168.8.10/24"]`, `addresses: ["192.168.7.11/24"]`, "via: 192.168.7.1\n"}, []string{"via: 10.20.0.1"}},
	} {
		if got, want := internalIPs(tt.m), append([]string{tt.m.Spec.Address}, tt.ips...); !slices.Equal(got, want) {
			t.Errorf("%s reports %v, want %v", tt.m.Name, got, want)
		}
		seed := uploaded.of(domain.SeedVolumeName(uuidOf(tt.m)))
		for _, text := range tt.seed {
			if !strings.Contains(seed, text) {
				t.Errorf("The bootstrap data of %s lacks %q", tt.m.Name, text)
			}
		}
		for _, text := range tt.not {
			if strings.Contains(seed, text) {
				t.Errorf("The bootstrap data of %s has %q", tt.m.Name, text)
			}
		}
	}

	claim := s.claim("dual.br9.0")
	s.refresh(claim)
	if !metav1.IsControlledBy(claim, dual) || claim.Spec.ClusterName != "green" || claim.Labels[clusterv1.ClusterNameLabel] != "green" ||
		claim.Labels[clusterv1.WatchLabel] != sharedManager || claim.Spec.PoolRef != poolRef("four") {
		t.Errorf("The claim is %+v", claim)
	}

	// A pool has no more, and says so.
	late := s.createMachine("green", "late", interfaces(fromPools(onBridge("br9"), "four", "six")))
	s.expectCondition(late, infrav1.MachineDomainReadyCondition, metav1.ConditionFalse, infrav1.MachineIPAddressClaimFailedReason,
		"TestPool four (ipam.example.org) gave IPAddressClaim late.br9.0 no address: PoolExhausted: all 2 addresses are in use")
	s.expectNoTraces(green, "kvm1", uuidOf(late))

	// Whoever deletes a claim doesn't get the address of a machine that runs.
	s.delete(claim)
	staysSo(t, "the claim and its address are there", func() error {
		s.refresh(claim)
		s.refresh(dual)
		if !slices.Contains(internalIPs(dual), "192.168.7.10") {
			return fmt.Errorf("the machine reports %v", internalIPs(dual))
		}
		return api.Get(t.Context(), client.ObjectKeyFromObject(claim), &ipamv1.IPAddress{})
	})

	// They go back with their machines, and are given out again.
	for _, m := range []*infrav1.LibvirtMachine{late, dual, only4} {
		s.delete(m)
	}
	for _, m := range []*infrav1.LibvirtMachine{late, dual, only4} {
		s.expectGone(m)
		s.expectNoTraces(green, "kvm1", uuidOf(m))
	}
	s.expectNoClaims("only6.br9.0")
	again := s.readyMachine("green", "again", interfaces(fromPools(onBridge("br9"), "four", "six")))
	if got := internalIPs(again); !slices.Contains(got, "192.168.7.10") {
		t.Errorf("The next machine reports %v", got)
	}
}

// TestNoAnswerFromAPool has nobody answer, then answers wrongly.
func TestNoAnswerFromAPool(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.readyHost("kvm1", testDriver(t, hosttest.Bridge("br9")))
	green := s.readyCluster("green", "10.20.0.0/27")
	foreign := s.claim("foreign.br9.0")
	foreign.Spec.PoolRef = poolRef("four")
	s.create(foreign)

	waits := s.createMachine("green", "waits", interfaces(fromPools(onBridge("br9"), "four")))
	s.expectCondition(waits, infrav1.MachineDomainReadyCondition, metav1.ConditionFalse, infrav1.MachineWaitingForIPAddressReason,
		"Waiting for an address for IPAddressClaim waits.br9.0 from TestPool four (ipam.example.org)")
	theirs := s.createMachine("green", "foreign", interfaces(fromPools(onBridge("br9"), "four")))
	s.expectCondition(theirs, infrav1.MachineDomainReadyCondition, metav1.ConditionFalse, infrav1.MachineIPAddressClaimFailedReason,
		"IPAddressClaim foreign.br9.0 is there already and isn't the machine's: delete it")
	managed := s.createMachine("green", "managed", func(p *machineParts) {
		p.libvirtMachine.Spec.Interfaces = []infrav1.Interface{fromPools(infrav1.Interface{Name: "nodes", Source: infrav1.InterfaceSourceCluster}, "four")}
	})
	s.expectCondition(managed, infrav1.MachineDomainReadyCondition, metav1.ConditionFalse, infrav1.MachineInvalidInterfacesReason,
		"spec.interfaces[nodes]: the managed network of the cluster has addresses of its own")

	s.startIPAM(map[string]ipPool{"four": {addresses: []string{"127.0.0.1/8", "127.0.0.2/8"}}})
	s.expectCondition(waits, infrav1.MachineDomainReadyCondition, metav1.ConditionFalse, infrav1.MachineInvalidIPAddressReason,
		"IPAddress waits.br9.0, from pool four, can't be used for IPAddressClaim waits.br9.0: 127.0.0.", " is not an address that a machine can have")
	for _, m := range []*infrav1.LibvirtMachine{waits, theirs, managed} {
		s.expectNoTraces(green, "kvm1", uuidOf(m))
		s.delete(m)
	}
	for _, m := range []*infrav1.LibvirtMachine{waits, theirs, managed} {
		s.expectGone(m)
	}
	s.expectNoClaims(foreign.Name)
}

// TestNodeAddressFromAPool has the addresses of an existing node network come from a pool.
func TestNodeAddressFromAPool(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.startIPAM(map[string]ipPool{
		"nodes":  {addresses: []string{"192.168.1.50/24", "192.168.1.51/24"}, gateway: "192.168.1.2"},
		"six":    {addresses: []string{"2001:db8:1::50/64"}, gateway: "fe80::1"},
		"range":  {addresses: []string{"192.168.1.120/24"}},
		"beyond": {addresses: []string{"192.168.2.10/24"}},
		"only6":  {addresses: []string{"2001:db8:1::60/64"}},
	})
	s.readyHost("kvm1", testDriver(t))
	must(t, s.kvm("kvm1").EnsureNetwork(t.Context(), lanNetwork("")))
	s.readyCluster("green", "192.168.1.0/24", onLAN())
	node := func(pools ...string) func(*machineParts) {
		return func(p *machineParts) {
			p.libvirtMachine.Spec.Interfaces = []infrav1.Interface{fromPools(infrav1.Interface{Name: "nodes", Source: infrav1.InterfaceSourceCluster}, pools...)}
		}
	}
	first := s.readyMachine("green", "first", node("nodes", "six"))
	if want := []string{"192.168.1.50", "2001:db8:1::50"}; first.Spec.Address != want[0] || !slices.Equal(internalIPs(first), want) {
		t.Errorf("It has the address %s and reports %v", first.Spec.Address, internalIPs(first))
	}
	seed := uploaded.of(domain.SeedVolumeName(uuidOf(first)))
	for _, text := range []string{
		`addresses: ["192.168.1.50/24", "2001:db8:1::50/64"]`, "via: 192.168.1.2\n", `via: "fe80::1"`, "local-ipv4: 192.168.1.50\n", `addresses: ["192.168.1.1", "192.168.1.3"]`,
	} {
		if !strings.Contains(seed, text) {
			t.Errorf("The bootstrap data lacks %q", text)
		}
	}
	// Beside it, machines without a pool get theirs as ever.
	if plain := s.readyMachine("green", "plain"); plain.Spec.Address != "192.168.1.100" {
		t.Errorf("It has %s", plain.Spec.Address)
	}
	for pool, text := range map[string]string{
		"range":  "192.168.1.120 lies in spec.network.nodeRange 192.168.1.100-192.168.1.149 of the LibvirtCluster",
		"beyond": "192.168.2.10 is outside the node network 192.168.1.0/24",
		"only6":  "none of its pools gave an IPv4 address, which a machine needs in the node network",
	} {
		m := s.createMachine("green", "from-"+pool, node(pool))
		s.expectCondition(m, infrav1.MachineDomainReadyCondition, metav1.ConditionFalse, infrav1.MachineInvalidIPAddressReason, "spec.interfaces[nodes]: "+text)
	}

	// Addresses and claims outlive a loss of the status, as in a move.
	changeStatus(s, first, func(m *infrav1.LibvirtMachine) { m.Status = infrav1.LibvirtMachineStatus{} })
	touch(s, first)
	s.expectReady(first)
	eventually(t, "all addresses are reported again", func() error {
		if s.refresh(first); !slices.Equal(internalIPs(first), []string{"192.168.1.50", "2001:db8:1::50"}) {
			return errors.New(strings.Join(internalIPs(first), ", "))
		}
		return nil
	})
}
