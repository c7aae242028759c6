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

package plugin

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"
	"libvirt.org/go/libvirtxml"

	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/host"
)

const (
	// escape is what ends the session: Ctrl and ].
	escape = 0x1d
	// maxLogBytes bounds the log that is shown.
	maxLogBytes = 64 << 20
)

func newConsoleCommand(o *options) *cobra.Command {
	var log, force bool
	command := &cobra.Command{
		Use:   "console MACHINE",
		Short: "Open the serial console of a machine",
		Long: `Open the serial console of a Machine or LibvirtMachine, live. Ctrl+] ends it.
With --log, print what the console wrote so far instead.`,
		Args: cobra.ExactArgs(1),
		RunE: func(command *cobra.Command, args []string) error {
			return o.run(command.Context(), func(ctx context.Context, s *session) error {
				found, err := s.guest(ctx, args[0])
				if err != nil {
					return err
				}
				if log {
					return s.consoleLog(ctx, found)
				}
				return s.console(ctx, found, force)
			})
		},
	}
	command.Flags().BoolVar(&log, "log", false, "Print what the console wrote so far")
	command.Flags().BoolVar(&force, "force", false, "Take the console away from who has it open")
	return command
}

// console connects the terminal with the console.
func (s *session) console(ctx context.Context, g *guest, force bool) error {
	if g.domain.State != host.Running && g.domain.State != host.Paused {
		return fmt.Errorf("the domain %s is %s and has no console: --log prints what it wrote before", g.domain.Name, g.domain.State)
	}
	console, err := g.host.OpenConsole(ctx, g.domain.UUID, force)
	if err != nil {
		return err
	}
	defer console.Close()
	fmt.Fprintf(s.ErrOut, "Connected to %s. Ctrl+] ends it.\n", g.domain.Name)
	if terminal, ok := s.In.(*os.File); ok && term.IsTerminal(int(terminal.Fd())) {
		before, err := term.MakeRaw(int(terminal.Fd()))
		if err != nil {
			return fmt.Errorf("setting the terminal to raw mode: %w", err)
		}
		defer func() {
			_ = term.Restore(int(terminal.Fd()), before)
			fmt.Fprintln(s.ErrOut)
		}()
	}
	return attach(ctx, console, s.In, s.Out)
}

// errStopped means that the guest closed its end.
var errStopped = errors.New("the console was closed: the guest was stopped, or somebody else took the console")

// attach connects a console with input and output until the escape character comes in or ctx ends. Input that ends leaves
// the output going.
func attach(ctx context.Context, console io.ReadWriteCloser, in io.Reader, out io.Writer) error {
	shown, typed := make(chan error, 1), make(chan error, 1)
	go func() {
		_, err := io.Copy(out, console)
		if err == nil {
			err = errStopped
		}
		shown <- err
	}()
	// A read of the terminal can't be interrupted: this may be left behind when the guest ends the session.
	go func() { typed <- forward(console, in) }()
	for {
		select {
		case err := <-shown:
			return err
		case err := <-typed:
			if !errors.Is(err, io.EOF) {
				return errors.Join(err, console.Close())
			}
			typed = nil
		case <-ctx.Done():
			return console.Close()
		}
	}
}

// forward writes what is typed to a console. It returns nil at the escape character, and io.EOF at the end of the input.
func forward(console io.Writer, in io.Reader) error {
	buffer := make([]byte, 1024)
	for {
		n, err := in.Read(buffer)
		keys, _, escaped := bytes.Cut(buffer[:n], []byte{escape})
		if len(keys) > 0 {
			if _, err := console.Write(keys); err != nil {
				return fmt.Errorf("writing to the console: %w", err)
			}
		}
		if escaped || err != nil {
			if escaped {
				return nil
			}
			return err
		}
	}
}

// consoleLog prints the log of the console, if libvirt gives it away.
func (s *session) consoleLog(ctx context.Context, g *guest) error {
	document, err := g.host.DomainXML(ctx, g.domain.UUID)
	if err != nil {
		return err
	}
	file, err := logFile(document)
	if err != nil {
		return fmt.Errorf("looking for the log of domain %s: %w", g.domain.Name, err)
	}
	err = g.host.DownloadFile(ctx, file, s.Out, maxLogBytes)
	if errors.Is(err, host.ErrNotFound) {
		return fmt.Errorf("%w: read %s on the host %s, or make its directory a storage pool there, once: "+
			"virsh pool-define-as console-logs dir --target /var/log/libvirt/qemu && virsh pool-start console-logs", err, file, g.machine.Spec.HostName)
	}
	return err
}

// logFile is where the serial console of a domain is logged to.
func logFile(document string) (string, error) {
	var dom libvirtxml.Domain
	if err := dom.Unmarshal(document); err != nil {
		return "", fmt.Errorf("parsing the domain: %w", err)
	}
	if dom.Devices != nil {
		for _, serial := range dom.Devices.Serials {
			if serial.Log != nil && serial.Log.File != "" {
				return serial.Log.File, nil
			}
		}
	}
	return "", errors.New("its serial console has none")
}
