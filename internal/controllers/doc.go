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

// Package controllers decides when and whether something is done on a host. The reconcilers read what was observed,
// compare it with what is wanted and act through the host package; they hold no state that a restart must not lose.
package controllers

// The host pool and the task runner wake the reconcilers by events; there is no polling. A slow resync covers what an
// event may have missed.
