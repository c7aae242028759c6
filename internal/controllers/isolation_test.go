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
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/cluster-api/util/conditions"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/domain"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/host"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/lab/privatehost"
)

// TestSameNamesInTenNamespaces has a cluster and a machine of the same names in ten namespaces on one host.
func TestSameNamesInTenNamespaces(t *testing.T) {
	t.Parallel()
	lab := newLab(t)
	type tenant struct {
		*scene
		green *infrav1.LibvirtCluster
		m     *infrav1.LibvirtMachine
	}
	tenants := make([]tenant, 10)
	for k := range tenants {
		s := newScene(t)
		s.createHost("kvm1", lab.URI())
		green := s.createCluster("green", fmt.Sprintf("10.30.%d.0/27", k))
		s.setInfrastructureProvisioned("green")
		tenants[k] = tenant{s, green, s.createMachine("green", "green-a", emulated)}
	}
	uuids, addresses, networks := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for _, one := range tenants {
		one.expectReady(one.m)
		one.expectAllThere(one.green, one.m)
		dom, err := one.kvm("kvm1").Domain(uuidOf(one.m))
		must(t, err)
		if dom.Name != one.namespace+".green-a" {
			t.Errorf("The domain of namespace %s is %s", one.namespace, dom.Name)
		}
		uuids[dom.UUID], addresses[internalIP(one.m)], networks[one.green.Spec.Network.UUID] = true, true, true
	}
	if len(uuids) != 10 || len(addresses) != 10 || len(networks) != 10 {
		t.Errorf("Of ten there are %d domains, %d addresses and %d networks", len(uuids), len(addresses), len(networks))
	}
	gone, left := tenants[:5], tenants[5:]
	for _, one := range gone {
		one.delete(one.m)
		one.delete(one.green)
	}
	for _, one := range gone {
		one.expectGone(one.m)
		one.expectGone(one.green)
		if _, err := one.kvm("kvm1").Network(t.Context(), one.green.Spec.Network.UUID); !errors.Is(err, host.ErrNotFound) {
			t.Errorf("The network of namespace %s is still there: %v", one.namespace, err)
		}
	}
	for _, one := range left {
		one.expectAllThere(one.green, one.m)
		one.expectReady(one.m)
		one.expectReady(one.green)
	}
	if domains := left[0].kvm("kvm1").Domains(); len(domains) != len(left) {
		t.Errorf("The domains on the host are %v", domains)
	}
	if files := volumesOfOurs(t, lab); len(files) != 2*len(left) {
		t.Errorf("The volumes on the host are %v", files)
	}
}

// volumesOfOurs are the root disks and seeds on a host.
func volumesOfOurs(t *testing.T, lab *privatehost.Host) []string {
	t.Helper()
	var found []string
	for _, dir := range []string{"/var/lib/libvirt/images", seedPoolParent + infrav1.DefaultSeedPool} {
		entries, err := os.ReadDir(lab.Path(dir))
		must(t, err)
		for _, entry := range entries {
			if _, ok := domain.VolumeUUID(entry.Name()); ok {
				found = append(found, filepath.Join(dir, entry.Name()))
			}
		}
	}
	return found
}

// secretMarker is in what only the owner of a namespace may read.
const secretMarker = "for-the-eyes-of-the-owner"

// intrusion is one thing that somebody in a namespace tries on what is in another.
type intrusion struct {
	name string
	// object is what it creates, with edits on the parts of a machine.
	object client.Object
	edits  []func(*machineParts)
	// condition and reasons say how it ends. The API server may refuse it too.
	condition string
	reasons   []string
}

// TestNothingIsReachedAcrossNamespaces tries in one namespace to use what is in another, on a host that both may use.
func TestNothingIsReachedAcrossNamespaces(t *testing.T) {
	t.Parallel()
	lab := newLab(t)
	victim := newScene(t)
	victim.readyHost("kvm1", lab.URI(), func(h *infrav1.LibvirtHost) { h.Labels["site"] = "victim" })
	victim.create(&corev1.Secret{ObjectMeta: victim.meta("kvm1-ssh", ""), Data: map[string][]byte{
		"ssh-privatekey": []byte(secretMarker), "known_hosts": []byte(secretMarker), "username": []byte(secretMarker), "password": []byte(secretMarker),
	}})
	green := victim.readyCluster("green", "10.20.0.0/27")
	m := victim.readyMachine("green", "green-a", emulated, func(p *machineParts) {
		p.secret.Data["value"] = []byte("#cloud-config\n# " + secretMarker + "\n")
	})
	kvm := victim.kvm("kvm1")
	definition, err := kvm.DomainXML(t.Context(), uuidOf(m))
	must(t, err)
	victim.refresh(green)
	networkBefore, err := kvm.Network(t.Context(), green.Spec.Network.UUID)
	must(t, err)

	s := newScene(t)
	s.readyHost("shared", lab.URI())
	s.readyCluster("red", "10.21.0.0/27")
	v := victim.namespace
	var attempts []intrusion
	for _, name := range []string{"kvm1-ssh", v + "/kvm1-ssh", "../" + v + "/kvm1-ssh", v + "." + "kvm1-ssh", "/kvm1-ssh", "..", "%2e%2e/" + v + "/kvm1-ssh",
		v + "%2Fkvm1-ssh", "kvm1-ssh?namespace=" + v, "../../" + v + "/secrets/kvm1-ssh"} {
		attempts = append(attempts, intrusion{
			name:      "credentialsRef " + name,
			condition: infrav1.HostConnectedCondition, reasons: []string{infrav1.HostCredentialsNotFoundReason},
			object: &infrav1.LibvirtHost{Spec: infrav1.LibvirtHostSpec{URI: "qemu+libssh2://root@127.0.0.1:1/system", CredentialsRef: infrav1.CredentialsReference{Name: name}}},
		})
	}
	for _, selector := range []metav1.LabelSelector{
		{MatchLabels: map[string]string{"site": "victim"}},
		{MatchLabels: map[string]string{"kubernetes.io/metadata.namespace": v}},
		{MatchLabels: map[string]string{"metadata.namespace": v}},
		{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "site", Operator: metav1.LabelSelectorOpIn, Values: []string{"victim", "other"}}}},
		{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "site", Operator: metav1.LabelSelectorOpExists}}},
	} {
		attempts = append(attempts, intrusion{
			name: fmt.Sprintf("hostSelector %v", selector), condition: infrav1.ClusterHostsAvailableCondition, reasons: []string{infrav1.ClusterNoHostSelectedReason},
			object: &infrav1.LibvirtCluster{Spec: infrav1.LibvirtClusterSpec{HostSelector: selector, Network: infrav1.ClusterNetwork{CIDR: "10.22.0.0/27"}}},
		})
	}
	for _, name := range []string{"kvm1", v + "/kvm1", "../" + v + "/kvm1", v + ".kvm1", "/" + v + "/kvm1"} {
		attempts = append(attempts, intrusion{
			name: "hostName " + name, condition: infrav1.MachinePlacedCondition, reasons: []string{infrav1.MachineNoHostFitsReason, infrav1.MachineHostNotFoundReason},
			edits: []func(*machineParts){func(p *machineParts) { p.libvirtMachine.Spec.HostName = name }},
		})
	}
	for _, name := range []string{"green-a", v + "/green-a", "../" + v + "/green-a", v + ".green-a", "../../" + v + "/secrets/green-a"} {
		attempts = append(attempts, intrusion{
			name: "dataSecretName " + name, condition: infrav1.MachineBootstrapDataReadyCondition,
			reasons: []string{infrav1.MachineBootstrapSecretNotFoundReason, infrav1.InternalErrorReason},
			edits: []func(*machineParts){func(p *machineParts) {
				p.machine.Spec.Bootstrap.DataSecretName, p.secret = ptr.To(name), nil
			}},
		})
	}
	theirMachine, theirCluster := victim.machine("green-a"), victim.cluster("green")
	victim.refresh(theirMachine)
	victim.refresh(theirCluster)
	attempts = append(attempts,
		intrusion{
			name: "the disk of a machine as the image", condition: infrav1.MachineImageReadyCondition, reasons: []string{infrav1.MachineImageRefusedReason},
			edits: []func(*machineParts){func(p *machineParts) {
				p.libvirtMachine.Spec.Image = infrav1.Image{Volume: domain.RootVolumeName(uuidOf(m))}
			}},
		},
		intrusion{
			name: "the seed of a machine as the image", condition: infrav1.MachineImageReadyCondition, reasons: []string{infrav1.MachineImageNotFoundReason},
			edits: []func(*machineParts){func(p *machineParts) {
				p.libvirtMachine.Spec.Image = infrav1.Image{Volume: domain.SeedVolumeName(uuidOf(m))}
			}},
		},
		intrusion{
			name: "the providerID of a machine", condition: infrav1.MachinePlacedCondition, reasons: []string{infrav1.MachineDomainConflictReason},
			edits: []func(*machineParts){func(p *machineParts) {
				p.libvirtMachine.Spec.ProviderID, p.libvirtMachine.Spec.HostName = m.Spec.ProviderID, "shared"
			}},
		},
		intrusion{
			name: "the providerID of a machine that was moved here", condition: infrav1.MachineDomainReadyCondition, reasons: []string{infrav1.MachineDomainConflictReason, infrav1.MachineDomainMissingReason},
			edits: []func(*machineParts){func(p *machineParts) {
				p.libvirtMachine.Spec.ProviderID, p.libvirtMachine.Spec.HostName = m.Spec.ProviderID, "shared"
				setAnnotation(p.libvirtMachine, provisionedAnnotation, "true")
			}},
		},
		intrusion{
			name: "the UUID of a network", condition: infrav1.ClusterNetworkReadyCondition, reasons: []string{infrav1.ClusterNetworkConflictReason},
			object: &infrav1.LibvirtCluster{Spec: infrav1.LibvirtClusterSpec{Network: infrav1.ClusterNetwork{CIDR: "10.23.0.0/27", UUID: green.Spec.Network.UUID}}},
		},
		intrusion{
			name:   "a Cluster of theirs as the owner",
			object: &infrav1.LibvirtCluster{ObjectMeta: metav1.ObjectMeta{OwnerReferences: []metav1.OwnerReference{ownedBy(theirCluster, "Cluster")}}, Spec: green.Spec},
		},
		intrusion{
			name: "a Machine of theirs as the owner",
			object: &infrav1.LibvirtMachine{
				ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{clusterv1.ClusterNameLabel: "green"}, OwnerReferences: []metav1.OwnerReference{ownedBy(theirMachine, "Machine")}},
				Spec:       m.Spec,
			},
		},
	)
	if len(attempts) < 30 {
		t.Fatalf("These are %d attempts", len(attempts))
	}
	var made []conditionsObject
	for k, a := range attempts {
		if object := s.try(fmt.Sprintf("attempt-%d", k), a); object != nil {
			made = append(made, object)
		}
	}

	staysSo(t, "nothing of theirs is touched", func() error {
		now, err := kvm.DomainXML(t.Context(), uuidOf(m))
		if err != nil || now != definition {
			return fmt.Errorf("the domain is\n%s\n%w", now, err)
		}
		network, err := kvm.Network(t.Context(), green.Spec.Network.UUID)
		if err != nil || network != networkBefore {
			return fmt.Errorf("the network is %+v, %w", network, err)
		}
		for _, dom := range kvm.Domains() {
			if dom.UUID != uuidOf(m) {
				return fmt.Errorf("there is a domain %s", dom.Name)
			}
		}
		return nil
	})
	victim.expectAllThere(green, m)
	victim.expectReady(m)
	// What only they may read is in their seed and nowhere else.
	for _, path := range volumesOfOurs(t, lab) {
		if bytes.Contains(file(t, lab.Path(path)), []byte(secretMarker)) != (filepath.Base(path) == domain.SeedVolumeName(uuidOf(m))) {
			t.Errorf("The secret is where it doesn't belong, or not where it does: %s", path)
		}
	}
	for _, object := range made {
		s.refresh(object)
		text, err := json.Marshal(object)
		must(t, err)
		if bytes.Contains(text, []byte(secretMarker)) {
			t.Errorf("%T %s tells a secret: %s", object, object.GetName(), text)
		}
	}
	for _, object := range made {
		s.delete(object)
	}
	for _, object := range made {
		if len(object.GetFinalizers()) > 0 && uuidOfObject(object) == uuidOf(m) {
			// It claims their domain: its end waits until somebody says whose that is.
			s.expectCondition(object, infrav1.DeletingCondition, metav1.ConditionTrue, infrav1.MachineDomainConflictReason)
			continue
		}
		s.expectGone(object)
	}
	victim.expectAllThere(green, m)
}

func uuidOfObject(object client.Object) string {
	if m, ok := object.(*infrav1.LibvirtMachine); ok {
		return uuidOf(m)
	}
	return ""
}

// try makes an attempt, and returns what it created unless the API server refused it.
func (s *scene) try(name string, a intrusion) conditionsObject {
	s.t.Helper()
	var object conditionsObject
	var err error
	switch o := a.object.(type) {
	case nil:
		parts := s.machineParts("red", name)
		emulated(parts)
		for _, edit := range a.edits {
			edit(parts)
		}
		if parts.secret != nil {
			s.create(parts.secret)
		}
		if err = api.Create(s.t.Context(), parts.machine); err == nil {
			parts.libvirtMachine.OwnerReferences = []metav1.OwnerReference{ownedBy(parts.machine, "Machine")}
			err = api.Create(s.t.Context(), parts.libvirtMachine)
		}
		object = parts.libvirtMachine
	case *infrav1.LibvirtCluster:
		if len(o.OwnerReferences) == 0 {
			cluster := &clusterv1.Cluster{ObjectMeta: s.meta(name, name), Spec: clusterv1.ClusterSpec{
				InfrastructureRef: clusterv1.ContractVersionedObjectReference{APIGroup: infrav1.GroupVersion.Group, Kind: "LibvirtCluster", Name: name},
			}}
			s.create(cluster)
			o.OwnerReferences = []metav1.OwnerReference{ownedBy(cluster, "Cluster")}
			o.Spec.ControlPlaneEndpoint = infrav1.APIEndpoint{Host: strings.Replace(o.Spec.Network.CIDR, ".0/27", ".2", 1), Port: 6443}
		}
		owners := o.OwnerReferences
		o.ObjectMeta = s.meta(name, name)
		o.OwnerReferences = owners
		err, object = api.Create(s.t.Context(), o), o
	case *infrav1.LibvirtMachine:
		owners := o.OwnerReferences
		o.ObjectMeta = s.meta(name, "green")
		o.OwnerReferences = owners
		err, object = api.Create(s.t.Context(), o), o
	case *infrav1.LibvirtHost:
		o.ObjectMeta = s.meta(name, "")
		err, object = api.Create(s.t.Context(), o), o
	}
	if apierrors.IsInvalid(err) {
		s.t.Logf("%s: refused: %v", a.name, err)
		return nil
	}
	if err != nil {
		s.t.Fatalf("%s: %v", a.name, err)
	}
	if a.condition == "" {
		staysSo(s.t, a.name+" comes to nothing", func() error {
			s.refresh(object)
			if len(object.GetConditions()) > 0 {
				return errors.New(describe(object))
			}
			return nil
		})
		return object
	}
	eventually(s.t, a.name+" fails", func() error {
		if err := api.Get(s.t.Context(), client.ObjectKeyFromObject(object), object); err != nil {
			return err
		}
		condition := conditions.Get(object, a.condition)
		if condition == nil || condition.Status != metav1.ConditionFalse || !slices.Contains(a.reasons, condition.Reason) {
			return errors.New(describe(object))
		}
		s.t.Logf("%s: %s: %s", a.name, condition.Reason, condition.Message)
		return nil
	})
	return object
}
