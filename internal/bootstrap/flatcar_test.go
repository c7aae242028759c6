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

package bootstrap

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drone/envsubst/v2"
	ignition2 "github.com/flatcar/ignition/config/v2_3"
	bootstrapv1 "sigs.k8s.io/cluster-api/api/bootstrap/kubeadm/v1beta2"
	"sigs.k8s.io/cluster-api/bootstrap/kubeadm/pkg/cloudinit"
	"sigs.k8s.io/cluster-api/bootstrap/kubeadm/pkg/ignition"
	"sigs.k8s.io/yaml"
)

// TestFlatcarTemplate has Cluster API write the bootstrap data of a machine of each kind of the flavor for Flatcar, and a
// guest's config made of it.
func TestFlatcarTemplate(t *testing.T) {
	for kind, spec := range flatcarSpecs(t) {
		t.Run(kind, func(t *testing.T) {
			if spec.Format != bootstrapv1.Ignition {
				t.Errorf("the format is %q", spec.Format)
			}
			joining, err := yaml.Marshal(spec.JoinConfiguration)
			if err != nil {
				t.Fatal(err)
			}
			userData, warnings, err := ignition.NewNode(&ignition.NodeInput{
				NodeInput: &cloudinit.NodeInput{
					BaseUserData: cloudinit.BaseUserData{
						AdditionalFiles: spec.Files, PreKubeadmCommands: spec.PreKubeadmCommands, PostKubeadmCommands: spec.PostKubeadmCommands,
					},
					JoinConfiguration: string(joining),
				},
				Ignition: &spec.Ignition,
			})
			if err != nil || warnings != "" {
				t.Fatalf("%v: %s", err, warnings)
			}
			rendered, err := RenderIgnition(guestSeed(userData), nil)
			if err != nil {
				t.Fatal(err)
			}
			config, report, err := ignition2.Parse(rendered)
			if err != nil || report.IsFatal() {
				t.Fatalf("Ignition refuses it: %v: %s", err, report.String())
			}
			kubeadm := contentOf(t, config, "/etc/kubeadm.yml")
			for _, want := range []string{"libvirt:///6f1c1e0a-7a53-4d0b-9a0e-0f6a3a1d2c3b", "10.100.0.10", "node-1"} {
				if !strings.Contains(kubeadm, want) {
					t.Errorf("kubeadm's configuration lacks %q:\n%s", want, kubeadm)
				}
			}
			var dropIns, masked []string
			for _, unit := range config.Systemd.Units {
				for _, dropIn := range unit.Dropins {
					dropIns = append(dropIns, unit.Name+" "+dropIn.Name)
				}
				if unit.Mask {
					masked = append(masked, unit.Name)
				}
			}
			if got := strings.Join(dropIns, ", "); got != "kubeadm.service 10-network.conf" {
				t.Errorf("the drop-ins are %q", got)
			}
			if got := strings.Join(masked, ", "); got != "update-engine.service, locksmithd.service" {
				t.Errorf("masked are %q", got)
			}
			if strings.Contains(string(rendered), "ds.meta_data") {
				t.Errorf("a placeholder was left:\n%s", rendered)
			}
		})
	}
}

// flatcarSpecs are the KubeadmConfigSpecs of the flavor, by the kind that has them.
func flatcarSpecs(t *testing.T) map[string]bootstrapv1.KubeadmConfigSpec {
	t.Helper()
	template, err := os.ReadFile(filepath.Join("..", "..", "templates", "cluster-flatcar.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	filled, err := envsubst.Eval(string(template), func(name string) string {
		return map[string]string{"CONTROL_PLANE_MACHINE_COUNT": "1", "WORKER_MACHINE_COUNT": "1"}[name]
	})
	if err != nil {
		t.Fatal(err)
	}
	specs := map[string]bootstrapv1.KubeadmConfigSpec{}
	for document := range strings.SplitSeq(filled, "\n---\n") {
		var object struct {
			Kind string `json:"kind"`
			Spec struct {
				KubeadmConfigSpec bootstrapv1.KubeadmConfigSpec `json:"kubeadmConfigSpec"`
				Template          struct {
					Spec bootstrapv1.KubeadmConfigSpec `json:"spec"`
				} `json:"template"`
			} `json:"spec"`
		}
		if err := yaml.Unmarshal([]byte(document), &object); err != nil {
			t.Fatalf("%v:\n%s", err, document)
		}
		switch object.Kind {
		case "KubeadmControlPlane":
			specs[object.Kind] = object.Spec.KubeadmConfigSpec
		case "KubeadmConfigTemplate":
			specs[object.Kind] = object.Spec.Template.Spec
		}
	}
	if len(specs) != 2 {
		t.Fatalf("the template has the kinds %v", specs)
	}
	return specs
}
