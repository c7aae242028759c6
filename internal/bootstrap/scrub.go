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

package bootstrap

import (
	"regexp"
	"strings"
	"unicode"
)

// secrets are what bootstrap data and the output of kubeadm may have that nobody else should read, each with what stands
// for it. They come in this order: a private key would otherwise be taken for many long words.
var secrets = []struct {
	is    *regexp.Regexp
	stand string
}{
	{regexp.MustCompile(`(?s)-----BEGIN [A-Z0-9 ]+-----.*?(?:-----END [A-Z0-9 ]+-----|\z)`), "[key or certificate]"},
	// The end of a key whose beginning was cut off.
	{regexp.MustCompile(`(?s)\A[A-Za-z0-9+/=\s]*-----END [A-Z0-9 ]+-----`), "[key or certificate]"},
	{regexp.MustCompile(`\b[a-z0-9]{6}\.[a-z0-9]{16}\b`), "[token]"},
	{regexp.MustCompile(`\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*)?`), "[token]"},
	{regexp.MustCompile(`(?i)\b(bearer|basic)\s+[A-Za-z0-9+/=._~-]{8,}`), "$1 [credentials]"},
	{regexp.MustCompile(`(?i)([a-z0-9_-]*(?:password|passwd|secret|token|certificate-key|api-?key|private-?key)["']?\s*[:=]\s*|--(?:token|certificate-key|discovery-token|tls-bootstrap-token|password)[ =])["']?[^\s"',;\[]+["']?`), "$1[secret]"},
	{regexp.MustCompile(`(\w+://)[^/\s:@]+:[^/\s@]+@`), "$1[credentials]@"},
	{regexp.MustCompile(`\b[0-9a-fA-F]{32,}\b`), "[digits]"},
	{regexp.MustCompile(`[A-Za-z0-9+/_-]{48,}={0,2}`), "[data]"},
}

var escapeSequence = regexp.MustCompile(`\x1b(?:\[[\x30-\x3f]*[\x20-\x2f]*[\x40-\x7e]|[\x40-\x5f])`)

// scrub takes out of an output what is secret, and what isn't text. It rather takes too much.
func scrub(output string) string {
	output = escapeSequence.ReplaceAllString(strings.ToValidUTF8(output, ""), "")
	output = strings.Map(func(r rune) rune {
		if r != '\n' && r != '\t' && unicode.IsControl(r) {
			return -1
		}
		return r
	}, output)
	for _, secret := range secrets {
		output = secret.is.ReplaceAllString(output, secret.stand)
	}
	return output
}
