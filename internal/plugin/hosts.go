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

package plugin

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/domain"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/host"
)

// look is the time between two looks at whether a host is connected.
const look = 50 * time.Millisecond

// connect connects the LibvirtHost of that name, with the credentials of its Secret.
func (s *session) connect(ctx context.Context, name string) (*host.Host, error) {
	libvirtHost := &infrav1.LibvirtHost{}
	if err := s.client.Get(ctx, client.ObjectKey{Namespace: s.namespace, Name: name}, libvirtHost); err != nil {
		return nil, fmt.Errorf("reading LibvirtHost %s: %w", name, err)
	}
	config := host.Config{URI: libvirtHost.Spec.URI}
	if ref := libvirtHost.Spec.CredentialsRef.Name; ref != "" {
		secret := &corev1.Secret{}
		if err := s.client.Get(ctx, client.ObjectKey{Namespace: s.namespace, Name: ref}, secret); err != nil {
			return nil, fmt.Errorf("reading Secret %s with the credentials of LibvirtHost %s: %w", ref, name, err)
		}
		config.Credentials = host.ReadCredentials(secret.Data)
	}
	s.pool.Set(name, config)
	return s.await(ctx, name)
}

// await waits until a host is connected, as long as it may take or until it can't be.
func (s *session) await(ctx context.Context, name string) (*host.Host, error) {
	ctx, cancel := context.WithTimeout(ctx, s.patience)
	defer cancel()
	again := time.NewTicker(look)
	defer again.Stop()
	for {
		kvm, err := s.pool.Get(name)
		if err == nil || errors.Is(err, host.ErrAuth) || errors.Is(err, host.ErrInvalid) {
			return kvm, err
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: gave up after %s; spec.uri of the LibvirtHost has to lead to it from this machine too", err, s.patience)
		}
	}
}

// guest is the domain of a machine.
type guest struct {
	machine *infrav1.LibvirtMachine
	host    *host.Host
	domain  host.Domain
}

// guest finds the domain of a Machine or LibvirtMachine by its name.
func (s *session) guest(ctx context.Context, name string) (*guest, error) {
	machine, err := s.libvirtMachine(ctx, name)
	if err != nil {
		return nil, err
	}
	uuid := domain.UUID(machine.Spec.ProviderID)
	if uuid == "" || machine.Spec.HostName == "" {
		return nil, fmt.Errorf("LibvirtMachine %s has no domain yet: kubectl describe libvirtmachine %s tells what it waits for", machine.Name, machine.Name)
	}
	kvm, err := s.connect(ctx, machine.Spec.HostName)
	if err != nil {
		return nil, err
	}
	dom, err := kvm.Domain(uuid)
	if err != nil {
		return nil, fmt.Errorf("looking for LibvirtMachine %s on LibvirtHost %s: %w", machine.Name, machine.Spec.HostName, err)
	}
	return &guest{machine, kvm, dom}, nil
}

// libvirtMachine reads the LibvirtMachine of that name, or that of the Machine of that name.
func (s *session) libvirtMachine(ctx context.Context, name string) (*infrav1.LibvirtMachine, error) {
	libvirtMachine := &infrav1.LibvirtMachine{}
	err := s.client.Get(ctx, client.ObjectKey{Namespace: s.namespace, Name: name}, libvirtMachine)
	if err == nil {
		return libvirtMachine, nil
	}
	if !apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("reading LibvirtMachine %s: %w", name, err)
	}
	machine := &clusterv1.Machine{}
	err = s.client.Get(ctx, client.ObjectKey{Namespace: s.namespace, Name: name}, machine)
	if apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("there is no Machine or LibvirtMachine %s in namespace %s: name another namespace with --namespace, or see kubectl get machines --all-namespaces", name, s.namespace)
	}
	if err != nil {
		return nil, fmt.Errorf("reading Machine %s: %w", name, err)
	}
	ref := machine.Spec.InfrastructureRef
	if ref.Kind != "LibvirtMachine" {
		return nil, fmt.Errorf("the Machine %s is a %s and no LibvirtMachine", name, ref.Kind)
	}
	if err := s.client.Get(ctx, client.ObjectKey{Namespace: s.namespace, Name: ref.Name}, libvirtMachine); err != nil {
		return nil, fmt.Errorf("reading LibvirtMachine %s: %w", ref.Name, err)
	}
	return libvirtMachine, nil
}
