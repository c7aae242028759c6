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
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
)

// series are the values of the shared manager's metrics as Prometheus names them, such as
// capl_machines{host="ns/kvm1",state="ready"}.
func series(t *testing.T) map[string]float64 {
	t.Helper()
	families, err := registry.Gather()
	must(t, err)
	found := map[string]float64{}
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			var labels []string
			for _, label := range metric.GetLabel() {
				labels = append(labels, fmt.Sprintf("%s=%q", label.GetName(), label.GetValue()))
			}
			suffix := "{" + strings.Join(labels, ",") + "}"
			if histogram := metric.GetHistogram(); histogram != nil {
				found[family.GetName()+"_bucket"+suffix] = float64(histogram.GetSampleCount())
				found[family.GetName()+"_count"+suffix] = float64(histogram.GetSampleCount())
				found[family.GetName()+"_sum"+suffix] = histogram.GetSampleSum()
				continue
			}
			found[family.GetName()+suffix] = metric.GetGauge().GetValue() + metric.GetCounter().GetValue()
		}
	}
	return found
}

func expectSeries(t *testing.T, name string, check func(value float64) bool) {
	t.Helper()
	eventually(t, name, func() error {
		value, ok := series(t)[name]
		if !ok || !check(value) {
			return fmt.Errorf("it is %v, %v", value, ok)
		}
		return nil
	})
}

func is(want float64) func(float64) bool { return func(got float64) bool { return got == want } }

var metricName = regexp.MustCompile(`capl_[a-z_]+`)

// TestMetrics has everything happen that is measured, and compares what is exported with the reference and the dashboard.
func TestMetrics(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	kvm1 := s.readyHost("kvm1", testDriver(t))
	away := s.createHost("away", "qemu+unix:///system?socket=/nonexistent/libvirt-sock")
	green := s.readyCluster("green", "10.20.0.0/27")
	ready := s.readyMachine("green", "ready-one")
	// One waits for its bootstrap data, one doesn't fit, one has an image that isn't there.
	s.createMachine("green", "promised-one", func(p *machineParts) { p.secret = nil })
	s.createMachine("green", "large-one", func(p *machineParts) { p.libvirtMachine.Spec.Memory = resource.MustParse("900Gi") })
	missing := served(t, nil, http.NotFound)
	imageless := s.createMachine("green", "imageless-one", func(p *machineParts) { p.libvirtMachine.Spec.Image = missing })
	s.expectCondition(imageless, infrav1.MachineImageReadyCondition, metav1.ConditionFalse, infrav1.MachineImageNotFoundReason)

	// One waits for its image, which comes slowly.
	content, goOn := qcow2(t), make(chan struct{})
	slow := served(t, content, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(len(content)))
		_, _ = w.Write(content[:len(content)/2])
		_ = http.NewResponseController(w).Flush()
		select {
		case <-goOn:
		case <-r.Context().Done():
		}
	})
	s.createMachine("green", "slow-one", func(p *machineParts) { p.libvirtMachine.Spec.Image = slow })

	key := s.namespace + "/kvm1"
	expectSeries(t, fmt.Sprintf("capl_image_transfer_progress_ratio{host=%q,image=%q}", key, strings.TrimPrefix(slow.Checksum, "sha256:")[:12]), is(0.5))
	expectSeries(t, fmt.Sprintf("capl_images_removed_total{host=%q}", key), is(0))
	expectSeries(t, fmt.Sprintf("capl_host_connected{host=%q}", key), is(1))
	expectSeries(t, fmt.Sprintf("capl_host_connected{host=%q}", s.namespace+"/away"), is(0))
	expectSeries(t, fmt.Sprintf("capl_host_ready{host=%q}", key), is(1))
	expectSeries(t, fmt.Sprintf("capl_machines{host=%q,state=%q}", key, stateReady), is(1))
	expectSeries(t, fmt.Sprintf("capl_machines{host=%q,state=%q}", key, stateProvisioning), is(3))
	expectSeries(t, fmt.Sprintf(`capl_machines{host="",state=%q}`, stateUnplaced), func(got float64) bool { return got >= 1 })
	expectSeries(t, fmt.Sprintf(`capl_host_capacity{host=%q,resource="memory",unit="byte"}`, key), is(32<<30))
	expectSeries(t, fmt.Sprintf(`capl_host_capacity{host=%q,resource="cpu",unit="core"}`, key), is(8))
	expectSeries(t, fmt.Sprintf(`capl_host_allocated{host=%q,resource="memory",unit="byte"}`, key), is(4<<30))
	expectSeries(t, fmt.Sprintf(`capl_host_promised{host=%q,resource="memory",unit="byte"}`, key), is(3<<30))
	expectSeries(t, fmt.Sprintf(`capl_host_promised{host=%q,resource="cpu",unit="core"}`, key), is(6))
	expectSeries(t, fmt.Sprintf(`capl_host_orphans{host=%q,kind="domain"}`, key), is(0))
	expectSeries(t, fmt.Sprintf(`capl_libvirt_calls_total{host=%q,procedure="domainDefineXML",result="ok"}`, key), is(1))
	expectSeries(t, fmt.Sprintf(`capl_libvirt_call_duration_seconds_count{host=%q,procedure="domainDefineXML"}`, key), is(1))
	expectSeries(t, fmt.Sprintf(`capl_image_transfers_total{host=%q,result="failed"}`, key), func(got float64) bool { return got >= 1 })

	exported, families := map[string]bool{}, map[string]bool{}
	for name := range series(t) {
		for _, machine := range []string{"ready-one", "promised-one", "large-one", "imageless-one", "slow-one", uuidOf(ready)} {
			if strings.Contains(name, machine) {
				t.Errorf("%s names a machine: there would be no end to such labels", name)
			}
		}
		name, _, _ = strings.Cut(name, "{")
		exported[name] = true
		families[regexp.MustCompile(`_(bucket|sum|count)$`).ReplaceAllString(name, "")] = true
	}
	documented := map[string]bool{}
	for _, name := range metricName.FindAllString(string(file(t, "../../docs/reference/metrics.md")), -1) {
		documented[strings.TrimSuffix(name, "_bucket")] = true
	}
	if !maps.Equal(families, documented) {
		t.Errorf("The process exports\n\t%v\nand docs/reference/metrics.md has\n\t%v", slices.Sorted(maps.Keys(families)), slices.Sorted(maps.Keys(documented)))
	}
	expectDashboard(t, exported)

	// What is gone isn't told of for ever.
	close(goOn)
	expectSeries(t, fmt.Sprintf("capl_image_transfers_running{host=%q}", key), is(0))
	for _, name := range []string{"ready-one", "promised-one", "large-one", "imageless-one", "slow-one"} {
		m := &infrav1.LibvirtMachine{ObjectMeta: s.meta(name, "green")}
		s.delete(m)
		s.expectGone(m)
	}
	for _, object := range []conditionsObject{away, green} {
		s.delete(object)
		s.expectGone(object)
	}
	s.delete(kvm1)
	s.expectGone(kvm1)
	eventually(t, "the host isn't told of any more", func() error {
		for name := range series(t) {
			if strings.Contains(name, fmt.Sprintf("host=%q", key)) {
				return fmt.Errorf("there is still %s", name)
			}
		}
		return nil
	})
}

// expectDashboard checks that every panel of the dashboard shows metrics that are exported.
func expectDashboard(t *testing.T, exported map[string]bool) {
	t.Helper()
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	content, err := os.ReadFile("../../config/grafana/dashboard.json")
	must(t, err)
	must(t, json.Unmarshal(content, &dashboard))
	if len(dashboard.Panels) < 8 {
		t.Errorf("The dashboard has %d panels", len(dashboard.Panels))
	}
	for _, panel := range dashboard.Panels {
		if len(panel.Targets) == 0 {
			t.Errorf("Panel %q shows nothing", panel.Title)
		}
		for _, target := range panel.Targets {
			names := metricName.FindAllString(target.Expr, -1)
			if len(names) == 0 {
				t.Errorf("Panel %q has an expression without our metrics: %s", panel.Title, target.Expr)
			}
			for _, name := range names {
				if !exported[name] {
					t.Errorf("Panel %q shows %s, which nothing exports", panel.Title, name)
				}
			}
		}
	}
}

// TestTransferCountsBytes has the bytes of a transfer, and none of an image that was there.
func TestTransferCountsBytes(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	lab := newLab(t)
	s.readyHost("kvm1", lab.URI())
	s.readyCluster("green", "10.20.0.0/27")
	content := qcow2(t)
	image := served(t, content, whole(content))
	m := s.createMachine("green", "green-a", emulated, func(p *machineParts) { p.libvirtMachine.Spec.Image = image })
	s.expectCondition(m, infrav1.MachineImageReadyCondition, metav1.ConditionTrue, infrav1.MachineImageReadyReason)
	key := s.namespace + "/kvm1"
	expectSeries(t, fmt.Sprintf(`capl_image_transfers_total{host=%q,result="succeeded"}`, key), is(1))
	expectSeries(t, fmt.Sprintf(`capl_image_transfer_bytes_total{host=%q}`, key), is(float64(len(content))))
	expectSeries(t, fmt.Sprintf(`capl_image_transfer_duration_seconds_count{host=%q}`, key), is(1))
	expectSeries(t, fmt.Sprintf(`capl_image_transfers_running{host=%q}`, key), is(0))
}

// TestTransferOutlivesItsHost has a transfer end when its host was removed: it brings no series back.
func TestTransferOutlivesItsHost(t *testing.T) {
	t.Parallel()
	own := prometheus.NewRegistry()
	m, err := NewMetrics(own)
	must(t, err)
	for _, end := range []error{nil, errors.New("the host is gone")} {
		moving := m.startTransfer("home/kvm1", digest(1))
		moving.progress(1, 2)
		m.forget("home/kvm1")
		moving.progress(2, 2)
		moving.end(end)
	}
	families, err := own.Gather()
	must(t, err)
	for _, family := range families {
		t.Errorf("there is %s: %v", family.GetName(), family.GetMetric())
	}
}
