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
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/cluster-api/util/conditions"
	ctrl "sigs.k8s.io/controller-runtime"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/domain"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/host"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/network"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/owner"
)

// orphanInterval of the managers of these tests.
const orphanInterval = 2 * time.Second

// newOrphanScene is a scene with a manager of its own that looks for orphans often.
func newOrphanScene(t *testing.T) *scene {
	t.Helper()
	s := newSceneOf(t, "", host.NewPool(ctrl.Log.WithName("host"), host.WithUpload(uploaded.keep)))
	s.watchFilter = s.namespace
	ctx, cancel := context.WithCancel(context.Background())
	ended, err := startManager(ctx, s.hosts, s.watchFilter, s.namespace, nil, func(o *Options) { o.OrphanInterval = orphanInterval })
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("The manager ended: %v", err)
		}
	})
	return s
}

// forceAway removes a machine from the management cluster as somebody does who takes the finalizer away by force: what
// is on the host stays.
func (s *scene) forceAway(m *infrav1.LibvirtMachine) {
	s.t.Helper()
	change(s, m, func(m *infrav1.LibvirtMachine) {
		m.Labels[clusterv1.WatchLabel] = "nobody"
		m.Finalizers = nil
	})
	s.delete(m)
	s.expectGone(m)
}

func deletesOrphans(h *infrav1.LibvirtHost) { h.Spec.OrphanPolicy = infrav1.OrphanPolicyDelete }

func (s *scene) expectNoOrphans(h *infrav1.LibvirtHost) {
	s.t.Helper()
	s.expectCondition(h, infrav1.HostOrphansAbsentCondition, metav1.ConditionTrue, infrav1.HostOrphansAbsentReason)
}

func TestOrphanIsReportedAndRemovedByPolicyOnly(t *testing.T) {
	t.Parallel()
	s := newOrphanScene(t)
	kvm1 := s.readyHost("kvm1", testDriver(t))
	green := s.readyCluster("green", "10.20.0.0/27")
	lost, other := s.readyMachine("green", "lost"), s.readyMachine("green", "other")
	s.expectNoOrphans(kvm1)

	s.forceAway(lost)
	s.expectCondition(kvm1, infrav1.HostOrphansAbsentCondition, metav1.ConditionFalse, infrav1.HostOrphansFoundReason,
		"1 domains and 0 volumes", domain.Name(s.namespace, "lost"), uuidOf(lost), "Cluster green",
		"another management cluster", "spec.orphanPolicy to Delete")
	dom, err := s.kvm("kvm1").Domain(uuidOf(lost))
	must(t, err)
	staysSo(t, "it is only reported, and the host is ready", func() error {
		if s.refresh(kvm1); !conditions.IsTrue(kvm1, infrav1.ReadyCondition) {
			return errors.New(describe(kvm1))
		}
		if now, err := s.kvm("kvm1").Domain(uuidOf(lost)); err != nil || now != dom {
			return fmt.Errorf("the domain is %+v, %w", now, err)
		}
		return nil
	})

	change(s, kvm1, deletesOrphans)
	s.expectNoOrphans(kvm1)
	s.expectNoTraces(green, "kvm1", uuidOf(lost))
	s.expectAllThere(green, other)
}

// markedDomain is the definition of a domain that carries a mark, in a libvirt network.
func markedDomain(name, uuid, network string, by owner.Owner) string {
	return fmt.Sprintf(`<domain type="test"><name>%s</name><uuid>%s</uuid><metadata>%s</metadata><memory unit="MiB">64</memory>`+
		`<os><type>hvm</type></os><devices><interface type="network"><source network="%s"/></interface></devices></domain>`,
		name, uuid, by.Render(), network)
}

func overlay(name, backing string) string {
	return fmt.Sprintf(`<volume><name>%s</name><capacity unit="MiB">64</capacity><target><format type="qcow2"/></target>`+
		`<backingStore><path>%s</path><format type="qcow2"/></backingStore></volume>`, name, backing)
}

// TestOnlyOurOrphansAreRemoved puts everything on a host that looks like an orphan and isn't, or may be somebody else's.
func TestOnlyOurOrphansAreRemoved(t *testing.T) {
	t.Parallel()
	s := newOrphanScene(t)
	kvm1 := s.readyHost("kvm1", testDriver(t), deletesOrphans)
	green := s.readyCluster("green", "10.20.0.0/27")
	kvm := s.kvm("kvm1")
	uuid := func(k int) string { return fmt.Sprintf("5e0f7f4e-6f8c-4b4e-9d0c-0000000001%02d", k) }
	ours := func(name, cluster string) owner.Owner {
		return owner.Owner{Kind: machineKind, Namespace: s.namespace, Name: name, Cluster: cluster}
	}
	ournet := network.Name(s.namespace, "green")

	// A cluster that is paused, as during a move, and one that another management cluster may have: its network is there.
	s.readyCluster("paused", "10.20.1.0/27")
	change(s, s.cluster("paused"), func(c *clusterv1.Cluster) { setAnnotation(c, clusterv1.PausedAnnotation, "") })
	elsewhere := network.Name(s.namespace, "elsewhere")
	must(t, kvm.EnsureNetwork(t.Context(), foreignNetwork(elsewhere, uuid(90), "10.20.2.1")))
	// A machine on another host, whose domain somebody copied.
	s.readyHost("kvm2", testDriver(t))
	copied := s.readyMachine("green", "copied", func(p *machineParts) { p.libvirtMachine.Spec.HostName = "kvm2" })

	kept := map[string]string{
		uuid(1):        foreignDomain(domain.Name(s.namespace, "unmarked"), uuid(1)),
		uuid(2):        markedDomain(domain.Name(s.namespace, "theirs"), uuid(2), ournet, owner.Owner{Kind: machineKind, Namespace: "theirs", Name: "theirs", Cluster: "green"}),
		uuid(3):        markedDomain(domain.Name(s.namespace, "kind"), uuid(3), ournet, owner.Owner{Kind: "LibvirtCluster", Namespace: s.namespace, Name: "kind", Cluster: "green"}),
		uuid(4):        markedDomain(domain.Name(s.namespace, "paused"), uuid(4), network.Name(s.namespace, "paused"), ours("paused", "paused")),
		uuid(5):        markedDomain(domain.Name(s.namespace, "elsewhere"), uuid(5), elsewhere, ours("elsewhere", "elsewhere")),
		uuid(6):        markedDomain(domain.Name(s.namespace, "bridged"), uuid(6), "bridge-of-others", ours("bridged", "elsewhere2")),
		uuidOf(copied): markedDomain(domain.Name(s.namespace, "copied"), uuidOf(copied), ournet, ours("copied", "green")),
		uuid(7): strings.Replace(foreignDomain("rescue", uuid(7)), "</os>",
			"</os><devices><disk type='file'><source file='/default-pool/"+domain.RootVolumeName(uuid(22))+"'/><target dev='vda'/></disk></devices>", 1),
	}
	for _, definition := range kept {
		must(t, kvm.DefineDomain(t.Context(), definition))
	}
	removed := map[string]string{
		uuid(11): markedDomain(domain.Name(s.namespace, "gone"), uuid(11), ournet, ours("gone", "green")),
		uuid(12): markedDomain(domain.Name(s.namespace, "gone-with-cluster"), uuid(12), network.Name(s.namespace, "gone"), ours("gone-with-cluster", "gone")),
	}
	for _, definition := range removed {
		must(t, kvm.DefineDomain(t.Context(), definition))
	}
	backing, err := kvm.Volume(t.Context(), "default", imageVolume)
	must(t, err)
	keptVolumes := []string{imageVolume, domain.RootVolumeName(uuid(21)), domain.RootVolumeName(uuid(22)), "capl-notes.txt"}
	must(t, kvm.CreateVolume(t.Context(), "default", fmt.Sprintf(`<volume><name>%s</name><capacity unit="MiB">1</capacity></volume>`, keptVolumes[1])))
	must(t, kvm.CreateVolume(t.Context(), "default", overlay(keptVolumes[2], backing.Path)))
	must(t, kvm.CreateVolume(t.Context(), "default", fmt.Sprintf(`<volume><name>%s</name><capacity unit="MiB">1</capacity></volume>`, keptVolumes[3])))
	must(t, kvm.CreateVolume(t.Context(), "default", overlay(domain.RootVolumeName(uuid(31)), backing.Path)))
	must(t, kvm.CreateVolume(t.Context(), infrav1.DefaultSeedPool, fmt.Sprintf(`<volume><name>%s</name><capacity unit="MiB">1</capacity></volume>`, domain.SeedVolumeName(uuid(31)))))

	for _, orphan := range []string{uuid(11), uuid(12), uuid(31)} {
		eventually(t, orphan+" is removed", func() error {
			if dom, err := kvm.Domain(orphan); !errors.Is(err, host.ErrNotFound) {
				return fmt.Errorf("%+v, %w\n%s", dom, err, describe(kvm1))
			}
			return nil
		})
	}
	eventually(t, "the report has what is kept and why", func() error {
		s.refresh(kvm1)
		condition := conditions.Get(kvm1, infrav1.HostOrphansAbsentCondition)
		if condition == nil || condition.Reason != infrav1.HostOrphansFoundReason {
			return errors.New(describe(kvm1))
		}
		for _, text := range []string{
			"4 domains and 2 volumes", "Cluster paused is paused", "its network " + elsewhere + " is on the host", "virsh net-undefine",
			"it isn't in the network " + network.Name(s.namespace, "elsewhere2"), "LibvirtMachine " + s.namespace + "/copied has this UUID and is on host kvm2",
			"and 1 more", "spec.orphanPolicy is Delete",
		} {
			if !strings.Contains(condition.Message, text) {
				return fmt.Errorf("the message lacks %q: %s", text, condition.Message)
			}
		}
		return nil
	})
	staysSo(t, "the rest is kept", func() error {
		for uuid := range kept {
			if _, err := kvm.Domain(uuid); err != nil {
				return err
			}
		}
		for _, name := range keptVolumes {
			if _, err := kvm.Volume(t.Context(), "default", name); err != nil {
				return err
			}
		}
		return nil
	})
	s.expectNoTraces(green, "kvm1", uuid(31))
	s.expectAllThere(green, copied)

	// What kept the last two was a pause and a foreign network.
	change(s, s.cluster("paused"), func(c *clusterv1.Cluster) { delete(c.Annotations, clusterv1.PausedAnnotation) })
	must(t, kvm.DeleteNetwork(t.Context(), uuid(90)))
	s.expectUndefined(kvm, uuid(4), uuid(5))
}

// TestOrphansThatMayBeSomebodyElses has what another management cluster would leave on a host that both use: a Cluster of
// the same name in a namespace of the same name, on a network of its own or an existing one. And it has an orphan whose
// disk somebody rescued.
func TestOrphansThatMayBeSomebodyElses(t *testing.T) {
	t.Parallel()
	s := newOrphanScene(t)
	kvm1 := s.readyHost("kvm1", testDriver(t), deletesOrphans)
	s.readyHost("kvm2", testDriver(t), func(h *infrav1.LibvirtHost) { h.Labels["site"] = "home" })
	s.readyCluster("green", "10.20.0.0/27")
	// Ours is on the other host only.
	s.readyCluster("twin", "10.20.1.0/27", func(c *infrav1.LibvirtCluster) { c.Spec.HostSelector.MatchLabels = map[string]string{"site": "home"} })
	kvm := s.kvm("kvm1")
	uuid := func(k int) string { return fmt.Sprintf("5e0f7f4e-6f8c-4b4e-9d0c-0000000002%02d", k) }
	twin, green := network.Name(s.namespace, "twin"), network.Name(s.namespace, "green")
	must(t, kvm.EnsureNetwork(t.Context(), foreignNetwork(twin, uuid(90), "10.20.2.1")))
	define := func(k int, name, cluster, inNetwork string) {
		must(t, kvm.DefineDomain(t.Context(), markedDomain(domain.Name(s.namespace, name), uuid(k), inNetwork,
			owner.Owner{Kind: machineKind, Namespace: s.namespace, Name: name, Cluster: cluster})))
	}
	define(1, "theirs", "twin", twin)
	define(2, "bridged", "green", "lan")
	define(3, "rescued", "green", green)
	define(4, "gone", "green", green)
	must(t, kvm.DefineDomain(t.Context(), strings.Replace(foreignDomain("rescue", uuid(5)), "</os>",
		"</os><devices><disk type='file'><source file='/default-pool/"+domain.RootVolumeName(uuid(3))+"'/><target dev='vda'/></disk></devices>", 1)))
	backing, err := kvm.Volume(t.Context(), "default", imageVolume)
	must(t, err)
	must(t, kvm.CreateVolume(t.Context(), "default", overlay(domain.RootVolumeName(uuid(3)), backing.Path)))

	s.expectUndefined(kvm, uuid(4))
	s.expectCondition(kvm1, infrav1.HostOrphansAbsentCondition, metav1.ConditionFalse, infrav1.HostOrphansFoundReason,
		"3 domains and 0 volumes", "the network "+twin+" on the host isn't that of Cluster twin", "it isn't in the network "+green,
		"domain rescue uses "+domain.RootVolumeName(uuid(3)))
	staysSo(t, "the rest is kept", func() error {
		for _, k := range []int{1, 2, 3, 5} {
			if _, err := kvm.Domain(uuid(k)); err != nil {
				return err
			}
		}
		_, err := kvm.Volume(t.Context(), "default", domain.RootVolumeName(uuid(3)))
		return err
	})

	must(t, kvm.UndefineDomain(t.Context(), uuid(5)))
	must(t, kvm.DeleteNetwork(t.Context(), uuid(90)))
	s.expectUndefined(kvm, uuid(1), uuid(3))
}

// expectUndefined waits until domains are gone.
func (s *scene) expectUndefined(kvm *host.Host, uuids ...string) {
	s.t.Helper()
	for _, uuid := range uuids {
		eventually(s.t, "domain "+uuid+" is removed", func() error {
			if _, err := kvm.Domain(uuid); !errors.Is(err, host.ErrNotFound) {
				return fmt.Errorf("it is there: %w", err)
			}
			return nil
		})
	}
}

// TestDiskThatIsWrittenToIsNoOrphan has a disk on storage that another host uses too: the machine isn't seen here.
func TestDiskThatIsWrittenToIsNoOrphan(t *testing.T) {
	t.Parallel()
	s := newOrphanScene(t)
	lab := newLab(t)
	kvm1 := s.readyHost("kvm1", lab.URI(), deletesOrphans)
	name := domain.RootVolumeName(foreignUUID)
	must(t, s.kvm("kvm1").CreateVolume(t.Context(), "default", overlay(name, filepath.Join("/var/lib/libvirt/images", imageVolume))))
	disk := lab.Path("/var/lib/libvirt/images/" + name)
	for end := time.Now().Add(3 * orphanInterval); time.Now().Before(end); time.Sleep(orphanInterval / 10) {
		now := time.Now()
		must(t, os.Chtimes(disk, now, now))
	}
	s.expectCondition(kvm1, infrav1.HostOrphansAbsentCondition, metav1.ConditionFalse, infrav1.HostOrphansFoundReason,
		name, "it was written to after it was found")
	if _, err := os.Stat(disk); err != nil {
		t.Fatal(err)
	}
}
