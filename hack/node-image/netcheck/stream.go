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

package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
)

// get copies the body of a successful answer to out, or tells how long it was.
func get(ctx context.Context, url string, count bool, out io.Writer) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if !count {
		if _, err := io.Copy(out, response.Body); err != nil {
			return fmt.Errorf("reading the answer of %s: %w", url, err)
		}
		return nil
	}
	meter := newMeter()
	if _, err := io.Copy(meter, response.Body); err != nil {
		return fmt.Errorf("reading the answer of %s: %w after %s", url, err, meter)
	}
	_, err = fmt.Fprintln(out, meter)
	return err
}

// put sends a number of bytes and copies to out what the other side says of them.
func put(ctx context.Context, url string, length int64, out io.Writer) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPut, url, io.LimitReader(zeros{}, length))
	if err != nil {
		return err
	}
	request.ContentLength = length
	response, err := do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if _, err := io.Copy(out, response.Body); err != nil {
		return fmt.Errorf("reading the answer of %s: %w", url, err)
	}
	return nil
}

func do(request *http.Request) (*http.Response, error) {
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		response.Body.Close()
		return nil, fmt.Errorf("asking %s: the answer was %s", request.URL, response.Status)
	}
	return response, nil
}

// lookUp asks a DNS server for the addresses of a name, by TCP.
func lookUp(ctx context.Context, server, name string, out io.Writer) error {
	resolver := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", server)
	}}
	addresses, err := resolver.LookupHost(ctx, name)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "%d addresses\n", len(addresses))
	return err
}
