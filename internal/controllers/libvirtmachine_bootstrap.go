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
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/cluster-api/util/conditions"

	infrav1 "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/api/v1beta1"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/bootstrap"
	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/host"
)

// How often a guest is asked how its bootstrap goes: while it answers, and at the slowest while it doesn't.
const (
	lookInterval        = 5 * time.Second
	slowestLookInterval = 30 * time.Second
	// lookTimeout bounds one look, and thus for how long an agent that hangs keeps a worker.
	lookTimeout = 10 * time.Second
	// settled is how long after its Node has registered a bootstrap that seems to go on is taken for one that was through
	// before its guest was started anew.
	settled = 10 * time.Minute
)

// look is the last look at a bootstrap. Looks are paced by machine, whatever wakes the reconciler.
type look struct {
	at time.Time
	// wait is how long the next one waits.
	wait time.Duration
	// found is what the look came to.
	found error
}

// reconcileBootstrap asks the guest how its bootstrap goes, until that is known. Nothing it finds undoes what was
// achieved: the machine is provisioned all the same.
func (r *LibvirtMachineReconciler) reconcileBootstrap(ctx context.Context, s *machineScope) error {
	before := conditions.Get(s.libvirtMachine, infrav1.MachineBootstrapSucceededCondition)
	if before != nil && before.Status == metav1.ConditionTrue {
		return &waiting{keep: true}
	}
	var found error
	if connected, known := s.host.AgentConnected(ctx, s.uuid); known && !connected {
		found = agentTrouble(host.ErrInactive)
	} else {
		found = r.pacedLook(ctx, s)
	}
	failed := before != nil && before.Status == metav1.ConditionFalse
	return conclude(found, failed, s.machine.Status.NodeRef.IsDefined(), sinceRemoval(s.libvirtMachine) > settled)
}

// conclude weighs what a guest told, nil meaning that its bootstrap has succeeded, against what else is known. A failure
// stands, unless the guest says that somebody mended it: after a new start of the guest its traces are gone. A Node that
// has registered tells that the bootstrap got far enough where the guest tells nothing.
func conclude(found error, failed, registered, longAgo bool) error {
	var wait *waiting
	switch {
	case found == nil:
		return nil
	case failed:
		return &waiting{keep: true}
	case !errors.As(found, &wait) || wait.reason == infrav1.MachineBootstrapFailedReason:
		return found
	case registered && (wait.reason != infrav1.MachineBootstrapRunningReason || longAgo):
		return &waiting{reason: infrav1.MachineNodeRegisteredReason, done: true, message: "The Node has registered; the guest didn't tell more"}
	}
	return found
}

// sinceRemoval is how long ago the bootstrap data was removed, which was when the Node had registered.
func sinceRemoval(libvirtMachine *infrav1.LibvirtMachine) time.Duration {
	removed := conditions.Get(libvirtMachine, infrav1.MachineBootstrapDataRemovedCondition)
	if removed == nil || removed.Status != metav1.ConditionTrue {
		return 0
	}
	return time.Since(removed.LastTransitionTime.Time)
}

// pacedLook looks at the bootstrap if it is time to, and returns what the last look came to otherwise.
func (r *LibvirtMachineReconciler) pacedLook(ctx context.Context, s *machineScope) error {
	key := r.ownedKey(s)
	last, _ := r.looks.get(key, 0)
	if rest := last.wait - time.Since(last.at); rest > 0 {
		return lookAgain(last.found, rest)
	}
	found := lookAt(ctx, s)
	var wait *waiting
	if found == nil || !errors.As(found, &wait) || wait.reason == infrav1.HostBusyReason {
		r.looks.forget(key)
		return found
	}
	next := look{at: time.Now(), wait: lookInterval, found: found}
	if wait.reason != infrav1.MachineBootstrapRunningReason {
		next.wait = min(max(2*last.wait, lookInterval), slowestLookInterval)
	}
	r.looks.set(key, 0, next)
	return lookAgain(found, next.wait)
}

// lookAgain has a look repeated that didn't tell how the bootstrap ended.
func lookAgain(found error, rest time.Duration) error {
	var wait *waiting
	if !errors.As(found, &wait) || !wait.unknown {
		return found
	}
	later := *wait
	later.after = rest
	return &later
}

func bootstrapFailed(message string) error {
	return &waiting{reason: infrav1.MachineBootstrapFailedReason, message: message}
}

// lookAt asks the guest once. Nil: the bootstrap has succeeded.
func lookAt(ctx context.Context, s *machineScope) error {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	read := func(path string, limit int) ([]byte, error) { return s.host.ReadGuestFile(ctx, s.uuid, path, limit) }

	_, err := read(bootstrap.Sentinel, 1)
	if !errors.Is(err, host.ErrNotFound) {
		return agentTrouble(err)
	}
	result, err := read(bootstrap.CloudInitResult, bootstrap.MaxOutputBytes)
	if err == nil {
		found, err := bootstrap.CloudInitErrors(result)
		if err != nil {
			return running() // it is being written
		}
		return cloudInitEnded(found, read)
	}
	if !errors.Is(err, host.ErrNotFound) {
		return agentTrouble(err)
	}
	output, err := read(bootstrap.FailureLog, bootstrap.MaxOutputBytes)
	switch {
	case err == nil:
		return bootstrapFailed("kubeadm failed:\n" + bootstrap.Excerpt(output))
	case !errors.Is(err, host.ErrNotFound):
		return agentTrouble(err)
	}
	return running()
}

// cloudInitEnded judges a bootstrap whose cloud-init came to its end. The sentinel may have been written after it was
// looked for.
func cloudInitEnded(found []string, read func(string, int) ([]byte, error)) error {
	_, err := read(bootstrap.Begun, 1)
	if errors.Is(err, host.ErrNotFound) {
		return &waiting{
			reason: infrav1.MachineGuestRestartedReason, unknown: true,
			message: "The guest was started anew since its bootstrap, which took away what tells how that went",
		}
	}
	if err != nil {
		return agentTrouble(err)
	}
	_, err = read(bootstrap.Sentinel, 1)
	if !errors.Is(err, host.ErrNotFound) {
		return agentTrouble(err)
	}
	message := fmt.Sprintf("cloud-init has ended without %s", bootstrap.Sentinel)
	if len(found) > 0 {
		message += ": " + bootstrap.Excerpt([]byte(strings.Join(found, "; ")))
	}
	output, err := read(bootstrap.CloudInitOutput, bootstrap.MaxOutputBytes)
	if err != nil && !errors.Is(err, host.ErrNotFound) {
		return agentTrouble(err)
	}
	if excerpt := bootstrap.Excerpt(output); excerpt != "" {
		message += "\n" + excerpt
	}
	return bootstrapFailed(message)
}

func running() error {
	return &waiting{
		reason: infrav1.MachineBootstrapRunningReason, unknown: true, message: "The guest answers; its bootstrap is under way",
	}
}

// agentTrouble says why an agent told nothing. Nil stays nil.
func agentTrouble(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, host.ErrHostBusy):
		return &waiting{reason: infrav1.HostBusyReason, unknown: true, keep: true, after: busyInterval, message: err.Error()}
	case errors.Is(err, host.ErrUnreachable):
		return err
	case errors.Is(err, host.ErrInactive):
		// In the same words whether it was seen or asked, which a new connection has to.
		return &waiting{
			reason: infrav1.MachineGuestAgentNotConnectedReason, unknown: true,
			message: "No guest agent answers: the guest boots, or its image has no qemu-guest-agent",
		}
	case errors.Is(err, host.ErrUnsupported):
		return &waiting{
			reason: infrav1.MachineGuestAgentRefusesReason, unknown: true,
			message: "The guest agent refuses to read files: allow guest-file-open, guest-file-seek, guest-file-read and guest-file-close in the image",
		}
	}
	return &waiting{
		reason: infrav1.MachineGuestAgentNotConnectedReason, unknown: true, message: "The guest agent doesn't answer: " + err.Error(),
	}
}
