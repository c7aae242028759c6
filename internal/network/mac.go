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

package network

import (
	"crypto/sha256"
	"fmt"
)

// MAC is the MAC address of a machine's interface in the cluster network, in lower case. It depends on the domain's
// UUID alone, so that it is the same at every try. 40 bits of it vary: among 1,000 machines the chance of two alike is
// below one in a million. The first byte marks a locally administered unicast address.
func MAC(domainUUID string) string {
	sum := sha256.Sum256([]byte("cluster-network/" + domainUUID))
	return fmt.Sprintf("52:%02x:%02x:%02x:%02x:%02x", sum[0], sum[1], sum[2], sum[3], sum[4])
}
