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

package hosturi

import (
	"strings"
	"testing"
)

func TestParseAccepts(t *testing.T) {
	for _, tt := range []struct {
		raw  string
		want URI
	}{
		{"qemu:///system", URI{Transport: Local}},
		{"qemu+unix:///system?socket=/run/hosts/a/libvirt-sock", URI{Transport: Local}},
		{"qemu+unix:///system?mode=direct&socket=/run/virtqemud-sock", URI{Transport: Local}},
		{"qemu+libssh2://root@203.0.113.11/system", URI{Transport: SSH, User: "root", Host: "203.0.113.11"}},
		{"qemu+libssh2://kvm1.example.org:2222/system?proxy=native", URI{Transport: SSH, Host: "kvm1.example.org"}},
		{"qemu+libssh://root@[2001:db8::1]:22/system?socket=/run/libvirt/libvirt-sock", URI{Transport: SSH, User: "root", Host: "2001:db8::1"}},
		{"qemu+tls://kvm1.example.org/system", URI{Transport: TLS, Host: "kvm1.example.org"}},
		{"test:///srv/hosts/one.xml", URI{Transport: Test}},
	} {
		t.Run(tt.raw, func(t *testing.T) {
			got, err := Parse(tt.raw)
			if err != nil {
				t.Fatal(err)
			}
			tt.want.raw, tt.want.port = tt.raw, got.port
			if got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
			if remote := tt.want.Host != ""; got.Remote() != remote {
				t.Errorf("Remote() = %t, want %t", got.Remote(), remote)
			}
		})
	}
}

func TestAddress(t *testing.T) {
	for raw, want := range map[string]string{
		"qemu:///system": "",
		"qemu+libssh2://root@203.0.113.11/system":    "203.0.113.11:22",
		"qemu+libssh://root@[2001:db8::1]:23/system": "[2001:db8::1]:23",
		"qemu+tls://kvm1.example.org/system":         "kvm1.example.org:16514",
	} {
		if u, err := Parse(raw); err != nil || u.Address() != want {
			t.Errorf("%s: got %q, %v; want %q", raw, u.Address(), err, want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, tt := range []struct {
		raw string
		// want is the part of the message that says what is wrong or what to do.
		want string
	}{
		{"", "must start with qemu+libssh2://, qemu+libssh://"},
		{"kvm1", "use a form like qemu:///system"},
		{"xen:///system", "must start with"},
		{"QEMU:///system", "must start with"},
		{"qemu:system", "is not a URI"},
		{"qemu:/system", "is not a URI"},
		{"qemu+ssh://root@kvm1/system", "runs an ssh program, which the manager hasn't: use qemu+libssh2://"},
		{"qemu+tcp://kvm1/system", "neither encrypts nor verifies: use qemu+libssh2:// or qemu+tls://"},
		{"qemu+ext:///system?command=/bin/sh", "runs a program in the manager"},
		{"qemu+libssh2://root:secret@kvm1/system", "must not contain a password"},
		{"qemu+libssh2://root:se%ret@s@kvm1/system", "must not contain a password"},
		{"qemu+libssh2://root:se/cret@kvm1/system", "is not a URI"},
		{"qemu:///system?command=/bin/sh", "must not have the parameter command, because it runs a program"},
		{"qemu+libssh2://root@kvm1/system?command=/bin/sh", "must not have the parameter command"},
		{"qemu+libssh2://root@kvm1/system?keyfile=/etc/passwd", "put ssh-privatekey in the Secret of spec.credentialsRef"},
		{"qemu+libssh2://root@kvm1/system?known_hosts=/etc/passwd", "put known_hosts in the Secret of spec.credentialsRef"},
		{"qemu+libssh2://root@kvm1/system?known_hosts_verify=ignore", "turns off the verification of the host"},
		{"qemu+libssh2://root@kvm1/system?known_hosts_verify=auto", "turns off the verification of the host"},
		{"qemu+libssh2://root@kvm1/system?no_verify=1", "turns off the verification of the host"},
		{"qemu+libssh2://root@kvm1/system?No_Verify=1", "turns off the verification of the host"},
		{"qemu+libssh2://root@kvm1/system?no%5fverify=1", "without percent-encoding"},
		{"qemu+libssh2://root@kvm1/system?mode=auto;no_verify=1", "may contain letters"},
		{"qemu+libssh2://root@kvm1/system?sshauth=agent", "follows from the Secret"},
		{"qemu+libssh2://root@kvm1/system?netcat=/bin/sh", "has the parameter netcat, which qemu+libssh2:// doesn't take: remove it"},
		{"qemu+libssh2://root@kvm1/system?authfile=/etc/passwd", "put username and password in the Secret"},
		{"qemu+tls://kvm1/system?no_verify=1", "turns off the verification"},
		{"qemu+tls://kvm1/system?no_sanity=1", "turns off the verification of certificates"},
		{"qemu+tls://kvm1/system?pkipath=/etc", "put tls.crt, tls.key and ca.crt in the Secret"},
		{"qemu+tls://kvm1/system?tls_priority=NULL", "can weaken the encryption"},
		{"qemu+tls://kvm1/system?name=qemu:///session", "has the parameter name"},
		{"qemu:///session", "must have the path /system"},
		{"qemu:///embed?root=/tmp", "must have the path /system"},
		{"qemu+libssh2://root@kvm1/", "must have the path /system"},
		{"qemu+libssh2:///system", "names no host"},
		{"qemu+libssh2://root@/system", "names no host"},
		{"qemu+libssh2://-oProxyCommand=x/system", "names no host"},
		{"qemu+libssh2://kvm1:0/system", "has the port 0: use one from 1 to 65535"},
		{"qemu+tls://kvm1:70000/system", "has the port 70000"},
		{"qemu://kvm1/system", "names a host, which qemu:// can't reach"},
		{"qemu+unix://kvm1/system", "names a host"},
		{"qemu+unix:///system?socket=run/libvirt-sock", "use an absolute path"},
		{"qemu+unix:///system?socket=/run/../etc/sock", "use an absolute path"},
		{"qemu+unix:///system?socket=/a&socket=/b", "more than once"},
		{"qemu:///system#here", "may contain letters"},
		{"qemu:///system\n", "may contain letters"},
		{"test:///default", "is shared by everything in the manager"},
		{"test:///var/run/secrets/kubernetes.io/serviceaccount/token", "must have the absolute path of an .xml file"},
		{"test:///var/run/secrets/token%00.xml", "without percent-encoding"},
		{"test:///srv/../etc/host.xml", "must have the absolute path of an .xml file"},
		{"test://kvm1/srv/host.xml", "names a host"},
		{"test:///srv/host.xml?mode=x", "has the parameter mode, which test:// doesn't take"},
	} {
		t.Run(tt.raw, func(t *testing.T) {
			_, err := Parse(tt.raw)
			if err == nil {
				t.Fatal("accepted")
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %q, want a message with %q", err, tt.want)
			}
			if strings.Contains(err.Error(), "se%ret") || strings.Contains(err.Error(), "secret@") {
				t.Errorf("the message %q has the password", err)
			}
		})
	}
}

func TestWith(t *testing.T) {
	for _, tt := range []struct {
		raw        string
		parameters map[string]string
		want       string
	}{
		{"qemu:///system", nil, "qemu:///system"},
		{
			"qemu+libssh2://kvm1/system", map[string]string{"known_hosts": "/tmp/a b+c&d", "keyfile": "/tmp/key"},
			"qemu+libssh2://kvm1/system?keyfile=%2Ftmp%2Fkey&known_hosts=%2Ftmp%2Fa%20b%2Bc%26d",
		},
		{"qemu+tls://kvm1/system?mode=auto", map[string]string{"pkipath": "/p"}, "qemu+tls://kvm1/system?mode=auto&pkipath=%2Fp"},
	} {
		if got := (URI{raw: tt.raw}).With(tt.parameters); got != tt.want {
			t.Errorf("%s with %v is %s, want %s", tt.raw, tt.parameters, got, tt.want)
		}
	}
}
