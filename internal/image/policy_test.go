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

package image

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
)

func TestPolicyOfAddresses(t *testing.T) {
	allowed := Policy{AllowedNetworks: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("fd00:1::/32")}}
	for address, want := range map[string]string{
		"93.184.216.34": "", "2606:2800:220:1::1": "", "::ffff:93.184.216.34": "", "64:ff9b::5db8:d822": "", "2002:5db8:d822::1": "",
		"10.1.2.3": "", "::ffff:10.1.2.3": "", "fd00:1::1": "", "64:ff9b::a01:203": "",

		"0.0.0.0": "unspecified", "0.1.2.3": "unspecified", "::": "unspecified",
		"127.0.0.1": "loopback", "127.255.255.254": "loopback", "::1": "loopback", "::ffff:127.0.0.1": "loopback",
		"64:ff9b::7f00:1": "loopback", "2002:7f00:1::1": "loopback", "::127.0.0.1": "loopback",
		"169.254.169.254": "link-local", "::ffff:169.254.169.254": "link-local", "fe80::1": "link-local", "fe80::1%eth0": "link-local",
		"64:ff9b::a9fe:a9fe": "link-local", "2002:a9fe:a9fe::": "link-local",
		"10.2.0.1": "private", "172.16.0.1": "private", "172.31.255.255": "private", "192.168.1.1": "private", "100.64.0.1": "private",
		"198.18.0.1": "private", "fc00::1": "private", "fd00:2::1": "private", "fd00:ec2::254": "private", "fec0::1": "private",
		"64:ff9b:1::1": "private",
		"224.0.0.1":    "multicast", "239.255.255.255": "multicast", "ff02::1": "multicast",
		"240.0.0.1": "reserved", "255.255.255.255": "reserved", "192.0.0.8": "reserved", "2001::1": "reserved", "100::1": "reserved",
	} {
		err := allowed.checkAddr(netip.MustParseAddr(address))
		switch {
		case want == "" && err != nil:
			t.Errorf("%s: %v", address, err)
		case want != "":
			expectReason(t, err, ReasonForbidden, want, "--image-allowed-cidrs")
			if err != nil && strings.Contains(err.Error(), address) {
				t.Errorf("the error tells the address: %v", err)
			}
		}
	}
}

func TestPolicyOfURLs(t *testing.T) {
	for rawURL, want := range map[string]struct {
		policy Policy
		reason Reason
		words  string
	}{
		"https://images.example.org/disk": {},
		"https://93.184.216.34/disk":      {},
		"http://images.example.org/disk#": {policy: Policy{AllowHTTP: true}},
		"https://127.0.0.2/disk":          {policy: local},
		"http://images.example.org/disk":  {Policy{}, ReasonForbidden, "--image-allow-http"},
		"https://127.0.0.1/disk":          {Policy{}, ReasonForbidden, "loopback"},
		"https://[::1]:8443/disk":         {Policy{}, ReasonForbidden, "loopback"},
		"https://[::ffff:a9fe:a9fe]/disk": {Policy{}, ReasonForbidden, "link-local"},
		"https://[fe80::1%25eth0]/disk":   {Policy{}, ReasonForbidden, "link-local"},
		"http://169.254.169.254/latest":   {Policy{AllowHTTP: true}, ReasonForbidden, "link-local"},
		"ftp://images.example.org/disk":   {Policy{AllowHTTP: true}, ReasonUnsupported, "ftp"},
		"file:///etc/passwd":              {Policy{AllowHTTP: true}, ReasonUnsupported, "https"},
	} {
		err := want.policy.CheckURL(rawURL)
		if want.reason == "" {
			if err != nil {
				t.Errorf("%s: %v", rawURL, err)
			}
			continue
		}
		expectReason(t, err, want.reason, want.words)
	}
}

// A name that leads to the server of the test is refused when it is dialled, whatever it is called.
func TestAddressesAreCheckedWhenDialled(t *testing.T) {
	served := make(chan string, 100)
	base := serve(t, map[string]http.HandlerFunc{"disk": func(w http.ResponseWriter, r *http.Request) {
		served <- r.Host
		file(rawDisk(4096))(w, r)
	}})
	port := base[strings.LastIndex(base, ":"):]
	onlyHTTP := Policy{AllowHTTP: true}
	// localhost and its likes are what a rebound name is: a name that resolves to loopback at the time of the dial.
	for _, name := range []string{"localhost", "LOCALHOST", "127.1"} {
		_, err := fetchBy(t, "http://"+name+port+"/disk", onlyHTTP, hurried)
		if err == nil {
			t.Errorf("%s: it was downloaded", name)
		}
	}
	if _, err := fetchBy(t, "http://localhost"+port+"/disk", onlyHTTP, hurried); err != nil {
		expectReason(t, err, ReasonForbidden, "loopback", "localhost", "--image-allowed-cidrs")
	}
	if len(served) != 0 {
		t.Errorf("the server was asked for %s", <-served)
	}
	if _, err := fetchBy(t, base+"/disk", local, hurried); err != nil {
		t.Errorf("from an allowed network: %v", err)
	}
}

// TestRedirectsAreChecked has a server in an allowed network lead elsewhere.
func TestRedirectsAreChecked(t *testing.T) {
	asked := make(chan string, 100)
	forbidden, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	inside := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r.URL.Path
		file(rawDisk(4096))(w, r)
	})}
	go func() { _ = inside.Serve(forbidden) }()
	t.Cleanup(func() { _ = inside.Close() })

	referrers := make(chan string, 100)
	to := func(target string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, target, http.StatusFound) }
	}
	base := serve(t, map[string]http.HandlerFunc{
		"disk": func(w http.ResponseWriter, r *http.Request) {
			referrers <- r.Referer()
			file(rawDisk(4096))(w, r)
		},
		"metadata": to("http://169.254.169.254/latest/user-data"),
		"inside":   to("http://" + forbidden.Addr().String() + "/secret"),
		"twice":    to("/inside"),
		"moved":    to("/disk"),
	})
	narrow := Policy{AllowHTTP: true, AllowedNetworks: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}}
	for path, words := range map[string]string{"metadata": "link-local", "inside": "loopback", "twice": "loopback"} {
		_, err := fetchBy(t, base+"/"+path, narrow, hurried)
		expectReason(t, err, ReasonForbidden, words, "spec.image.url "+base+"/"+path)
	}
	if len(asked) != 0 {
		t.Errorf("the server inside was asked for %s", <-asked)
	}
	if _, err := fetchBy(t, base+"/moved?token=hunter2", narrow, hurried); err != nil {
		t.Fatal(err)
	}
	if referrer := <-referrers; referrer != "" {
		t.Errorf("the redirect told where it came from: %s", referrer)
	}
}

// TestNoDowngrade has a server by https lead to one by http, where both are allowed.
func TestNoDowngrade(t *testing.T) {
	plain := serve(t, map[string]http.HandlerFunc{"disk": file(rawDisk(4096))})
	before := []*http.Request{{URL: mustParse(t, "http://a/")}, {URL: mustParse(t, "https://b/")}}
	expectReason(t, checkRedirect(local, mustParse(t, plain+"/disk"), before), ReasonForbidden, "from https to http")
	if err := checkRedirect(local, mustParse(t, plain+"/disk"), before[:1]); err != nil {
		t.Errorf("from http to http: %v", err)
	}
	expectReason(t, checkRedirect(Policy{}, mustParse(t, "http://images.example.org/"), nil), ReasonForbidden, "--image-allow-http")

	secure := httptest.NewTLSServer(http.RedirectHandler(plain+"/disk", http.StatusFound))
	t.Cleanup(secure.Close)
	ways := newRoutes(local, hurried)
	ways.direct.TLSClientConfig = &tls.Config{RootCAs: secure.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs, MinVersion: tls.VersionTLS12}
	client := &http.Client{Transport: ways, CheckRedirect: func(r *http.Request, via []*http.Request) error { return checkRedirect(local, r.URL, via) }}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, secure.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := client.Do(request)
	if response != nil {
		_ = response.Body.Close()
	}
	expectReason(t, err, ReasonForbidden, "from https to http")
}

// TestDialersOfRoutes has a guarded and an unguarded dialer.
func TestDialersOfRoutes(t *testing.T) {
	base := serve(t, map[string]http.HandlerFunc{"disk": file(rawDisk(4096))})
	address := strings.TrimPrefix(base, "http://")
	ways := newRoutes(Policy{AllowHTTP: true}, hurried)
	_, err := ways.direct.DialContext(t.Context(), "tcp", address)
	expectReason(t, err, ReasonForbidden, "loopback")
	connection, err := ways.proxied.DialContext(context.Background(), "tcp", address)
	if err != nil {
		t.Fatalf("a proxy on a private address: %v", err)
	}
	_ = connection.Close()
}

func mustParse(t *testing.T, rawURL string) *url.URL {
	t.Helper()
	parsed, err := url.Parse(rawURL)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}
