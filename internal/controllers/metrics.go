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
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/host"
)

// Metrics are what the manager tells Prometheus of hosts and machines. docs/reference/metrics.md describes each of them.
// Their labels are the keys of hosts and libvirt's procedures, never names of machines, so that their number is bounded.
type Metrics struct {
	registry prometheus.Registerer

	calls             *prometheus.CounterVec
	callDuration      *prometheus.HistogramVec
	transfersRunning  *prometheus.GaugeVec
	transfers         *prometheus.CounterVec
	transferBytes     *prometheus.CounterVec
	transferDurations *prometheus.HistogramVec
	transferProgress  *prometheus.GaugeVec
	imagesRemoved     *prometheus.CounterVec
}

// NewMetrics registers the metrics. The error is the registry's.
func NewMetrics(registry prometheus.Registerer) (*Metrics, error) {
	m := &Metrics{
		registry: registry,
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "capl_libvirt_calls_total",
			Help: "Calls to libvirt by host, procedure and result; a result is ok or the kind of the error.",
		}, []string{"host", "procedure", "result"}),
		callDuration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "capl_libvirt_call_duration_seconds",
			Help:    "How long calls to libvirt took, by host and procedure.",
			Buckets: []float64{.001, .003, .01, .03, .1, .3, 1, 3, 10},
		}, []string{"host", "procedure"}),
		transfersRunning: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "capl_image_transfers_running",
			Help: "Transfers of images to a host that are under way.",
		}, []string{"host"}),
		transfers: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "capl_image_transfers_total",
			Help: "Transfers of images to a host that have ended, by result: succeeded or failed.",
		}, []string{"host", "result"}),
		transferBytes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "capl_image_transfer_bytes_total",
			Help: "Bytes of images that were moved to a host.",
		}, []string{"host"}),
		transferDurations: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "capl_image_transfer_duration_seconds",
			Help:    "How long transfers of images to a host took that have ended.",
			Buckets: prometheus.ExponentialBuckets(1, 2, 12),
		}, []string{"host"}),
		transferProgress: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "capl_image_transfer_progress_ratio",
			Help: "How much of an image has been moved to a host, from 0 to 1, while it is being moved; by the first 12 digits of its digest.",
		}, []string{"host", "image"}),
		imagesRemoved: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "capl_images_removed_total",
			Help: "Images that were removed from a host because nothing had used them for long.",
		}, []string{"host"}),
	}
	for _, collector := range []prometheus.Collector{
		m.calls, m.callDuration, m.transfersRunning, m.transfers, m.transferBytes, m.transferDurations,
		m.transferProgress, m.imagesRemoved,
	} {
		if err := registry.Register(collector); err != nil {
			return nil, fmt.Errorf("registering metrics: %w", err)
		}
	}
	return m, nil
}

// ObserveCall counts a call to a host. It is a host.Observer.
func (m *Metrics) ObserveCall(key, procedure string, took time.Duration, err error) {
	m.calls.WithLabelValues(key, procedure, callResult(err)).Inc()
	m.callDuration.WithLabelValues(key, procedure).Observe(took.Seconds())
}

// callResult is a word for how a call ended.
func callResult(err error) string {
	if err == nil {
		return "ok"
	}
	for _, kind := range []struct {
		err  error
		word string
	}{
		{host.ErrNotFound, "not_found"},
		{host.ErrExists, "exists"},
		{host.ErrAuth, "access_denied"},
		{host.ErrTimeout, "timeout"},
		{host.ErrUnreachable, "unreachable"},
		{host.ErrNoSpace, "no_space"},
		{host.ErrUnsupported, "unsupported"},
		{host.ErrInvalid, "invalid"},
		{host.ErrBusy, "busy"},
	} {
		if errors.Is(err, kind.err) {
			return kind.word
		}
	}
	return "error"
}

// transfer is one movement of an image to a host. It keeps the series that it counts in, so that one that ends when its
// host is gone, and forgotten, brings none of them back.
type transfer struct {
	running, ratio    prometheus.Gauge
	bytes             prometheus.Counter
	succeeded, failed prometheus.Counter
	duration          prometheus.Observer
	// forgetRatio ends the series of ratio.
	forgetRatio func()

	start time.Time
	done  int64
}

// imageLabelLength is how much of a digest tells images apart.
const imageLabelLength = 12

// startTransfer begins to count a transfer. Its end must be told.
func (m *Metrics) startTransfer(key, digest string) *transfer {
	image := digest[:min(len(digest), imageLabelLength)]
	t := &transfer{
		running:     m.transfersRunning.WithLabelValues(key),
		ratio:       m.transferProgress.WithLabelValues(key, image),
		bytes:       m.transferBytes.WithLabelValues(key),
		succeeded:   m.transfers.WithLabelValues(key, "succeeded"),
		failed:      m.transfers.WithLabelValues(key, "failed"),
		duration:    m.transferDurations.WithLabelValues(key),
		forgetRatio: func() { m.transferProgress.DeleteLabelValues(key, image) },
		start:       time.Now(),
	}
	t.running.Inc()
	return t
}

// progress tells how many bytes of all were moved so far.
func (t *transfer) progress(done, total int64) {
	if total > 0 {
		t.ratio.Set(float64(done) / float64(total))
	}
	if done > t.done {
		t.bytes.Add(float64(done - t.done))
		t.done = done
	}
}

// end tells how the transfer ended. An image that was on the host already is no transfer.
func (t *transfer) end(err error) {
	t.running.Dec()
	t.forgetRatio()
	switch {
	case err != nil:
		t.failed.Inc()
	case t.done == 0:
		return
	default:
		t.succeeded.Inc()
	}
	t.duration.Observe(time.Since(t.start).Seconds())
}

// forget drops what was counted for a host that is gone.
func (m *Metrics) forget(key string) {
	labels := prometheus.Labels{"host": key}
	m.calls.DeletePartialMatch(labels)
	m.callDuration.DeletePartialMatch(labels)
	m.transfersRunning.DeletePartialMatch(labels)
	m.transfers.DeletePartialMatch(labels)
	m.transferBytes.DeletePartialMatch(labels)
	m.transferDurations.DeletePartialMatch(labels)
	m.transferProgress.DeletePartialMatch(labels)
	m.imagesRemoved.DeletePartialMatch(labels)
}
