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
	"encoding/xml"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"libvirt.org/go/libvirt"
	"libvirt.org/go/libvirtxml"
)

func TestDelay(t *testing.T) {
	for _, tt := range []struct {
		failures, hanging int
		random            float64
		limit, want       time.Duration
	}{
		{0, 0, 0, time.Second, 250 * time.Millisecond},
		{0, 0, 1, time.Second, 125 * time.Millisecond},
		{1, 0, 0, time.Second, 500 * time.Millisecond},
		{5, 0, 0, time.Second, time.Second},
		{5, 0, 0, 15 * time.Second, 8 * time.Second},
		{6, 0, 0, 15 * time.Second, 15 * time.Second},
		{1000, 0, 0, 15 * time.Second, 15 * time.Second},
		{6, 3, 0, 15 * time.Second, 15 * time.Second},
		{0, 10, 0, time.Second, 150 * time.Second},
	} {
		if got := delay(tt.failures, tt.hanging, defaultTiming, tt.limit, tt.random); got != tt.want {
			t.Errorf("%d failures, %d hanging: got %s, want %s", tt.failures, tt.hanging, got, tt.want)
		}
	}
}

func TestLimit(t *testing.T) {
	for _, tt := range []struct {
		err    error
		remote bool
		outage time.Duration
		want   time.Duration
	}{
		{ErrUnreachable, false, time.Hour, defaultTiming.soon},
		{ErrUnreachable, true, time.Minute, defaultTiming.soon},
		{ErrUnreachable, true, time.Hour, defaultTiming.maxBackoff},
		{ErrAuth, true, 0, defaultTiming.maxBackoff},
		{ErrCredentials, true, 0, defaultTiming.maxBackoff},
	} {
		if got := limit(tt.err, tt.remote, tt.outage, defaultTiming); got != tt.want {
			t.Errorf("%v after %s: got %s, want %s", tt.err, tt.outage, got, tt.want)
		}
	}
}

func TestQueue(t *testing.T) {
	q := newQueue()
	a, b := Event{Host: "a", Kind: HostConnected}, Event{Host: "a", Kind: HostDisconnected}
	for _, e := range []Event{b, a, b} { // nobody listens: nothing blocks
		q.push(e)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); q.run(ctx) }()
	for _, want := range []Event{a, b} {
		if got := <-q.out; got != want {
			t.Errorf("got %v, want %v", got, want)
		}
	}
	q.push(a)
	if got := <-q.out; got != a {
		t.Errorf("got %v after the pause", got)
	}
	cancel()
	<-done
}

func TestDivergence(t *testing.T) {
	a := Reservation{MAC: "52:54:00:00:00:01", IP: "10.0.0.1", Name: "a"}
	b := Reservation{MAC: "52:54:00:00:00:02", IP: "10.0.0.2", Name: "b"}
	moved := Reservation{MAC: a.MAC, IP: "10.0.0.9", Name: "a"}
	const (
		add    = libvirt.NETWORK_UPDATE_COMMAND_ADD_LAST
		remove = libvirt.NETWORK_UPDATE_COMMAND_DELETE
		live   = libvirt.NETWORK_UPDATE_AFFECT_LIVE
		config = libvirt.NETWORK_UPDATE_AFFECT_CONFIG
	)
	for _, tt := range []struct {
		name         string
		live, config []Reservation
		want         []fix
	}{
		{"equal", []Reservation{a, b}, []Reservation{b, a}, nil},
		{"only live", []Reservation{a}, nil, []fix{{add, a, config}}},
		{"only in the definition", nil, []Reservation{b}, []fix{{add, b, live}}},
		{"contradiction", []Reservation{moved}, []Reservation{a}, []fix{{remove, a, config}, {add, moved, config}}},
	} {
		if got := divergence(tt.live, tt.config); !slices.Equal(got, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestKeepReservations(t *testing.T) {
	parse := func(hosts string) *libvirtxml.Network {
		n := &libvirtxml.Network{}
		must(t, n.Unmarshal(`<network><name>n</name><ip address='10.0.0.1'><dhcp>`+hosts+`</dhcp></ip></network>`))
		return n
	}
	wanted := parse(`<host mac='52:54:00:00:00:01' ip='10.0.0.11'/>`)
	if !keepReservations(wanted, parse(`<host mac='52:54:00:00:00:01' ip='10.0.0.10'/><host mac='52:54:00:00:00:02' ip='10.0.0.12' name='b'/>`)) {
		t.Error("nothing was kept")
	}
	want := []Reservation{{MAC: "52:54:00:00:00:01", IP: "10.0.0.11"}, {MAC: "52:54:00:00:00:02", IP: "10.0.0.12", Name: "b"}}
	if got := reservations(wanted); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if keepReservations(parse(""), parse("")) {
		t.Error("kept what wasn't there")
	}
}

func TestScaled(t *testing.T) {
	for text, want := range map[string]int64{
		`<s>7</s>`:              7 << 10,
		`<s unit='b'>7</s>`:     7,
		`<s unit='bytes'>7</s>`: 7,
		`<s unit='KiB'>7</s>`:   7 << 10,
		`<s unit='k'>7</s>`:     7 << 10,
		`<s unit='KB'>7</s>`:    7000,
		`<s unit='MiB'>7</s>`:   7 << 20,
		`<s unit='G'>7</s>`:     7 << 30,
		`<s unit='GB'>7</s>`:    7_000_000_000,
		`<s unit='TiB'>7</s>`:   7 << 40,
	} {
		var s scaled
		must(t, xml.Unmarshal([]byte(text), &s))
		if got := s.bytes("KiB"); got != want {
			t.Errorf("%s: got %d, want %d", text, got, want)
		}
	}
}

func TestNeededBytes(t *testing.T) {
	for text, want := range map[string]int64{
		`<volume><capacity>1000</capacity></volume>`:                                                                1000,
		`<volume><capacity>1000</capacity><allocation>10</allocation></volume>`:                                     10,
		`<volume><capacity unit='G'>1</capacity><target><format type='raw'/></target></volume>`:                     1 << 30,
		`<volume><capacity unit='G'>1</capacity><target><format type='qcow2'/></target></volume>`:                   qcow2Overhead,
		`<volume><capacity>1000</capacity><allocation>0</allocation><target><format type='raw'/></target></volume>`: 1,
	} {
		var v volumeHead
		must(t, xml.Unmarshal([]byte(text), &v))
		if got := v.neededBytes(); got != want {
			t.Errorf("%s: got %d, want %d", text, got, want)
		}
	}
}

func TestUndefineFlags(t *testing.T) {
	if undefineFlags(true)&libvirt.DOMAIN_UNDEFINE_NVRAM != 0 {
		t.Error("the test driver refuses the flag for NVRAM")
	}
	if flags := undefineFlags(false); flags&libvirt.DOMAIN_UNDEFINE_TPM == 0 || flags&libvirt.DOMAIN_UNDEFINE_NVRAM == 0 {
		t.Error("NVRAM or TPM state stays behind")
	}
}

func TestEffectiveURI(t *testing.T) {
	ssh := Credentials{SSHPrivateKey: []byte("key"), KnownHosts: []byte("hosts")}
	tls := Credentials{TLSCA: []byte("ca"), TLSClientCert: []byte("cert"), TLSClientKey: []byte("key")}
	for _, tt := range []struct {
		uri         string
		credentials Credentials
		want        string
		files       []string
		refusal     string
	}{
		{uri: "qemu:///system", want: "qemu:///system"},
		{uri: "qemu+unix:///system?socket=/run/a", want: "qemu+unix:///system?socket=/run/a"},
		{
			uri: "qemu+libssh2://root@kvm1/system", credentials: ssh,
			want:  "qemu+libssh2://root@kvm1/system?keyfile=%2Fd%2Fssh-privatekey&known_hosts=%2Fd%2Fknown_hosts&known_hosts_verify=normal&sshauth=privkey",
			files: []string{"known_hosts", "ssh-privatekey"},
		},
		{
			uri: "qemu+tls://kvm1/system", credentials: tls,
			want:  "qemu+tls://kvm1/system?pkipath=%2Fd",
			files: []string{"cacert.pem", "clientcert.pem", "clientkey.pem"},
		},
		{uri: "qemu+libssh2://root@kvm1/system", credentials: tls, refusal: "lack ssh-privatekey or known_hosts"},
		{uri: "qemu+tls://kvm1/system", credentials: ssh, refusal: "lack ca.crt, tls.crt or tls.key"},
		{uri: "qemu+libssh2://root@kvm1/system?no_verify=1", credentials: ssh, refusal: "no_verify"},
		{uri: "qemu+libssh2://root@kvm1/system?no_tty=1", credentials: ssh, refusal: "no_tty"},
		{uri: "qemu+ext:///system?command=/bin/sh", refusal: "ext"},
		{uri: "lxc:///system", refusal: "must start with"},
	} {
		t.Run(tt.uri+tt.refusal, func(t *testing.T) {
			uri, files, err := effectiveURI(Config{URI: tt.uri, Credentials: tt.credentials}, "/d")
			if tt.refusal != "" {
				if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), tt.refusal) {
					t.Fatalf("got %v", err)
				}
				return
			}
			if err != nil || uri != tt.want {
				t.Errorf("got %q, %v; want %q", uri, err, tt.want)
			}
			if names := slices.Sorted(maps.Keys(files)); !slices.Equal(names, tt.files) {
				t.Errorf("the files are %v, want %v", names, tt.files)
			}
		})
	}
}

func TestConfigEqual(t *testing.T) {
	a := Config{URI: "qemu:///system", Credentials: Credentials{SSHPrivateKey: []byte("a"), Password: "p"}}
	b := a
	b.Credentials.SSHPrivateKey = []byte("a")
	if !a.Equal(b) {
		t.Error("equal configurations differ")
	}
	b.Credentials.SSHPrivateKey = []byte("b")
	if a.Equal(b) {
		t.Error("a new key goes unnoticed")
	}
}

func TestDomainTypes(t *testing.T) {
	guest := func(arch, kind string) string {
		return `<guest><os_type>hvm</os_type><arch name='` + arch + `'><domain type='` + kind + `'/></arch></guest>`
	}
	for _, tt := range []struct {
		guests string
		want   []string
	}{
		{guest("x86_64", "qemu") + guest("x86_64", "kvm") + guest("aarch64", "qemu"), []string{"kvm", "qemu"}},
		{guest("i686", "test"), []string{"test"}},
		{"", nil},
	} {
		var caps libvirtxml.Caps
		must(t, caps.Unmarshal(`<capabilities><host><uuid>2C4B0A5E-0000-4000-8000-000000000001</uuid></host>`+tt.guests+`</capabilities>`))
		if got := domainTypes(caps, "x86_64"); !slices.Equal(got, tt.want) {
			t.Errorf("got %v, want %v", got, tt.want)
		}
		if uuid := hostUUID(caps); uuid != "2c4b0a5e-0000-4000-8000-000000000001" {
			t.Errorf("the UUID is %q", uuid)
		}
	}
	if architecture("x86_64") != "amd64" || architecture("s390x") != "s390x" || versionString(9_010_003) != "9.10.3" {
		t.Error("wrong translation")
	}
}

func TestTimestamp(t *testing.T) {
	for text, want := range map[string]time.Time{
		"1700000000.012345678": time.Unix(1700000000, 12345678),
		"1700000000":           time.Unix(1700000000, 0),
		"":                     {},
		"yesterday":            {},
	} {
		if got := timestamp(text); !got.Equal(want) {
			t.Errorf("%q: got %s, want %s", text, got, want)
		}
	}
}
