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

package quickstart

import (
	"fmt"
	"io"
	"time"
)

// printer writes what happens, each line with the time since the start.
type printer struct {
	out   io.Writer
	start time.Time
	last  string
}

func newPrinter(out io.Writer) *printer {
	return &printer{out: out, start: time.Now()}
}

// step runs one of several steps and says how long it took.
func (p *printer) step(number, of int, name string, run func() error) error {
	began := time.Now()
	p.line("[%d/%d] %s", number, of, name)
	if err := run(); err != nil {
		return err
	}
	p.line("[%d/%d] %s: done in %s", number, of, name, time.Since(began).Round(time.Second))
	return nil
}

// say writes a line unless it was the last one already.
func (p *printer) say(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if text != p.last {
		p.line("      %s", text)
		p.last = text
	}
}

func (p *printer) line(format string, args ...any) {
	elapsed := time.Since(p.start)
	fmt.Fprintf(p.out, "%3d:%02d  %s\n", int(elapsed.Minutes()), int(elapsed.Seconds())%60, fmt.Sprintf(format, args...))
}
