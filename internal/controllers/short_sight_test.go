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
	"slices"
	"sync/atomic"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/cluster-api/util/conditions"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/host"
)

// shortSight is what goes wrong between a manager and its API server.
type shortSight struct {
	// noSecrets fails every reading of a Secret.
	noSecrets atomic.Bool
	// noMachines hides the LibvirtMachines, as a cache does that is behind.
	noMachines atomic.Bool
}

// newClient is a client.NewClientFunc.
func (f *shortSight) newClient(config *rest.Config, options client.Options) (client.Client, error) {
	c, err := client.NewWithWatch(config, options)
	if err != nil {
		return nil, err
	}
	return interceptor.NewClient(c, interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, object client.Object, options ...client.GetOption) error {
			if _, ok := object.(*corev1.Secret); ok && f.noSecrets.Load() {
				return apierrors.NewInternalError(errors.New("etcd is away"))
			}
			return c.Get(ctx, key, object, options...)
		},
		List: func(ctx context.Context, c client.WithWatch, list client.ObjectList, options ...client.ListOption) error {
			if err := c.List(ctx, list, options...); err != nil {
				return err
			}
			if machines, ok := list.(*infrav1.LibvirtMachineList); ok && f.noMachines.Load() {
				machines.Items = nil
			}
			return nil
		},
	}), nil
}

// startShortSighted runs a manager of the scene's own for hosts of the test driver.
func (s *scene) startShortSighted(f *shortSight) (end func()) {
	s.t.Helper()
	return s.startOwn(f.newClient, host.WithUpload(uploaded.keep))
}

// newOwnScene makes a namespace that is left to managers of its own.
func newOwnScene(t *testing.T) *scene {
	t.Helper()
	s := newSceneOf(t, "", nil)
	s.watchFilter = s.namespace
	return s
}

// TestManagerWithoutTheSecretOfAHost can't read the Secret for a while, which says nothing of the host, and starts again
// when it is gone, which leaves nothing known of the machines.
func TestManagerWithoutTheSecretOfAHost(t *testing.T) {
	t.Parallel()
	s, sight := newOwnScene(t), &shortSight{}
	end := s.startShortSighted(sight)
	secret := &corev1.Secret{ObjectMeta: s.meta("kvm1-login", ""), Data: map[string][]byte{"username": []byte("a"), "password": []byte("b")}}
	s.create(secret)
	kvm1 := s.readyHost("kvm1", testDriver(t), func(h *infrav1.LibvirtHost) { h.Spec.CredentialsRef.Name = secret.Name })
	s.readyCluster("green", "10.20.0.0/27")
	m := s.readyMachine("green", "green-a")

	sight.noSecrets.Store(true)
	touch(s, kvm1)
	staysSo(t, "the host is connected", func() error {
		if s.refresh(kvm1); !conditions.IsTrue(kvm1, infrav1.HostConnectedCondition) {
			return errors.New(describe(kvm1))
		}
		return nil
	})
	sight.noSecrets.Store(false)

	end()
	s.delete(secret)
	s.startShortSighted(sight)
	s.expectCondition(kvm1, infrav1.ReadyCondition, metav1.ConditionFalse, infrav1.HostCredentialsNotFoundReason)
	s.expectCondition(m, infrav1.ReadyCondition, metav1.ConditionUnknown, infrav1.HostUnreachableReason,
		"Secret kvm1-login of spec.credentialsRef doesn't exist")
}

// TestHostIsKeptForAMachineThatTheCacheLacks takes a host from a cluster just after a machine was placed there.
func TestHostIsKeptForAMachineThatTheCacheLacks(t *testing.T) {
	t.Parallel()
	s, sight := newOwnScene(t), &shortSight{}
	s.startShortSighted(sight)
	labelled := func(h *infrav1.LibvirtHost) { h.Labels["site"] = "home" }
	kvm1 := s.readyHost("kvm1", testDriver(t), labelled)
	s.readyHost("kvm2", testDriver(t), labelled)
	green := s.readyCluster("green", "10.20.0.0/27", func(c *infrav1.LibvirtCluster) {
		c.Spec.HostSelector.MatchLabels = map[string]string{"site": "home"}
	})
	m := s.readyMachine("green", "green-a", onHost("kvm1"))
	up := func() error {
		s.refresh(green)
		_, err := s.kvm("kvm1").Network(t.Context(), green.Spec.Network.UUID)
		if err == nil && !slices.Contains(green.Status.Hosts, "kvm1") {
			err = fmt.Errorf("it is on %v", green.Status.Hosts)
		}
		return err
	}
	sight.noMachines.Store(true)
	change(s, kvm1, func(h *infrav1.LibvirtHost) { delete(h.Labels, "site") })
	staysSo(t, "the network is on the host", up)
	sight.noMachines.Store(false)
	s.delete(m)
	s.expectGone(m)
	eventually(t, "the network is gone from the host", func() error {
		if err := up(); err != nil {
			return nil //nolint:nilerr // It is gone, as it should be.
		}
		return errors.New("it is still there")
	})
}
