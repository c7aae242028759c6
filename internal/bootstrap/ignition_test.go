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
	"encoding/json"
	"slices"
	"strings"
	"testing"

	ignition3 "github.com/coreos/ignition/v2/config"
	ignition2 "github.com/flatcar/ignition/config/v2_3"
	"github.com/flatcar/ignition/config/v2_3/types"
	"github.com/vincent-petithory/dataurl"
	bootstrapv1 "sigs.k8s.io/cluster-api/api/bootstrap/kubeadm/v1beta2"
	"sigs.k8s.io/cluster-api/bootstrap/kubeadm/pkg/cloudinit"
	"sigs.k8s.io/cluster-api/bootstrap/kubeadm/pkg/ignition"
)

// kubeadmIgnition is what Cluster API's kubeadm bootstrap provider writes for a worker.
func kubeadmIgnition(t *testing.T, joinConfiguration string, commands ...string) []byte {
	t.Helper()
	data, warnings, err := ignition.NewNode(&ignition.NodeInput{
		NodeInput: &cloudinit.NodeInput{
			BaseUserData: cloudinit.BaseUserData{
				PreKubeadmCommands: commands,
				AdditionalFiles:    []bootstrapv1.File{{Path: "/etc/motd", Permissions: "0644", Content: "I am {{ ds.meta_data.local_hostname }}, 100% {{ other }}\n"}},
			},
			JoinConfiguration: joinConfiguration,
		},
		Ignition: &bootstrapv1.IgnitionSpec{},
	})
	if err != nil {
		t.Fatalf("%v: %s", err, warnings)
	}
	return data
}

func guestSeed(userData []byte) Seed {
	return Seed{UserData: userData, InstanceID: "6f1c1e0a-7a53-4d0b-9a0e-0f6a3a1d2c3b", LocalHostname: "node-1", LocalIPv4: "10.100.0.10"}
}

func TestRenderIgnitionOfKubeadm(t *testing.T) {
	userData := kubeadmIgnition(t, "kind: JoinConfiguration\nprovider-id: libvirt:///{{ ds.meta_data.instance_id }}\n", "echo {{ ds.meta_data.local_ipv4 }}")
	rendered, err := RenderIgnition(guestSeed(userData), []File{{"/etc/systemd/network/00-cluster.network", 0o644, []byte("[Match]\nMACAddress=52:54:00:00:00:01\n")}})
	if err != nil {
		t.Fatal(err)
	}
	config, report, err := ignition2.Parse(rendered)
	if err != nil || report.IsFatal() {
		t.Fatalf("Ignition refuses it: %v: %s", err, report.String())
	}
	for path, want := range map[string]string{
		"/etc/kubeadm.yml": "provider-id: libvirt:///6f1c1e0a-7a53-4d0b-9a0e-0f6a3a1d2c3b\n",
		"/etc/kubeadm.sh":  "echo 10.100.0.10\n",
		"/etc/motd":        "I am node-1, 100% {{ other }}\n",
		"/etc/hostname":    "node-1\n",
		"/etc/systemd/network/00-cluster.network": "MACAddress=52:54:00:00:00:01\n",
		reportPath: FailureLog,
	} {
		if got := contentOf(t, config, path); !strings.Contains(got, want) {
			t.Errorf("%s has no %q:\n%s", path, want, got)
		}
	}
	again, err := RenderIgnition(guestSeed(userData), nil)
	if err != nil {
		t.Fatal(err)
	}
	if third, _ := RenderIgnition(guestSeed(userData), nil); !slices.Equal(again, third) {
		t.Error("two renderings differ")
	}
}

func contentOf(t *testing.T, config types.Config, path string) string {
	t.Helper()
	for _, file := range config.Storage.Files {
		if file.Path == path {
			if file.Filesystem != "root" {
				t.Errorf("%s is on the file system %q", path, file.Filesystem)
			}
			decoded, err := dataurl.DecodeString(file.Contents.Source)
			if err != nil {
				t.Fatal(err)
			}
			return string(decoded.Data)
		}
	}
	t.Errorf("there is no %s", path)
	return ""
}

func TestRenderIgnitionKeepsWhatTheUserWrote(t *testing.T) {
	userData := `{"ignition":{"version":"3.3.0"},"storage":{"files":[
		{"path":"/etc/hostname","contents":{"source":"data:,mine"}},
		{"path":"/etc/checked","contents":{"source":"data:,%7B%7B%20ds.meta_data.instance_id%20%7D%7D","verification":{"hash":"sha256-` + strings.Repeat("a", 64) + `"}}},
		{"path":"/etc/remote","contents":{"source":"https://example.org/x"}}]},
		"systemd":{"units":[{"name":"a.service","enabled":true,"contents":"[Service]\nExecStart=/bin/echo {{ ds.meta_data.instance_id }}\n"}]},
		"passwd":{"users":[{"name":"core","uid":1000}]}}`
	rendered, err := RenderIgnition(guestSeed([]byte(userData)), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, report, err := ignition3.Parse(rendered); err != nil || report.IsFatal() {
		t.Fatalf("Ignition refuses it: %v: %s", err, report.String())
	}
	for _, want := range []string{
		`"version":"3.3.0"`, `"data:,mine"`, "%7B%7B%20ds.meta_data.instance_id%20%7D%7D", "https://example.org/x",
		"/bin/echo 6f1c1e0a-7a53-4d0b-9a0e-0f6a3a1d2c3b", `"uid":1000`, reportPath,
	} {
		if !strings.Contains(string(rendered), want) {
			t.Errorf("it has no %s:\n%s", want, rendered)
		}
	}
	if strings.Contains(string(rendered), "filesystem") || strings.Count(string(rendered), `"/etc/hostname"`) != 1 {
		t.Errorf("it is\n%s", rendered)
	}
}

func TestRenderIgnitionWithoutStorage(t *testing.T) {
	rendered, err := RenderIgnition(guestSeed([]byte(`{"ignition":{"version":"3.0.0"}}`)), nil)
	if err != nil {
		t.Fatal(err)
	}
	var parsed struct {
		Storage struct {
			Files []struct{ Path string }
		}
	}
	if err := json.Unmarshal(rendered, &parsed); err != nil || len(parsed.Storage.Files) != 2 {
		t.Errorf("got %s, %v", rendered, err)
	}
}

func TestCheckIgnitionRefuses(t *testing.T) {
	for name, tt := range map[string]struct{ userData, want string }{
		"cloud-config":      {"#cloud-config\nruncmd: []\n", "spec.format"},
		"no version":        {`{"ignition":{}}`, "versions 2 and 3"},
		"a later version":   {`{"ignition":{"version":"4.0.0"}}`, "versions 2 and 3"},
		"a relative path":   {`{"ignition":{"version":"3.0.0"},"storage":{"files":[{"path":"etc/x"}]}}`, "path not absolute"},
		"files that aren't": {`{"ignition":{"version":"2.3.0"},"storage":{"files":{"path":"/etc/x"}}}`, "valid Ignition"},
		"a list":            {`[]`, "isn't an Ignition config"},
		"no object":         {`{"ignition":{"version":"3.0.0"},"storage":[]}`, "valid Ignition"},
	} {
		t.Run(name, func(t *testing.T) {
			if err := CheckIgnition([]byte(tt.userData)); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
	if err := CheckIgnition(kubeadmIgnition(t, "kind: JoinConfiguration\n")); err != nil {
		t.Error(err)
	}
}
