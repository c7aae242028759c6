//go:build guests

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
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/vincent-petithory/dataurl"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/bootstrap"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/domain"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/host"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/hosttest"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/lab/privatehost"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/network"
)

// bootingGuest creates a machine of the small Debian image, on a host of its own.
func bootingGuest(t *testing.T, format bootstrap.Format, data string) (*scene, *privatehost.Host, *infrav1.LibvirtMachine) {
	t.Helper()
	image := serve(t, guestImage(t))
	lab := hosttest.Libvirtd(t)
	s := newScene(t)
	s.readyHost("kvm1", lab.URI())
	s.readyCluster("guest", "10.99.0.0/25")
	libvirtMachine := s.readyMachine("guest", "guest-1", func(parts *machineParts) {
		spec := &parts.libvirtMachine.Spec
		spec.Image, spec.Memory, spec.DomainType = image, resource.MustParse("768Mi"), infrav1.DomainTypeQEMU
		spec.RootDisk = infrav1.RootDisk{Size: resource.MustParse("3Gi"), Cache: infrav1.DiskCacheUnsafe}
		parts.secret.Data["format"], parts.secret.Data["value"] = []byte(format), []byte(data)
	})
	return s, lab, libvirtMachine
}

// guestFile waits until a file in the guest can be read, and has the text.
func guestFile(t *testing.T, kvm *host.Host, uuid, path, text string) string {
	t.Helper()
	var content []byte
	if err := within(bootPatience, func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		var err error
		content, err = kvm.ReadGuestFile(ctx, uuid, path, 32<<10)
		if err != nil || !strings.Contains(string(content), text) {
			time.Sleep(2 * time.Second)
			return fmt.Errorf("%s is %q, %w", path, content, errors.Join(err, errors.New("not as it should be")))
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// eventuallyBooted waits for a condition that an emulated guest brings about.
func (s *scene) eventuallyBooted(libvirtMachine *infrav1.LibvirtMachine, status metav1.ConditionStatus, reason string) metav1.Condition {
	s.t.Helper()
	var found metav1.Condition
	if err := within(bootPatience, func() error {
		s.refresh(libvirtMachine)
		for _, condition := range libvirtMachine.Status.Conditions {
			if condition.Type == infrav1.MachineBootstrapSucceededCondition && condition.Status == status && condition.Reason == reason {
				found = condition
				return nil
			}
		}
		return errors.New(describe(libvirtMachine))
	}); err != nil {
		s.t.Fatalf("The bootstrap doesn't become %s=%s: %v", status, reason, err)
	}
	return found
}

// restartGuest has a guest shut down, which is then started anew by a new hypervisor.
func restartGuest(t *testing.T, s *scene, lab *privatehost.Host, libvirtMachine *infrav1.LibvirtMachine) {
	t.Helper()
	kvm, uuid := s.kvm("kvm1"), uuidOf(libvirtMachine)
	began := time.Now()
	if err := within(bootPatience, func() error { // a guest that still boots can't
		output, err := lab.Inside(t.Context(), "virsh", "shutdown", "--mode", "agent", libvirtMachine.Status.Domain.Name).CombinedOutput()
		if err != nil {
			time.Sleep(2 * time.Second)
			return fmt.Errorf("%w: %s", err, output)
		}
		return nil
	}); err != nil {
		t.Fatalf("The guest doesn't shut down: %v", err)
	}
	for _, want := range []host.State{host.Shutoff, host.Running} {
		if err := within(bootPatience, func() error {
			dom, err := kvm.Domain(uuid)
			if err != nil || dom.State != want || dom.ChangedAt.Before(began) {
				return fmt.Errorf("it is %+v, %w", dom, errors.Join(err, errors.New("not that")))
			}
			return nil
		}); err != nil {
			t.Fatalf("The guest doesn't become %s: %v", want, err)
		}
	}
}

// TestBootstrapDataLeavesNoTraces follows bootstrap data with a secret in it: the guest says that its bootstrap succeeded;
// once the Node has registered the secret is nowhere on the host, nor in what the API server or our log have; and the guest
// doesn't take its next start, without the data, for its first.
func TestBootstrapDataLeavesNoTraces(t *testing.T) {
	t.Parallel()
	s, lab, m := bootingGuest(t, bootstrap.CloudConfig, "## template: jinja\n#cloud-config\n# "+canary+"\nwrite_files:\n- path: /root/secret\n  content: "+canary+"\n"+
		"runcmd:\n- echo run >>/var/lib/runs\n- mkdir -p /run/cluster-api && echo success >"+bootstrap.Sentinel+"\n")
	kvm, uuid := s.kvm("kvm1"), uuidOf(m)
	s.expectCondition(m, infrav1.MachineBootstrapDataRemovedCondition, metav1.ConditionFalse, infrav1.MachineWaitingForNodeReason)
	if found := holding(t, lab, canary); !strings.HasSuffix(found, domain.SeedVolumeName(uuid)) {
		t.Fatalf("Before, the secret is in %q, and should be in the seed", found)
	}
	s.eventuallyBooted(m, metav1.ConditionTrue, infrav1.MachineBootstrapSucceededReason)
	guestFile(t, kvm, uuid, bootstrap.CloudInitResult, "errors")
	runs, hostKey := guestFile(t, kvm, uuid, "/var/lib/runs", "run"), guestFile(t, kvm, uuid, "/etc/ssh/ssh_host_ed25519_key.pub", "ssh-ed25519")
	name := guestFile(t, kvm, uuid, "/etc/hostname", "guest-1")

	before := settledCalls(t, kvm)
	s.registerNode("guest-1")
	s.expectCondition(m, infrav1.MachineBootstrapDataRemovedCondition, metav1.ConditionTrue, infrav1.MachineBootstrapDataRemovedReason)
	t.Logf("Removing the bootstrap data: %v", difference(before, settledCalls(t, kvm)))
	s.expectReady(m)
	expectNoCanary(t, s, lab, m)

	restartGuest(t, s, lab, m)
	guestFile(t, kvm, uuid, bootstrap.CloudInitResult, "errors")
	if again := guestFile(t, kvm, uuid, "/var/lib/runs", "run"); again != runs {
		t.Errorf("The bootstrap data ran anew: %q", again)
	}
	if again := guestFile(t, kvm, uuid, "/etc/ssh/ssh_host_ed25519_key.pub", "ssh-ed25519"); again != hostKey {
		t.Error("The guest has another SSH key")
	}
	if again := guestFile(t, kvm, uuid, "/etc/hostname", ""); again != name {
		t.Errorf("The guest's name is %q", again)
	}
	guestFile(t, kvm, uuid, "/var/lib/cloud/data/instance-id", uuid)
	expectReserved(t, kvm, uuid, internalIP(m))
	expectNoCanary(t, s, lab, m)
	s.eventuallyBooted(m, metav1.ConditionTrue, infrav1.MachineBootstrapSucceededReason)

	// A move to another management cluster loses the status. What the guest could tell went with its first start.
	changeStatus(s, m, func(m *infrav1.LibvirtMachine) { m.Status.Conditions = nil })
	touch(s, m)
	s.eventuallyBooted(m, metav1.ConditionTrue, infrav1.MachineNodeRegisteredReason)
}

// expectReserved waits until the guest has its address.
func expectReserved(t *testing.T, kvm *host.Host, uuid, reserved string) {
	t.Helper()
	if err := within(bootPatience, func() error {
		addresses, err := kvm.InterfaceAddresses(t.Context(), uuid, host.AddressFromAgent)
		for _, address := range addresses {
			if address.IP == reserved {
				return nil
			}
		}
		return fmt.Errorf("it has %v and not %s, %w", addresses, reserved, errors.Join(err, errors.New("not that")))
	}); err != nil {
		t.Fatal(err)
	}
}

// TestBootstrapFailureIsTold has a guest fail, and measures how long it takes until the reason is in the condition.
func TestBootstrapFailureIsTold(t *testing.T) {
	t.Parallel()
	s, lab, m := bootingGuest(t, bootstrap.CloudConfig, "#cloud-config\nruncmd:\n- echo preflight checks\n"+
		"- echo joining with token abcdef.0123456789abcdef\n- echo error port 10250 is in use\n- echo FAILS NOW >/dev/console\n- exit 3\n")
	console := lab.Path("/var/log/libvirt/qemu/" + m.Status.Domain.Name + "-console.log")
	if err := within(bootPatience, func() error {
		if !strings.Contains(string(file(t, console)), "FAILS NOW") {
			return errors.New("it runs")
		}
		return nil
	}); err != nil {
		t.Fatalf("The guest doesn't fail: %v", err)
	}
	failed := time.Now()
	found := s.eventuallyBooted(m, metav1.ConditionFalse, infrav1.MachineBootstrapFailedReason)
	took := time.Since(failed)
	t.Logf("From the failure to the condition it took %s:\n%s", took.Round(100*time.Millisecond), found.Message)
	if took > 30*time.Second {
		t.Error("That isn't within seconds, even for an emulated guest")
	}
	for _, want := range []string{"scripts-user", "error port 10250 is in use", "joining with token [token]"} {
		if !strings.Contains(found.Message, want) {
			t.Errorf("The message lacks %q", want)
		}
	}
	s.expectCondition(m, infrav1.ReadyCondition, metav1.ConditionFalse, infrav1.MachineBootstrapFailedReason, "port 10250")
	if !provisioned(m) {
		t.Error("The machine isn't provisioned any more")
	}
	expectHungAgentAlone(t, s.kvm("kvm1"), lab, m)
}

// expectHungAgentAlone stops the hypervisor, so that the guest's agent answers no more, and does other things on the host
// while it is being asked.
func expectHungAgentAlone(t *testing.T, kvm *host.Host, lab *privatehost.Host, m *infrav1.LibvirtMachine) {
	t.Helper()
	pid := strings.TrimSpace(string(file(t, lab.Path("/run/libvirt/qemu/"+m.Status.Domain.Name+".pid"))))
	inside(t, lab, "kill -STOP "+pid)
	defer inside(t, lab, "kill -CONT "+pid)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	type answer struct {
		took time.Duration
		err  error
	}
	const asking = 3
	answers := make(chan answer, asking)
	for range asking {
		go func() {
			began := time.Now()
			_, err := kvm.ReadGuestFile(ctx, uuidOf(m), bootstrap.Sentinel, 1)
			answers <- answer{time.Since(began), err}
		}()
	}
	var slowest time.Duration
	for heard := 0; heard < asking; {
		began := time.Now()
		if _, err := kvm.StoragePool(ctx, infrav1.DefaultPool); err != nil {
			t.Error(err)
		}
		if _, err := kvm.DomainXML(ctx, uuidOf(m)); err != nil {
			t.Error(err)
		}
		slowest = max(slowest, time.Since(began))
		select {
		case a := <-answers:
			heard++
			t.Logf("An agent that hangs was given up after %s: %v", a.took.Round(100*time.Millisecond), a.err)
			if a.err == nil {
				t.Error("It answered")
			}
		case <-time.After(100 * time.Millisecond):
		}
	}
	t.Logf("Meanwhile the host's slowest answer took %s", slowest.Round(time.Millisecond))
	if slowest > 3*time.Second {
		t.Error("The agent held up the host")
	}
}

// TestIgnitionArrives boots a guest whose bootstrap data is an Ignition config, and reads it in there. Once it is removed
// the machine starts without it.
func TestIgnitionArrives(t *testing.T) {
	t.Parallel()
	const raw = "/sys/firmware/qemu_fw_cfg/by_name/opt/com.coreos/config/raw"
	s, lab, m := bootingGuest(t, bootstrap.Ignition, `{"ignition":{"version":"3.3.0"},"storage":{"files":[{"path":"/etc/provider","contents":{"source":"data:,%7B%7B%20ds.meta_data.instance_id%20%7D%7D"}},{"path":"/etc/secret","contents":{"source":"data:,`+canary+`"}}]}}`)
	kvm, uuid := s.kvm("kvm1"), uuidOf(m)
	if document := inside(t, lab, "virsh dumpxml "+m.Status.Domain.Name); strings.Contains(document, canary) {
		t.Errorf("The secret is in the definition:\n%s", document)
	}
	config := guestFile(t, kvm, uuid, raw, `"ignition"`)
	if err := bootstrap.CheckIgnition([]byte(config)); err != nil {
		t.Errorf("What arrived is %s: %v", config, err)
	}
	written := regexp.MustCompile(`data:[^"]+`).ReplaceAllStringFunc(config, func(source string) string {
		parsed, err := dataurl.DecodeString(source)
		must(t, err)
		return string(parsed.Data)
	})
	for _, want := range []string{uuid, canary, "/etc/hostname", "/etc/systemd/network/00-cluster.network", "MACAddress=" + network.MAC(uuid)} {
		if !strings.Contains(written, want) {
			t.Errorf("It lacks %q:\n%s", want, written)
		}
	}
	s.registerNode("guest-1")
	s.expectCondition(m, infrav1.MachineBootstrapDataRemovedCondition, metav1.ConditionTrue, infrav1.MachineBootstrapDataRemovedReason)
	expectNoCanary(t, s, lab, m)
	inside(t, lab, "virsh list --all") // the daemon answers
	restartGuest(t, s, lab, m)
	guestFile(t, kvm, uuid, "/etc/os-release", "Debian")
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if content, err := kvm.ReadGuestFile(ctx, uuid, raw, 1); !errors.Is(err, host.ErrNotFound) {
		t.Errorf("The config is still there: %q, %v", content, err)
	}
	s.expectReady(m)
	if _, err := os.Stat(lab.Path("/var/lib/libvirt/" + infrav1.DefaultSeedPool + "/" + domain.SeedVolumeName(uuid))); !os.IsNotExist(err) {
		t.Errorf("The file is still there: %v", err)
	}
}

// TestUnprivilegedHypervisorAndBootstrapData follows bootstrap data on a host whose QEMU isn't root, as a distribution has
// it: a hypervisor that can't read it doesn't start. Once it is removed, the machine starts without it. Such a libvirt asks
// QEMU anew for all it can each time that a domain is defined, for twenty seconds.
func TestUnprivilegedHypervisorAndBootstrapData(t *testing.T) {
	t.Parallel()
	lab := newLab(t, func(o *privatehost.Options) { o.QEMU = append(o.QEMU, `user="libvirt-qemu"`, `group="kvm"`) })
	s := newScene(t)
	s.readyHost("kvm1", lab.URI())
	s.readyCluster("green", "10.20.0.0/27")
	for format, data := range map[bootstrap.Format]string{
		bootstrap.CloudConfig: "#cloud-config\n# " + canary + "\n",
		bootstrap.Ignition:    `{"ignition":{"version":"3.0.0"},"storage":{"files":[{"path":"/etc/x","contents":{"source":"data:,` + canary + `"}}]}}`,
	} {
		name := "green-" + string(format)
		m := s.readyMachine("green", name, emulated, func(p *machineParts) {
			p.secret.Data["format"], p.secret.Data["value"] = []byte(format), []byte(data)
		})
		seed := "/var/lib/libvirt/" + infrav1.DefaultSeedPool + "/" + domain.SeedVolumeName(uuidOf(m))
		if found := holding(t, lab, canary); found != seed {
			t.Errorf("Before, the secret is in %q, and should be in %s", found, seed)
		}
		if found := inside(t, lab, "stat -c %U /proc/$(cat /run/libvirt/qemu/"+m.Status.Domain.Name+".pid); stat -c %a "+seed); found != "libvirt-qemu\n600\n" {
			t.Errorf("The hypervisor's user and the mode of the bootstrap data are %q", found)
		}
		s.registerNode(name)
		s.expectCondition(m, infrav1.MachineBootstrapDataRemovedCondition, metav1.ConditionTrue, infrav1.MachineBootstrapDataRemovedReason)
		expectNoCanary(t, s, lab, m)
		began := time.Now()
		inside(t, lab, "virsh destroy "+m.Status.Domain.Name)
		eventually(t, "a new start", func() error {
			dom, err := s.kvm("kvm1").Domain(uuidOf(m))
			if err != nil || dom.State != host.Running || dom.ChangedAt.Before(began) {
				return fmt.Errorf("it is %+v, %w", dom, errors.Join(err, errors.New("not that")))
			}
			return nil
		})
		s.expectReady(m)
	}
}

// holding lists the files of a host that have a text in them, less the disks that a guest writes.
func holding(t *testing.T, lab *privatehost.Host, text string) string {
	t.Helper()
	return strings.TrimSpace(inside(t, lab, "grep -rlaF -D skip --exclude='*-root.qcow2' -e '"+text+
		"' /etc/libvirt /var/lib/libvirt /var/log/libvirt /run/libvirt /var/cache/libvirt || test $? -le 2"))
}

func expectNoCanary(t *testing.T, s *scene, lab *privatehost.Host, m *infrav1.LibvirtMachine) {
	t.Helper()
	if found := holding(t, lab, canary); found != "" {
		t.Errorf("The secret is in %s", found)
	}
	for _, options := range []string{"", "--inactive", "--security-info"} {
		if document := inside(t, lab, "virsh dumpxml "+options+" "+m.Status.Domain.Name); strings.Contains(document, canary) || strings.Contains(document, domain.SeedVolumeName(uuidOf(m))) && options == "--inactive" {
			t.Errorf("The definition has traces of the bootstrap data:\n%s", document)
		}
	}
	s.refresh(m)
	var events corev1.EventList
	must(t, api.List(t.Context(), &events, client.InNamespace(s.namespace)))
	if text := fmt.Sprint(m, events); strings.Contains(text, canary) {
		t.Errorf("The secret is in the API: %s", text)
	}
	if line := leaked.Load(); line != nil {
		t.Errorf("The secret is in the log: %s", *line)
	}
}
