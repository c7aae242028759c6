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
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"libvirt.org/go/libvirtxml"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/cluster-api/util/conditions"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/bootstrap"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/domain"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/host"
)

// TestBootstrapDataIsRemoved has the Node register, of a machine with a seed image and of one with an Ignition config.
func TestBootstrapDataIsRemoved(t *testing.T) {
	t.Parallel()
	for _, format := range []bootstrap.Format{bootstrap.CloudConfig, bootstrap.Ignition} {
		t.Run(string(format), func(t *testing.T) {
			t.Parallel()
			s := newScene(t)
			s.readyHost("kvm1", testDriver(t))
			green := s.readyCluster("green", "10.20.0.0/27")
			m := s.readyMachine("green", "green-a", func(p *machineParts) {
				p.secret.Data["format"] = []byte(format)
				if format == bootstrap.Ignition {
					p.secret.Data["value"] = []byte(`{"ignition":{"version":"3.0.0"}}`)
				}
			})
			kvm, uuid := s.kvm("kvm1"), uuidOf(m)
			seedOf := func() domain.Seed {
				document, err := kvm.DomainXML(t.Context(), uuid)
				must(t, err)
				seed, err := domain.SeedOf(document, uuid)
				must(t, err)
				return seed
			}
			if seed := seedOf(); (seed.Drive == nil) != (format == bootstrap.Ignition) || seed.Firmware != (format == bootstrap.Ignition) {
				t.Errorf("The domain gets its bootstrap data by %+v", seed)
			}
			s.expectAllThere(green, m)
			s.expectCondition(m, infrav1.MachineBootstrapDataRemovedCondition, metav1.ConditionFalse, infrav1.MachineWaitingForNodeReason)
			s.expectCondition(m, infrav1.MachineBootstrapSucceededCondition, metav1.ConditionUnknown, infrav1.MachineGuestAgentNotConnectedReason)

			s.registerNode("green-a")
			s.expectCondition(m, infrav1.MachineBootstrapDataRemovedCondition, metav1.ConditionTrue, infrav1.MachineBootstrapDataRemovedReason)
			s.expectCondition(m, infrav1.MachineBootstrapSucceededCondition, metav1.ConditionTrue, infrav1.MachineNodeRegisteredReason)
			if seed := seedOf(); seed != (domain.Seed{}) {
				t.Errorf("The domain still gets its bootstrap data by %+v", seed)
			}
			if _, err := kvm.Volume(t.Context(), infrav1.DefaultSeedPool, domain.SeedVolumeName(uuid)); !errors.Is(err, host.ErrNotFound) {
				t.Errorf("The volume is still there: %v", err)
			}
			document, err := kvm.DomainXML(t.Context(), uuid)
			must(t, err)
			if disks := parse[libvirtxml.Domain](t, document).Devices.Disks; len(disks) == 0 || disks[0].Source == nil {
				t.Errorf("The root disk suffered:\n%s", document)
			}
			s.expectReady(m)

			// A move to another management cluster loses the status: it is done once more, and there is nothing to do.
			changeStatus(s, m, func(m *infrav1.LibvirtMachine) { m.Status.Conditions = nil })
			touch(s, m)
			s.expectCondition(m, infrav1.MachineBootstrapDataRemovedCondition, metav1.ConditionTrue, infrav1.MachineBootstrapDataRemovedReason)
			s.delete(m)
			s.expectGone(m)
			s.expectNoTraces(green, "kvm1", uuid)
		})
	}
}

// TestHowToReplaceFailedMachines has the API server check the MachineHealthCheck of the how-to.
func TestHowToReplaceFailedMachines(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "how-to", "failed-bootstrap.md"))
	must(t, err)
	_, rest, _ := strings.Cut(string(page), "```yaml\n")
	document, _, _ := strings.Cut(rest, "```")
	var check clusterv1.MachineHealthCheck
	must(t, yaml.UnmarshalStrict([]byte(document), &check))
	check.Namespace = newScene(t).namespace
	must(t, api.Create(t.Context(), &check, client.DryRunAll))
	if len(check.Spec.Checks.UnhealthyMachineConditions) != 1 {
		t.Errorf("It checks %+v", check.Spec.Checks)
	}
}

func TestConclude(t *testing.T) {
	unknown := func(reason string) error { return &waiting{reason: reason, unknown: true} }
	failure := bootstrapFailed("it failed")
	for name, tt := range map[string]struct {
		found                       error
		failed, registered, longAgo bool
		status                      metav1.ConditionStatus
		reason                      string
	}{
		"the guest says so":                     {found: nil, status: metav1.ConditionTrue, reason: "ok"},
		"mended by hand":                        {found: nil, failed: true, status: metav1.ConditionTrue, reason: "ok"},
		"under way":                             {found: running(), status: metav1.ConditionUnknown, reason: infrav1.MachineBootstrapRunningReason},
		"no agent":                              {found: unknown(infrav1.MachineGuestAgentNotConnectedReason), status: metav1.ConditionUnknown, reason: infrav1.MachineGuestAgentNotConnectedReason},
		"no agent, but a Node":                  {found: unknown(infrav1.MachineGuestAgentNotConnectedReason), registered: true, status: metav1.ConditionTrue, reason: infrav1.MachineNodeRegisteredReason},
		"refuses, but a Node":                   {found: unknown(infrav1.MachineGuestAgentRefusesReason), registered: true, status: metav1.ConditionTrue, reason: infrav1.MachineNodeRegisteredReason},
		"under way with a Node":                 {found: running(), registered: true, status: metav1.ConditionUnknown, reason: infrav1.MachineBootstrapRunningReason},
		"under way long after the Node":         {found: running(), registered: true, longAgo: true, status: metav1.ConditionTrue, reason: infrav1.MachineNodeRegisteredReason},
		"started anew":                          {found: unknown(infrav1.MachineGuestRestartedReason), status: metav1.ConditionUnknown, reason: infrav1.MachineGuestRestartedReason},
		"started anew, but a Node":              {found: unknown(infrav1.MachineGuestRestartedReason), registered: true, status: metav1.ConditionTrue, reason: infrav1.MachineNodeRegisteredReason},
		"failed":                                {found: failure, status: metav1.ConditionFalse, reason: infrav1.MachineBootstrapFailedReason},
		"failed with a Node":                    {found: failure, registered: true, status: metav1.ConditionFalse, reason: infrav1.MachineBootstrapFailedReason},
		"failed once, the agent is away":        {found: unknown(infrav1.MachineGuestAgentNotConnectedReason), failed: true, registered: true, reason: "kept"},
		"failed once, then started anew":        {found: running(), failed: true, reason: "kept"},
		"failed once, the host is out of reach": {found: fmt.Errorf("reading: %w", host.ErrUnreachable), failed: true, reason: "kept"},
		"the host is out of reach":              {found: fmt.Errorf("reading: %w", host.ErrUnreachable), status: metav1.ConditionUnknown, reason: infrav1.HostUnreachableReason},
	} {
		t.Run(name, func(t *testing.T) {
			err := conclude(tt.found, tt.failed, tt.registered, tt.longAgo)
			var wait *waiting
			if errors.As(err, &wait) && wait.keep {
				if tt.reason != "kept" {
					t.Error("The condition stays as it is")
				}
				return
			}
			condition := phaseCondition("X", "ok", err)
			if condition.Status != tt.status || condition.Reason != tt.reason {
				t.Errorf("got %s=%s, want %s=%s", condition.Status, condition.Reason, tt.status, tt.reason)
			}
		})
	}
}

// TestOnlyFailureCountsForReady sums up a machine whose bootstrap is unknown, and one whose bootstrap failed.
func TestOnlyFailureCountsForReady(t *testing.T) {
	for err, want := range map[error]metav1.ConditionStatus{
		running():                    metav1.ConditionTrue,
		bootstrapFailed("it failed"): metav1.ConditionFalse,
	} {
		m := &infrav1.LibvirtMachine{}
		for _, conditionType := range []string{
			infrav1.MachinePlacedCondition, infrav1.MachineImageReadyCondition, infrav1.MachineBootstrapDataReadyCondition, infrav1.MachineDomainReadyCondition,
		} {
			conditions.Set(m, phaseCondition(conditionType, "ok", nil))
		}
		conditions.Set(m, phaseCondition(infrav1.MachineBootstrapSucceededCondition, "ok", err))
		reportMachine(&machineScope{libvirtMachine: m})
		ready := conditions.Get(m, infrav1.ReadyCondition)
		if ready.Status != want || (want == metav1.ConditionFalse && !strings.Contains(ready.Message, "it failed")) {
			t.Errorf("%v: Ready is %s %s: %s", err, ready.Status, ready.Reason, ready.Message)
		}
	}
}

// registerNode says that the Node of a machine has registered, as Cluster API would.
func (s *scene) registerNode(name string) {
	s.t.Helper()
	changeStatus(s, s.machine(name), func(m *clusterv1.Machine) { m.Status.NodeRef = clusterv1.MachineNodeReference{Name: name} })
}
