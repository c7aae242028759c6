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
	"net"
	"net/http"
	"net/netip"
	"net/url"
)

// routes are the ways to a server: directly, where the address of every connection is checked against the policy, or by
// the proxy of the manager's environment. The proxy's own address is the administrator's choice and may be private. What
// names resolve to behind it is for the proxy to judge, so that only literal addresses are checked here.
type routes struct {
	policy          Policy
	direct, proxied *http.Transport
}

func newRoutes(policy Policy, p patience) *routes {
	transport := func(dialer *net.Dialer) *http.Transport {
		return &http.Transport{
			DialContext:           dialer.DialContext,
			TLSHandshakeTimeout:   p.connect,
			ResponseHeaderTimeout: p.answer,
			DisableCompression:    true, // the digest is that of the bytes as they are sent
			ForceAttemptHTTP2:     true,
		}
	}
	r := &routes{policy: policy}
	r.direct = transport(&net.Dialer{Timeout: p.connect, Control: policy.guard})
	r.proxied = transport(&net.Dialer{Timeout: p.connect})
	r.proxied.Proxy = http.ProxyFromEnvironment
	return r
}

// RoundTrip asks for one URL.
func (r *routes) RoundTrip(request *http.Request) (*http.Response, error) {
	proxy, err := http.ProxyFromEnvironment(request)
	if err != nil {
		return nil, err
	}
	if proxy == nil {
		return r.direct.RoundTrip(request)
	}
	if addr, err := netip.ParseAddr(request.URL.Hostname()); err == nil {
		if err := r.policy.checkAddr(addr); err != nil {
			return nil, err
		}
	}
	return r.proxied.RoundTrip(request)
}

// CloseIdleConnections closes what is open and not in use.
func (r *routes) CloseIdleConnections() {
	r.direct.CloseIdleConnections()
	r.proxied.CloseIdleConnections()
}

// checkRedirect refuses to follow a redirect to where no image may come from. via are the requests before.
func checkRedirect(policy Policy, to *url.URL, via []*http.Request) error {
	if len(via) > maxRedirects {
		return fail(ReasonDownloadFailed, "it redirects more than %d times", maxRedirects)
	}
	for _, before := range via {
		if before.URL.Scheme == "https" && to.Scheme != "https" {
			return fail(ReasonForbidden, "it redirects from https to %s: let it stay with https", to.Scheme)
		}
	}
	return policy.CheckURL(to.String())
}
