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
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/cluster-api/util/conditions"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/domain"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/host"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/hosttest"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/network"
)

const (
	// patience is how long a test waits for what must come.
	patience = 90 * time.Second
	// moment is how long a test watches that something doesn't come.
	moment = 3 * time.Second

	// imageVolume is the image on the hosts of the tests, smaller than any root disk.
	imageVolume     = "node-image"
	imageVolumeSize = 512 << 20

	userData = "#cloud-config\nruncmd: [kubeadm join]\n"
)

// scene is a namespace of the management cluster in which a test plays.
type scene struct {
	t         *testing.T
	namespace string
	// watchFilter is the value of the watch-filter label of what the scene creates.
	watchFilter string
	// hosts are the connections of the manager that plays in it.
	hosts *host.Pool
}

// newScene makes a namespace in which the shared manager plays.
func newScene(t *testing.T) *scene {
	t.Helper()
	return newSceneOf(t, sharedManager, pool)
}

func newSceneOf(t *testing.T, watchFilter string, hosts *host.Pool) *scene {
	t.Helper()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "test-"}}
	s := &scene{t: t, watchFilter: watchFilter, hosts: hosts}
	s.create(namespace)
	s.namespace = namespace.Name
	t.Cleanup(s.forgetHosts)
	return s
}

// forgetHosts has the manager give up the hosts of a scene that is over. It would try to reach them twice a second until
// the last of all tests has ended.
func (s *scene) forgetHosts() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var hosts infrav1.LibvirtHostList
	if err := api.List(ctx, &hosts, client.InNamespace(s.namespace)); err != nil {
		s.t.Errorf("Listing the hosts of a scene that is over: %v", err)
	}
	for i := range hosts.Items {
		h := &hosts.Items[i]
		noFinalizers := client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`))
		for _, err := range []error{api.Delete(ctx, h), api.Patch(ctx, h, noFinalizers)} {
			if client.IgnoreNotFound(err) != nil {
				s.t.Errorf("Forgetting host %s: %v", h.Name, err)
			}
		}
	}
}

func (s *scene) create(object client.Object) {
	s.t.Helper()
	if err := api.Create(s.t.Context(), object); err != nil {
		s.t.Fatalf("Creating %T %s: %v", object, object.GetName(), err)
	}
}

// meta is the metadata of an object of the scene.
func (s *scene) meta(name string, cluster string) metav1.ObjectMeta {
	meta := metav1.ObjectMeta{Namespace: s.namespace, Name: name, Labels: map[string]string{clusterv1.WatchLabel: s.watchFilter}}
	if cluster != "" {
		meta.Labels[clusterv1.ClusterNameLabel] = cluster
	}
	return meta
}

// refresh reads an object anew.
func (s *scene) refresh(object client.Object) {
	s.t.Helper()
	if err := api.Get(s.t.Context(), client.ObjectKeyFromObject(object), object); err != nil {
		s.t.Fatalf("Reading %T %s: %v", object, object.GetName(), err)
	}
}

// change edits the newest version of an object, its metadata and spec.
func change[T client.Object](s *scene, object T, edit func(T)) {
	s.t.Helper()
	s.refresh(object)
	before := object.DeepCopyObject().(client.Object)
	edit(object)
	if err := api.Patch(s.t.Context(), object, client.MergeFrom(before)); err != nil {
		s.t.Fatalf("Changing %T %s: %v", object, object.GetName(), err)
	}
}

// changeStatus edits the status of the newest version of an object.
func changeStatus[T client.Object](s *scene, object T, edit func(T)) {
	s.t.Helper()
	s.refresh(object)
	before := object.DeepCopyObject().(client.Object)
	edit(object)
	if err := api.Status().Patch(s.t.Context(), object, client.MergeFrom(before)); err != nil {
		s.t.Fatalf("Changing the status of %T %s: %v", object, object.GetName(), err)
	}
}

func (s *scene) delete(object client.Object) {
	s.t.Helper()
	if err := api.Delete(s.t.Context(), object); err != nil {
		s.t.Fatalf("Deleting %T %s: %v", object, object.GetName(), err)
	}
}

// testDriver is the URI of a host of libvirt's test driver that has the image.
func testDriver(t *testing.T, options ...hosttest.NodeOption) string {
	t.Helper()
	return hosttest.TestDriver(t, append(options, hosttest.Volume("default", imageVolume, "qcow2", imageVolumeSize))...)
}

// createHost creates a LibvirtHost.
func (s *scene) createHost(name, uri string, edits ...func(*infrav1.LibvirtHost)) *infrav1.LibvirtHost {
	s.t.Helper()
	libvirtHost := &infrav1.LibvirtHost{ObjectMeta: s.meta(name, ""), Spec: infrav1.LibvirtHostSpec{URI: uri}}
	if !strings.HasPrefix(uri, "test:") {
		// Many tests share the processors of this machine.
		libvirtHost.Spec.CPUOvercommitPercent = 10000
	}
	for _, edit := range edits {
		edit(libvirtHost)
	}
	s.create(libvirtHost)
	return libvirtHost
}

// readyHost creates a LibvirtHost and waits until it is ready.
func (s *scene) readyHost(name, uri string, edits ...func(*infrav1.LibvirtHost)) *infrav1.LibvirtHost {
	s.t.Helper()
	libvirtHost := s.createHost(name, uri, edits...)
	s.expectReady(libvirtHost)
	return libvirtHost
}

// createCluster creates a Cluster and its LibvirtCluster, which may use all hosts of the scene.
func (s *scene) createCluster(name, cidr string, edits ...func(*infrav1.LibvirtCluster)) *infrav1.LibvirtCluster {
	s.t.Helper()
	plan, err := network.NewPlan(cidr, "")
	if err != nil {
		s.t.Fatalf("Planning a network: %v", err)
	}
	cluster := &clusterv1.Cluster{
		ObjectMeta: s.meta(name, name),
		Spec: clusterv1.ClusterSpec{
			ControlPlaneEndpoint: clusterv1.APIEndpoint{Host: plan.VIPs.First.String(), Port: 6443},
			InfrastructureRef: clusterv1.ContractVersionedObjectReference{
				APIGroup: infrav1.GroupVersion.Group, Kind: "LibvirtCluster", Name: name,
			},
		},
	}
	s.create(cluster)
	libvirtCluster := &infrav1.LibvirtCluster{
		ObjectMeta: s.meta(name, name),
		Spec:       infrav1.LibvirtClusterSpec{Network: infrav1.ClusterNetwork{CIDR: cidr}},
	}
	libvirtCluster.OwnerReferences = []metav1.OwnerReference{ownedBy(cluster, "Cluster")}
	for _, edit := range edits {
		edit(libvirtCluster)
	}
	s.create(libvirtCluster)
	return libvirtCluster
}

// readyCluster creates a Cluster and its LibvirtCluster, waits until that is ready and says so in the Cluster, as Cluster
// API would.
func (s *scene) readyCluster(name, cidr string, edits ...func(*infrav1.LibvirtCluster)) *infrav1.LibvirtCluster {
	s.t.Helper()
	libvirtCluster := s.createCluster(name, cidr, edits...)
	s.expectReady(libvirtCluster)
	s.setInfrastructureProvisioned(name)
	return libvirtCluster
}

func (s *scene) cluster(name string) *clusterv1.Cluster {
	return &clusterv1.Cluster{ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: name}}
}

func (s *scene) machine(name string) *clusterv1.Machine {
	return &clusterv1.Machine{ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: name}}
}

func (s *scene) setInfrastructureProvisioned(cluster string) {
	s.t.Helper()
	changeStatus(s, s.cluster(cluster), func(c *clusterv1.Cluster) {
		c.Status.Initialization.InfrastructureProvisioned = ptr.To(true)
	})
}

// machineParts are the objects that make a machine. A test sets to nil what it wants to be missing.
type machineParts struct {
	machine        *clusterv1.Machine
	libvirtMachine *infrav1.LibvirtMachine
	secret         *corev1.Secret
}

// createMachine creates a Machine of a cluster with its bootstrap data and its LibvirtMachine.
func (s *scene) createMachine(cluster, name string, edits ...func(*machineParts)) *infrav1.LibvirtMachine {
	s.t.Helper()
	parts := s.machineParts(cluster, name)
	for _, edit := range edits {
		edit(parts)
	}
	if parts.secret != nil {
		s.create(parts.secret)
	}
	s.create(parts.machine)
	parts.libvirtMachine.OwnerReferences = []metav1.OwnerReference{ownedBy(parts.machine, "Machine")}
	s.create(parts.libvirtMachine)
	return parts.libvirtMachine
}

func (s *scene) machineParts(cluster, name string) *machineParts {
	return &machineParts{
		secret: &corev1.Secret{
			ObjectMeta: s.meta(name, cluster),
			Data:       map[string][]byte{"value": []byte(userData), "format": []byte("cloud-config")},
		},
		machine: &clusterv1.Machine{
			ObjectMeta: s.meta(name, cluster),
			Spec: clusterv1.MachineSpec{
				ClusterName: cluster,
				Bootstrap:   clusterv1.Bootstrap{DataSecretName: ptr.To(name)},
				InfrastructureRef: clusterv1.ContractVersionedObjectReference{
					APIGroup: infrav1.GroupVersion.Group, Kind: "LibvirtMachine", Name: name,
				},
			},
		},
		libvirtMachine: &infrav1.LibvirtMachine{
			ObjectMeta: s.meta(name, cluster),
			Spec: infrav1.LibvirtMachineSpec{
				VCPUs:    2,
				Memory:   resource.MustParse("1Gi"),
				Image:    infrav1.Image{Volume: imageVolume},
				RootDisk: infrav1.RootDisk{Size: resource.MustParse("2Gi")},
			},
		},
	}
}

// readyMachine creates a machine and waits until it is ready.
func (s *scene) readyMachine(cluster, name string, edits ...func(*machineParts)) *infrav1.LibvirtMachine {
	s.t.Helper()
	libvirtMachine := s.createMachine(cluster, name, edits...)
	s.expectReady(libvirtMachine)
	return libvirtMachine
}

func ownedBy(owner client.Object, kind string) metav1.OwnerReference {
	return metav1.OwnerReference{
		APIVersion: clusterv1.GroupVersion.String(), Kind: kind, Name: owner.GetName(), UID: owner.GetUID(),
		Controller: ptr.To(true),
	}
}

func onHost(name string) func(*machineParts) {
	return func(p *machineParts) { p.libvirtMachine.Spec.HostName = name }
}

// kvm is the connection to a host of the scene.
func (s *scene) kvm(hostName string) (kvm *host.Host) {
	s.t.Helper()
	eventually(s.t, "host "+hostName+" is there", func() (err error) {
		kvm, err = s.hosts.Get(hostKey(s.namespace, hostName))
		return err
	})
	return kvm
}

// ask returns what a host of the scene answers. One that is busy, with other scenes as a rule, or was given up for being
// silent so long, says it when it is asked again.
func ask[T any](s *scene, hostName string, call func(*host.Host) (T, error)) (answer T, err error) {
	s.t.Helper()
	_ = within(patience, func() error {
		if answer, err = call(s.kvm(hostName)); errors.Is(err, host.ErrBusy) || errors.Is(err, host.ErrUnreachable) {
			return err
		}
		return nil
	})
	return answer, err
}

// volume looks a volume up.
func (s *scene) volume(hostName, pool, name string) (host.Volume, error) {
	s.t.Helper()
	return ask(s, hostName, func(kvm *host.Host) (host.Volume, error) { return kvm.Volume(s.t.Context(), pool, name) })
}

// eventually waits until check finds nothing to complain of.
func eventually(t *testing.T, what string, check func() error) {
	t.Helper()
	if err := within(patience, check); err != nil {
		t.Fatalf("Not within %s: %s: %v", patience, what, err)
	}
}

func within(limit time.Duration, check func() error) error {
	for end := time.Now().Add(limit); ; time.Sleep(50 * time.Millisecond) {
		if err := check(); err == nil || time.Now().After(end) {
			return err
		}
	}
}

// expectCondition waits until an object has a condition of that type, status and reason whose message contains all of
// the texts, and returns it.
func (s *scene) expectCondition(object conditionsObject, conditionType string, status metav1.ConditionStatus, reason string, texts ...string) metav1.Condition {
	s.t.Helper()
	var found metav1.Condition
	eventually(s.t, fmt.Sprintf("%T %s has %s=%s for %s", object, object.GetName(), conditionType, status, reason), func() error {
		if err := api.Get(s.t.Context(), client.ObjectKeyFromObject(object), object); err != nil {
			return err
		}
		condition := conditions.Get(object, conditionType)
		if condition == nil || condition.Status != status || condition.Reason != reason {
			return errors.New(describe(object))
		}
		for _, text := range texts {
			if !strings.Contains(condition.Message, text) {
				return fmt.Errorf("its message lacks %q\n%s", text, describe(object))
			}
		}
		found = *condition
		return nil
	})
	return found
}

// conditionsObject is an object of ours with conditions.
type conditionsObject interface {
	client.Object
	conditions.Setter
}

// expectReady waits until an object is ready and the rest of its status, which is written a moment after the conditions,
// is there too.
func (s *scene) expectReady(object conditionsObject) {
	s.t.Helper()
	s.expectCondition(object, infrav1.ReadyCondition, metav1.ConditionTrue, infrav1.ReadyReason)
	eventually(s.t, fmt.Sprintf("%T %s has a status", object, object.GetName()), func() error {
		if err := api.Get(s.t.Context(), client.ObjectKeyFromObject(object), object); err != nil {
			return err
		}
		complete := false
		switch o := object.(type) {
		case *infrav1.LibvirtHost:
			complete = o.Status.Machines != nil
		case *infrav1.LibvirtCluster:
			complete = ptr.Deref(o.Status.Initialization.Provisioned, false)
		case *infrav1.LibvirtMachine:
			complete = ptr.Deref(o.Status.Initialization.Provisioned, false)
		}
		if !complete {
			return errors.New("it is incomplete")
		}
		return nil
	})
}

// describe lists the conditions of an object.
func describe(object conditions.Getter) string {
	lines := []string{"its conditions are"}
	for _, condition := range object.GetConditions() {
		lines = append(lines, fmt.Sprintf("\t%s=%s %s: %s", condition.Type, condition.Status, condition.Reason, condition.Message))
	}
	return strings.Join(lines, "\n")
}

// expectGone waits until an object is gone.
func (s *scene) expectGone(object conditionsObject) {
	s.t.Helper()
	eventually(s.t, fmt.Sprintf("%T %s is gone", object, object.GetName()), func() error {
		err := api.Get(s.t.Context(), client.ObjectKeyFromObject(object), object)
		switch {
		case apierrors.IsNotFound(err):
			return nil
		case err != nil:
			return err
		}
		return errors.New(describe(object))
	})
}

// staysSo watches for a moment that check finds nothing to complain of.
func staysSo(t *testing.T, what string, check func() error) {
	t.Helper()
	for end := time.Now().Add(moment); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if err := check(); err != nil {
			t.Fatalf("Not any more: %s: %v", what, err)
		}
	}
}

// settles waits until what an object's own changes woke is done: from then on something else has to wake its reconciler.
func (s *scene) settles(object conditionsObject) {
	s.t.Helper()
	s.refresh(object)
	version := object.GetResourceVersion()
	for quiet, end := time.Now(), time.Now().Add(patience); time.Since(quiet) < moment; time.Sleep(100 * time.Millisecond) {
		if s.refresh(object); object.GetResourceVersion() != version {
			version, quiet = object.GetResourceVersion(), time.Now()
		}
		if time.Now().After(end) {
			s.t.Fatalf("%T %s changes on and on", object, object.GetName())
		}
	}
}

// expectWoken waits until an object that waited is ready, which mustn't take as long as it takes its reconciler to look
// again by itself.
func (s *scene) expectWoken(object conditionsObject) {
	s.t.Helper()
	began := time.Now()
	s.expectReady(object)
	if took := time.Since(began); took > conflictInterval-3*moment {
		s.t.Errorf("%T %s is ready after %s only: nothing woke its reconciler", object, object.GetName(), took)
	}
}

// uuidOf is the UUID of a machine's domain.
func uuidOf(libvirtMachine *infrav1.LibvirtMachine) string {
	return domain.UUID(libvirtMachine.Spec.ProviderID)
}

// expectAllThere checks that a machine has its domain, its volumes and its address on a host.
func (s *scene) expectAllThere(libvirtCluster *infrav1.LibvirtCluster, libvirtMachine *infrav1.LibvirtMachine) {
	s.t.Helper()
	s.refresh(libvirtMachine)
	kvm, uuid := s.kvm(libvirtMachine.Spec.HostName), uuidOf(libvirtMachine)
	dom, err := kvm.Domain(uuid)
	if err != nil || dom.State != host.Running {
		s.t.Errorf("The domain is %+v, %v", dom, err)
	}
	for _, name := range []string{domain.RootVolumeName(uuid), domain.SeedVolumeName(uuid)} {
		if _, err := s.volume(libvirtMachine.Spec.HostName, poolOf(name), name); err != nil {
			s.t.Error(err)
		}
	}
	reservations := s.reservations(libvirtCluster, libvirtMachine.Spec.HostName)
	if ip := internalIP(libvirtMachine); ip == "" || reservations[network.MAC(uuid)] != ip {
		s.t.Errorf("The machine reports the address %q, its network has %v", ip, reservations)
	}
}

// expectNoTraces checks that nothing of a machine is left on a host.
func (s *scene) expectNoTraces(libvirtCluster *infrav1.LibvirtCluster, hostName, uuid string) {
	s.t.Helper()
	kvm := s.kvm(hostName)
	if dom, err := kvm.Domain(uuid); !errors.Is(err, host.ErrNotFound) {
		s.t.Errorf("The domain is still there: %+v, %v", dom, err)
	}
	for _, name := range []string{domain.RootVolumeName(uuid), domain.SeedVolumeName(uuid)} {
		if found, err := s.volume(hostName, poolOf(name), name); !errors.Is(err, host.ErrNotFound) {
			s.t.Errorf("The volume %s is still there: %+v, %v", name, found, err)
		}
	}
	if ip, ok := s.reservations(libvirtCluster, hostName)[network.MAC(uuid)]; ok {
		s.t.Errorf("The address %s is still reserved", ip)
	}
}

func poolOf(volume string) string {
	if strings.HasSuffix(volume, "-seed.iso") {
		return infrav1.DefaultSeedPool
	}
	return infrav1.DefaultPool
}

// reservations are the addresses in a cluster's network on a host by MAC address.
func (s *scene) reservations(libvirtCluster *infrav1.LibvirtCluster, hostName string) map[string]string {
	s.t.Helper()
	s.refresh(libvirtCluster)
	list, err := ask(s, hostName, func(kvm *host.Host) ([]host.Reservation, error) {
		return kvm.Reservations(s.t.Context(), libvirtCluster.Spec.Network.UUID)
	})
	if err != nil {
		s.t.Fatal(err)
	}
	found := map[string]string{}
	for _, reservation := range list {
		found[reservation.MAC] = reservation.IP
	}
	return found
}

// parse reads a document of libvirt's.
func parse[T any](t *testing.T, document string) T {
	t.Helper()
	var parsed T
	if err := xml.Unmarshal([]byte(document), &parsed); err != nil {
		t.Fatal(err)
	}
	return parsed
}

// touch has an object reconciled, as the slow resync would.
func touch[T client.Object](s *scene, object T) {
	s.t.Helper()
	change(s, object, func(o T) { setAnnotation(o, "test.example.org/touched", time.Now().Format(time.RFC3339Nano)) })
}

func setAnnotation(object client.Object, key, value string) {
	annotations := object.GetAnnotations()
	if annotations == nil {
		annotations = map[string]string{}
	}
	annotations[key] = value
	object.SetAnnotations(annotations)
}

// must ends the test on an error.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// foreignDomain is the definition of a domain that isn't ours.
func foreignDomain(name, uuid string) string {
	return fmt.Sprintf(`<domain type="test"><name>%s</name><uuid>%s</uuid><memory unit="MiB">64</memory><os><type>hvm</type></os></domain>`, name, uuid)
}

// foreignNetwork is the definition of a network that isn't ours.
func foreignNetwork(name, uuid, gateway string) string {
	return fmt.Sprintf(`<network><name>%s</name><uuid>%s</uuid><bridge name='foreign0'/><ip address='%s' prefix='24'/></network>`, name, uuid, gateway)
}

// foreignUUID is a UUID that no object of ours has.
const foreignUUID = "5e0f7f4e-6f8c-4b4e-9d0c-000000000001"
