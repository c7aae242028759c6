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
	"crypto/sha256"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	ipamv1 "sigs.k8s.io/cluster-api/api/ipam/v1beta2"
	"sigs.k8s.io/cluster-api/util/conditions"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/network"
)

// +kubebuilder:rbac:groups=ipam.cluster.x-k8s.io,resources=ipaddressclaims,verbs=get;list;watch;create;patch;delete
// +kubebuilder:rbac:groups=ipam.cluster.x-k8s.io,resources=ipaddresses,verbs=get;list;watch

// addressInterval is when to look again at the latest for an IPAddress that its claim names and that isn't there yet.
const addressInterval = 5 * time.Second

// reconcilePools claims an address from each pool of spec.interfaces and reads those that were granted. A machine that has
// its domain keeps what it was made with: nothing is claimed any more, and what can't be read is left out.
func (r *LibvirtMachineReconciler) reconcilePools(ctx context.Context, s *machineScope) error {
	s.pooled = map[string][]network.StaticAddress{}
	var unanswered error
	for _, i := range s.libvirtMachine.Spec.Interfaces {
		if len(i.AddressesFromPools) == 0 {
			continue
		}
		if i.Source == infrav1.InterfaceSourceCluster && !network.Existing(s.libvirtCluster.Spec.Network) && s.domain == nil {
			return &waiting{reason: infrav1.MachineInvalidInterfacesReason, message: fmt.Sprintf(
				"spec.interfaces[%s]: the managed network of the cluster has addresses of its own: remove addressing and addressesFromPools "+
					"in a new LibvirtMachineTemplate, or use an existing network", i.Name)}
		}
		for k, pool := range i.AddressesFromPools {
			static, err := r.pooledAddress(ctx, s, i.Name, k, pool)
			var wait *waiting
			switch {
			case err == nil:
				s.pooled[i.Name] = append(s.pooled[i.Name], static)
			case !errors.As(err, &wait):
				return err
			case unanswered == nil:
				unanswered = err // the other claims are made meanwhile
			}
		}
	}
	if s.domain != nil {
		return nil
	}
	return unanswered
}

// claimName is the name of the IPAddressClaim for one of an interface's pools. The name of an interface has no dot, so no
// two claims share one. Long names are cut and hold a hash of the whole.
func claimName(machine, iface string, pool int) string {
	const maxLength = 253
	name := fmt.Sprintf("%s.%s.%d", machine, iface, pool)
	if len(name) <= maxLength {
		return name
	}
	sum := sha256.Sum256([]byte(name))
	return fmt.Sprintf("%x.%s.%d", sum[:16], iface, pool)
}

// pooledAddress is the address that a pool granted. It is a *waiting until there is one.
func (r *LibvirtMachineReconciler) pooledAddress(ctx context.Context, s *machineScope, iface string, k int, pool ipamv1.IPPoolReference) (network.StaticAddress, error) {
	none := network.StaticAddress{}
	claim := &ipamv1.IPAddressClaim{}
	key := client.ObjectKey{Namespace: s.libvirtMachine.Namespace, Name: claimName(s.libvirtMachine.Name, iface, k)}
	if err := r.Client.Get(ctx, key, claim); apierrors.IsNotFound(err) {
		if s.domain == nil {
			if err := r.createClaim(ctx, s, key.Name, pool); err != nil {
				return none, err
			}
		}
		return none, waitForPool(key.Name, pool)
	} else if err != nil {
		return none, fmt.Errorf("looking up IPAddressClaim %s: %w", key.Name, err)
	}
	switch {
	case !metav1.IsControlledBy(claim, s.libvirtMachine):
		return none, &waiting{reason: infrav1.MachineIPAddressClaimFailedReason, after: conflictInterval, message: fmt.Sprintf(
			"IPAddressClaim %s is there already and isn't the machine's: delete it", key.Name)}
	case !claim.DeletionTimestamp.IsZero() && s.domain == nil:
		return none, &waiting{reason: infrav1.MachineIPAddressClaimFailedReason, message: fmt.Sprintf(
			"somebody deleted IPAddressClaim %s: delete the Machine to have it made anew", key.Name)}
	case claim.Status.AddressRef.Name == "":
		return none, refused(claim)
	}
	address := &ipamv1.IPAddress{}
	key.Name = claim.Status.AddressRef.Name
	if err := r.Client.Get(ctx, key, address); apierrors.IsNotFound(err) {
		wait := waitForPool(claim.Name, pool)
		wait.after = addressInterval
		return none, wait
	} else if err != nil {
		return none, fmt.Errorf("looking up IPAddress %s: %w", key.Name, err)
	}
	static, err := network.ParseStaticAddress(address.Spec.Address, ptr.Deref(address.Spec.Prefix, 0), address.Spec.Gateway)
	if err == nil && address.Spec.ClaimRef.Name != claim.Name {
		err = fmt.Errorf("it belongs to IPAddressClaim %s", address.Spec.ClaimRef.Name)
	}
	if err != nil {
		return none, invalidAddress("IPAddress %s, from pool %s, can't be used for IPAddressClaim %s: %s", address.Name, pool.Name, claim.Name, err)
	}
	return static, nil
}

func waitForPool(claim string, pool ipamv1.IPPoolReference) *waiting {
	return &waiting{reason: infrav1.MachineWaitingForIPAddressReason, message: fmt.Sprintf(
		"Waiting for an address for IPAddressClaim %s from %s %s (%s)", claim, pool.Kind, pool.Name, pool.APIGroup)}
}

func invalidAddress(format string, args ...any) error {
	return &waiting{reason: infrav1.MachineInvalidIPAddressReason, after: conflictInterval, message: fmt.Sprintf(format, args...) +
		": correct the pool, then delete the Machine to have it made anew"}
}

// refused is what a claim without an address says of itself.
func refused(claim *ipamv1.IPAddressClaim) *waiting {
	wait := waitForPool(claim.Name, claim.Spec.PoolRef)
	reason, message := "", ""
	if ready := conditions.Get(claim, ipamv1.IPAddressClaimReadyCondition); ready != nil && ready.Status == metav1.ConditionFalse {
		reason, message = ready.Reason, ready.Message
	}
	// A provider of the earlier contract.
	for _, old := range claim.GetV1Beta1Conditions() {
		if reason == "" && string(old.Type) == ipamv1.IPAddressClaimReadyCondition && old.Status == "False" {
			reason, message = old.Reason, old.Message
		}
	}
	if reason == "" {
		return wait
	}
	wait.reason = infrav1.MachineIPAddressClaimFailedReason
	wait.message = fmt.Sprintf("%s %s (%s) gave IPAddressClaim %s no address: %s: %s",
		claim.Spec.PoolRef.Kind, claim.Spec.PoolRef.Name, claim.Spec.PoolRef.APIGroup, claim.Name, reason, message)
	return wait
}

// createClaim claims an address. The claim stays until the machine is gone, whoever deletes it. One that exists already
// shows in the cache in a moment.
func (r *LibvirtMachineReconciler) createClaim(ctx context.Context, s *machineScope, name string, pool ipamv1.IPPoolReference) error {
	claim := &ipamv1.IPAddressClaim{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: s.libvirtMachine.Namespace, Name: name,
			Labels:     map[string]string{clusterv1.ClusterNameLabel: s.cluster.Name},
			Finalizers: []string{infrav1.IPAddressClaimFinalizer},
		},
		Spec: ipamv1.IPAddressClaimSpec{ClusterName: s.cluster.Name, PoolRef: pool},
	}
	if value, ok := s.libvirtMachine.Labels[clusterv1.WatchLabel]; ok {
		claim.Labels[clusterv1.WatchLabel] = value
	}
	if err := controllerutil.SetControllerReference(s.libvirtMachine, claim, r.Client.Scheme(), controllerutil.WithBlockOwnerDeletion(false)); err != nil {
		return fmt.Errorf("claiming an address: %w", err)
	}
	if err := r.Client.Create(ctx, claim); err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("creating IPAddressClaim %s: %w", name, err)
	}
	return nil
}

// releaseClaims gives the addresses from pools back. It reads past the cache, which may not show a claim that was made a
// moment ago: its finalizer would keep it for ever.
func (r *LibvirtMachineReconciler) releaseClaims(ctx context.Context, s *machineScope) error {
	for _, i := range s.libvirtMachine.Spec.Interfaces {
		for k := range i.AddressesFromPools {
			claim := &ipamv1.IPAddressClaim{}
			key := client.ObjectKey{Namespace: s.libvirtMachine.Namespace, Name: claimName(s.libvirtMachine.Name, i.Name, k)}
			if err := r.APIReader.Get(ctx, key, claim); apierrors.IsNotFound(err) {
				continue
			} else if err != nil {
				return fmt.Errorf("looking up IPAddressClaim %s: %w", key.Name, err)
			}
			if !metav1.IsControlledBy(claim, s.libvirtMachine) {
				continue
			}
			if err := r.releaseClaim(ctx, claim); client.IgnoreNotFound(err) != nil {
				return fmt.Errorf("giving back the address of IPAddressClaim %s: %w", key.Name, err)
			}
		}
	}
	return nil
}

func (r *LibvirtMachineReconciler) releaseClaim(ctx context.Context, claim *ipamv1.IPAddressClaim) error {
	if before := claim.DeepCopy(); controllerutil.RemoveFinalizer(claim, infrav1.IPAddressClaimFinalizer) {
		// The lock keeps the finalizers of others.
		if err := r.Client.Patch(ctx, claim, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})); err != nil {
			return err
		}
	}
	if !claim.DeletionTimestamp.IsZero() {
		return nil
	}
	return r.Client.Delete(ctx, claim)
}

// pooledNodeAddress is the address in the node network that comes from a pool. False when it doesn't come from one.
func pooledNodeAddress(s *machineScope) (string, bool, error) {
	i, ok := network.ClusterInterface(s.libvirtMachine.Spec.Interfaces)
	if !ok || len(i.AddressesFromPools) == 0 {
		return "", false, nil
	}
	pooled := s.pooled[i.Name]
	k := slices.IndexFunc(pooled, func(a network.StaticAddress) bool { return a.Prefix.Addr().Is4() })
	if k < 0 {
		return "", true, invalidAddress("spec.interfaces[%s]: none of its pools gave an IPv4 address, which a machine needs in the node network", i.Name)
	}
	addr, plan, endpoint := pooled[k].Prefix.Addr(), s.plan, s.libvirtCluster.Spec.ControlPlaneEndpoint.Host
	switch {
	case !plan.Prefix.Contains(addr):
		return "", true, invalidAddress("spec.interfaces[%s]: %s is outside the node network %s", i.Name, addr, plan.Prefix)
	case plan.Nodes.Contains(addr):
		return "", true, invalidAddress("spec.interfaces[%s]: %s lies in spec.network.nodeRange %s of the LibvirtCluster, from which machines without a pool get theirs",
			i.Name, addr, plan.Nodes)
	case addr == plan.Gateway, addr.String() == endpoint, plan.Ingress.IsValid() && plan.Ingress.Contains(addr):
		return "", true, invalidAddress("spec.interfaces[%s]: %s is the gateway, the control-plane endpoint or an address for Services of the cluster", i.Name, addr)
	}
	return addr.String(), true, nil
}

// otherAddresses are the addresses of a machine from pools besides that in the node network.
func otherAddresses(s *machineScope) []netip.Addr {
	var others []netip.Addr
	for _, i := range s.libvirtMachine.Spec.Interfaces {
		for _, static := range s.pooled[i.Name] {
			if addr := static.Prefix.Addr(); addr.String() != s.libvirtMachine.Spec.Address {
				others = append(others, addr)
			}
		}
	}
	return others
}
