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

package v1beta1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// DefaultShutdownTimeoutSeconds is what an unset spec.shutdown.timeoutSeconds means.
const DefaultShutdownTimeoutSeconds = 60

// Shutdown is how a machine is stopped when it is deleted.
// +kubebuilder:validation:XValidation:rule="!has(self.timeoutSeconds) || self.mode == 'Graceful'",message="timeoutSeconds goes with mode Graceful only: remove it, or set mode to Graceful"
type Shutdown struct {
	// mode is PowerOff (the plug is pulled, which loses what the guest hasn't written to its disks) or Graceful (the guest is
	// asked to shut down first, by its power button, and the plug is pulled after timeoutSeconds).
	// +required
	Mode ShutdownMode `json:"mode,omitempty"`

	// timeoutSeconds is how long the guest has, with mode Graceful. 60 when unset.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=3600
	TimeoutSeconds int32 `json:"timeoutSeconds,omitempty"`
}

// ShutdownMode is how a domain is stopped.
// +kubebuilder:validation:Enum=PowerOff;Graceful
type ShutdownMode string

const (
	// ShutdownPowerOff pulls the plug.
	ShutdownPowerOff ShutdownMode = "PowerOff"

	// ShutdownGraceful asks the guest to shut down and pulls the plug when it takes too long.
	ShutdownGraceful ShutdownMode = "Graceful"
)

// RestartPolicy says which domains are started again when they stop.
// +kubebuilder:validation:Enum=Always;OnFailure;Never
type RestartPolicy string

const (
	// RestartAlways starts a domain again whatever stopped it.
	RestartAlways RestartPolicy = "Always"

	// RestartOnFailure starts a domain again that crashed or whose hypervisor died, and leaves one alone that was shut
	// down from inside or stopped by somebody on the host.
	RestartOnFailure RestartPolicy = "OnFailure"

	// RestartNever leaves a domain alone that stopped. It doesn't start with its host either.
	RestartNever RestartPolicy = "Never"
)

// PowerStatus is what was done to a domain that stopped or is to be stopped. It is forgotten when the domain has run for
// ten minutes on end.
// +kubebuilder:validation:MinProperties=1
type PowerStatus struct {
	// restarts is how often the domain was started again.
	// +optional
	// +kubebuilder:validation:Minimum=1
	Restarts int32 `json:"restarts,omitempty"`

	// lastRestartTime is when the domain was started again last.
	// +optional
	LastRestartTime metav1.Time `json:"lastRestartTime,omitempty,omitzero"`

	// lastStopReason is what libvirt gave as the reason for which the domain had stopped then, for example Crashed.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	LastStopReason string `json:"lastStopReason,omitempty"`

	// resumeTime is when the domain was resumed, after a full disk had made it stand still and room was there again.
	// +optional
	ResumeTime metav1.Time `json:"resumeTime,omitempty,omitzero"`

	// shutdownTime is when the guest was asked to shut down, because the machine is being deleted.
	// +optional
	ShutdownTime metav1.Time `json:"shutdownTime,omitempty,omitzero"`
}
