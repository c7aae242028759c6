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
	"strings"
	"testing"
)

func TestScrub(t *testing.T) {
	key := strings.Repeat("MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7\n", 5)
	for name, tt := range map[string]struct{ output, secret, kept string }{
		"a bootstrap token":     {"kubeadm join --token abcdef.0123456789abcdef --v=5", "0123456789abcdef", "kubeadm join"},
		"in YAML":               {"  token: abcdef.0123456789abcdef\n  kind: X", "abcdef", "kind: X"},
		"a certificate key":     {"--certificate-key " + strings.Repeat("0af9", 16) + " failed", "0af9", "failed"},
		"a private key":         {"x\n-----BEGIN RSA PRIVATE KEY-----\n" + key + "-----END RSA PRIVATE KEY-----\ny", "MIIE", "y"},
		"a key that is cut off": {key + "-----END PRIVATE KEY-----\nerror: y", "MIIE", "error: y"},
		"a key without its end": {"error: x\n-----BEGIN PRIVATE KEY-----\n" + key, "MIIE", "error: x"},
		"a password":            {`password: "hunter2 "`, "hunter2", "password"},
		"in JSON":               {`{"password":"hunter2","user":"x"}`, "hunter2", "user"},
		"in an environment":     {"REGISTRY_PASSWORD=hunter2 ctr pull", "hunter2", "ctr pull"},
		"in a URL":              {"pulling https://user:hunter2@example.org/image failed", "hunter2", "example.org/image failed"},
		"a bearer":              {"Authorization: Bearer abcdefghijklmnop", "abcdefghijklmnop", "Authorization"},
		"a web token":           {"got eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc-_ back", "eyJ", "back"},
		"encoded data":          {"certificate-authority-data: " + strings.Repeat("LS0tLS1CRUdJTi", 9) + "==", "LS0tLS1CRUdJTi", "certificate-authority-data"},
		"colours":               {"\x1b[0;31merror\x1b[0m: \x07x", "\x1b", "error: x"},
	} {
		t.Run(name, func(t *testing.T) {
			got := scrub(tt.output)
			if strings.Contains(got, tt.secret) || !strings.Contains(got, tt.kept) {
				t.Errorf("got %q", got)
			}
		})
	}
	const plain = "[preflight] Some fatal errors occurred:\n\t[ERROR Port-10250]: Port 10250 is in use\nerror execution phase preflight: open /etc/kubernetes/pki/ca.crt: no such file or directory\n"
	if got := scrub(plain); got != plain {
		t.Errorf("plain text became %q", got)
	}
}

func TestExcerpt(t *testing.T) {
	if got := Excerpt([]byte("first\n\nsecond \r\n\n")); got != "first\nsecond" {
		t.Errorf("got %q", got)
	}
	if got := Excerpt(nil); got != "" {
		t.Errorf("got %q from nothing", got)
	}
	many := strings.Repeat("line\n", 100) + "last\n"
	if got := Excerpt([]byte(many)); strings.Count(got, "\n") != maxExcerptLines-1 || !strings.HasSuffix(got, "\nlast") {
		t.Errorf("got %q", got)
	}
	long := Excerpt([]byte("first\n" + strings.Repeat("long ü ", 1000)))
	if len(long) > maxExcerptBytes || !strings.HasPrefix(long, "long ü") {
		t.Errorf("got %d bytes: %q", len(long), long)
	}
}

func TestCloudInitErrors(t *testing.T) {
	found, err := CloudInitErrors([]byte(`{"v1": {"datasource": "DataSourceNoCloud [seed=/dev/sr0]", "errors": ["('scripts-user', RuntimeError('Runparts: 1 failures (runcmd)'))"]}}`))
	if err != nil || len(found) != 1 || !strings.Contains(found[0], "scripts-user") {
		t.Errorf("got %v, %v", found, err)
	}
	if found, err := CloudInitErrors([]byte(`{"v1": {"datasource": null, "errors": []}}`)); err != nil || len(found) != 0 {
		t.Errorf("got %v, %v", found, err)
	}
	if _, err := CloudInitErrors([]byte(`{"v1": {"data`)); err == nil {
		t.Error("half a document was read")
	}
}
