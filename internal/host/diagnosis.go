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

package host

import (
	"context"
	"errors"
	"fmt"
	"time"

	"libvirt.org/go/libvirt"

	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/hosturi"
)

// libvirt says in its texts alone what was wrong with keys and certificates, and much of that with the same words. So
// after a dial that failed over them they are looked at here, and the peer's by a handshake that goes no further.

// diagnosisTimeout bounds the handshake with a peer.
const diagnosisTimeout = 3 * time.Second

// diagnose says in plain words what is wrong with credentials that a dial failed with, or with the peer's, as an ErrAuth.
// It returns the dial's error if it finds nothing.
func diagnose(ctx context.Context, cfg Config, err error) error {
	uri, uriErr := hosturi.Parse(cfg.URI)
	if uriErr != nil || !uri.Remote() || errors.Is(err, ErrTimeout) || errors.Is(err, ErrInvalid) {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, diagnosisTimeout)
	defer cancel()
	refused := code(err) == libvirt.ERR_AUTH_FAILED
	finding := ""
	switch uri.Transport {
	case hosturi.SSH:
		finding = sshFinding(ctx, uri, cfg.Credentials, refused)
	case hosturi.TLS:
		finding = tlsFinding(ctx, uri, cfg.Credentials, refused, time.Now())
	}
	if finding == "" {
		return err
	}
	return fmt.Errorf("%w: %s", ErrAuth, finding)
}
