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
	"fmt"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"libvirt.org/go/libvirt"
)

// eventLoop runs libvirt's event loop, which the process shares and which must be registered before the first
// connection is opened.
var eventLoop struct {
	once sync.Once
	err  error
}

func startEventLoop(log logr.Logger) error {
	eventLoop.once.Do(func() {
		if err := libvirt.EventRegisterDefaultImpl(); err != nil {
			eventLoop.err = fmt.Errorf("registering libvirt's event loop: %w", err)
			return
		}
		go func() {
			for {
				if err := libvirt.EventRunDefaultImpl(); err != nil {
					log.Error(err, "Failed to run libvirt's event loop once")
					<-time.After(time.Second) // don't spin
				}
			}
		}()
	})
	return eventLoop.err
}
