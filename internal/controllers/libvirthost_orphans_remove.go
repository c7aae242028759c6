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
	"encoding/xml"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/cluster-api/util/annotations"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/domain"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/host"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/network"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/owner"
)

// maxOrphansRemoved bounds what is removed after one look, so that somebody who made a mistake has time to see it.
const maxOrphansRemoved = 10

// removal removes orphans from a host after a look.
type removal struct {
	*LibvirtHostReconciler
	*hostScope
	// claims are the machines of the namespace, read past the cache.
	claims map[string]*infrav1.LibvirtMachine
	// strangers are the domains that no machine stands for. Nil until they are needed.
	strangers []stranger
}

// stranger is a domain on the host that isn't that of a machine on it.
type stranger struct {
	name, uuid, definition string
}

// removeOrphans removes the orphans that were there at the last look already, and returns those that are left, with the
// reason why they are kept. Whatever was true at the look is made sure of again.
func (r *LibvirtHostReconciler) removeOrphans(ctx context.Context, s *hostScope, orphans []orphan) ([]orphan, error) {
	due := func(o orphan) bool { return o.kept == "" && time.Since(o.since) >= r.OrphanInterval }
	if !slices.ContainsFunc(orphans, due) {
		return orphans, nil
	}
	var machines infrav1.LibvirtMachineList
	if err := r.APIReader.List(ctx, &machines, client.InNamespace(s.libvirtHost.Namespace)); err != nil {
		return nil, fmt.Errorf("listing LibvirtMachines: %w", err)
	}
	remove := &removal{LibvirtHostReconciler: r, hostScope: s, claims: claimsOf(machines.Items)}
	keptDisks := map[string]bool{}
	var left []orphan
	removed := 0
	for _, o := range orphans {
		if due(o) && removed < maxOrphansRemoved && !keptDisks[o.uuid] {
			kept, err := remove.orphan(ctx, o)
			if errors.Is(err, host.ErrUnreachable) {
				return nil, fmt.Errorf("removing %s: %w", o, err)
			}
			if err != nil {
				kept = fmt.Sprintf("removing it failed: %s", err)
			}
			if o.kept = kept; kept == "" {
				removed++
				ctrl.LoggerFrom(ctx).Info("Removed orphan from host", "host", s.libvirtHost.Name, "orphan", o.String(), "domainUUID", o.uuid)
				continue
			}
			keptDisks[o.uuid] = true
		} else if keptDisks[o.uuid] {
			o.kept = "the disk of the same machine is kept"
		}
		left = append(left, o)
	}
	return left, nil
}

// orphan removes an orphan, or returns why it is kept.
func (r *removal) orphan(ctx context.Context, o orphan) (kept string, err error) {
	if claim := r.claims[o.uuid]; claim != nil {
		return fmt.Sprintf("LibvirtMachine %s has its UUID", claim.Name), nil
	}
	document, err := r.host.DomainXML(ctx, o.uuid)
	missing := errors.Is(err, host.ErrNotFound)
	switch {
	case err != nil && !missing:
		return "", err
	case o.kind == orphanVolume && missing:
		return r.volume(ctx, o)
	case o.kind == orphanVolume:
		return "it is the disk of a domain by now", nil
	case missing:
		return "", nil
	}
	if by, ok := owner.Of(document); !ok || by != o.owner {
		return "it carries another mark than before", nil
	}
	return r.domain(ctx, o, document)
}

// domain removes a domain with its volumes and gives its address back.
func (r *removal) domain(ctx context.Context, o orphan, document string) (kept string, err error) {
	libvirtCluster, kept, err := r.foreign(ctx, o.owner, document)
	if kept != "" || err != nil {
		return kept, err
	}
	root, seed := domain.RootVolumeName(o.uuid), domain.SeedVolumeName(o.uuid)
	for _, name := range []string{root, seed} {
		if by, err := r.usedBy(ctx, name, o.uuid); by != "" || err != nil {
			return by, err
		}
	}
	if err := destroyDomain(ctx, r.host, o.uuid); err != nil {
		return "", err
	}
	if err := deleteVolume(ctx, r.host, diskPool(r.libvirtHost), root); err != nil {
		return "", err
	}
	if err := deleteVolume(ctx, r.host, seedPool(r.libvirtHost), seed); err != nil {
		return "", err
	}
	if libvirtCluster == nil {
		return "", nil
	}
	return "", r.host.Release(ctx, libvirtCluster.Spec.Network.UUID, network.MAC(o.uuid))
}

// cluster is the Cluster that a mark names, nil when it isn't in this management cluster.
func (r *removal) cluster(ctx context.Context, by owner.Owner) (*clusterv1.Cluster, error) {
	cluster := &clusterv1.Cluster{}
	err := r.APIReader.Get(ctx, client.ObjectKey{Namespace: by.Namespace, Name: by.Cluster}, cluster)
	if apierrors.IsNotFound(err) {
		return nil, nil //nolint:nilnil // Absence is an ordinary state here.
	}
	if err != nil {
		return nil, fmt.Errorf("looking up Cluster %s: %w", by.Cluster, err)
	}
	return cluster, nil
}

// foreign says why a domain may be a machine of another management cluster, which may have a Cluster of the same name in
// a namespace of the same name. What tells the two apart is the managed network that the domain is in: it is gone from
// the host, or its UUID is that of the LibvirtCluster that is here. That LibvirtCluster is returned when the network is
// there.
func (r *removal) foreign(ctx context.Context, by owner.Owner, document string) (*infrav1.LibvirtCluster, string, error) {
	cluster, err := r.cluster(ctx, by)
	if err != nil {
		return nil, "", err
	}
	if cluster != nil && annotations.IsPaused(cluster, cluster) {
		return nil, fmt.Sprintf("Cluster %s is paused", by.Cluster), nil
	}
	name := network.Name(by.Namespace, by.Cluster)
	if !usesNetwork(document, name) {
		return nil, fmt.Sprintf("it isn't in the network %s that a Cluster %s of ours would have, so that nothing tells it from a machine of "+
			"another management cluster: if it is none, remove the domain on the host", name, by.Cluster), nil
	}
	networks, err := r.host.Networks(ctx)
	if err != nil {
		return nil, "", err
	}
	k := slices.IndexFunc(networks, func(n host.Network) bool { return n.Name == name })
	if k < 0 {
		return nil, "", nil
	}
	if cluster == nil {
		return nil, fmt.Sprintf("Cluster %s isn't in this management cluster but its network %s is on the host, perhaps of another: "+
			"if not, remove the network (virsh net-destroy, virsh net-undefine)", by.Cluster, name), nil
	}
	libvirtCluster := &infrav1.LibvirtCluster{}
	key := client.ObjectKey{Namespace: cluster.Namespace, Name: cluster.Spec.InfrastructureRef.Name}
	if err := r.APIReader.Get(ctx, key, libvirtCluster); client.IgnoreNotFound(err) != nil {
		return nil, "", fmt.Errorf("looking up LibvirtCluster %s: %w", key.Name, err)
	}
	if own := libvirtCluster.Spec.Network.UUID; own == "" || own != networks[k].UUID {
		return nil, fmt.Sprintf("the network %s on the host isn't that of Cluster %s in this management cluster, perhaps of another: "+
			"if not, remove the network (virsh net-destroy, virsh net-undefine)", name, by.Cluster), nil
	}
	return libvirtCluster, "", nil
}

// usesNetwork tells whether a domain has an interface in a libvirt network.
func usesNetwork(document, name string) bool {
	var parsed struct {
		Sources []struct {
			Network string `xml:"network,attr"`
		} `xml:"devices>interface>source"`
	}
	if err := xml.Unmarshal([]byte(document), &parsed); err != nil {
		return false
	}
	for _, source := range parsed.Sources {
		if source.Network == name {
			return true
		}
	}
	return false
}

// volume removes a volume that looks like one of ours and that nobody uses.
func (r *removal) volume(ctx context.Context, o orphan) (kept string, err error) {
	found, err := r.host.Volume(ctx, o.pool, o.name)
	if errors.Is(err, host.ErrNotFound) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	if o.name == domain.RootVolumeName(o.uuid) && (found.Format != "qcow2" || found.BackingPath == "") {
		return "it is no overlay over an image, as we make them", nil
	}
	if domain.IsDataVolume(o.name) && (found.Format != "qcow2" || found.BackingPath != "") {
		return "it is no plain qcow2 image, as we make data disks", nil
	}
	if !found.ModifiedAt.Equal(o.modified) {
		return "it was written to after it was found, perhaps by a machine on another host that uses the storage too", nil
	}
	if by, err := r.usedBy(ctx, o.name, ""); by != "" || err != nil {
		return by, err
	}
	return "", deleteVolume(ctx, r.host, o.pool, o.name)
}

// usedBy says which domain uses a volume, besides the one with that UUID. Empty when none does.
func (r *removal) usedBy(ctx context.Context, volume, besides string) (string, error) {
	if r.strangers == nil {
		if err := r.readStrangers(ctx); err != nil {
			return "", err
		}
	}
	for _, other := range r.strangers {
		if other.uuid != besides && strings.Contains(other.definition, volume) {
			return fmt.Sprintf("domain %s uses %s", other.name, volume), nil
		}
	}
	return "", nil
}

// readStrangers reads the definitions of all domains but those of our machines.
func (r *removal) readStrangers(ctx context.Context) error {
	strangers := []stranger{}
	for _, dom := range r.host.Domains() {
		if claim := r.claims[dom.UUID]; claim != nil && claim.Spec.HostName == r.libvirtHost.Name {
			continue
		}
		document, err := r.host.DomainXML(ctx, dom.UUID)
		if errors.Is(err, host.ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		strangers = append(strangers, stranger{dom.Name, dom.UUID, document})
	}
	r.strangers = strangers
	return nil
}
