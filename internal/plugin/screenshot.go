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
	"fmt"
	"image"
	"image/png"
	"os"

	"github.com/spf13/cobra"
)

func newScreenshotCommand(o *options) *cobra.Command {
	var output string
	command := &cobra.Command{
		Use:   "screenshot MACHINE",
		Short: "Take a picture of a machine's display",
		Long: `Take a picture of the display of a Machine or LibvirtMachine, as a PNG. The display shows what
firmware, boot loader and kernel write to it.`,
		Args: cobra.ExactArgs(1),
		RunE: func(command *cobra.Command, args []string) error {
			return o.run(command.Context(), func(ctx context.Context, s *session) error {
				found, err := s.guest(ctx, args[0])
				if err != nil {
					return err
				}
				mimeType, picture, err := found.host.Screenshot(ctx, found.domain.UUID)
				if err != nil {
					return err
				}
				if picture, err = toPNG(mimeType, picture); err != nil {
					return fmt.Errorf("reading the picture of %s: %w", found.domain.Name, err)
				}
				if output == "-" {
					_, err = s.Out.Write(picture)
					return err
				}
				if output == "" {
					output = args[0] + ".png"
				}
				if err := os.WriteFile(output, picture, 0o644); err != nil { //nolint:gosec // A picture is for everybody whom the directory is for.
					return fmt.Errorf("writing the picture: %w", err)
				}
				fmt.Fprintln(s.Out, output)
				return nil
			})
		},
	}
	command.Flags().StringVarP(&output, "output", "o", "", "File to write, - for the standard output (default MACHINE.png)")
	return command
}

// toPNG makes a PNG of a picture as a host sends it.
func toPNG(mimeType string, picture []byte) ([]byte, error) {
	var decoded image.Image
	var err error
	switch mimeType {
	case "image/png":
		decoded, err = png.Decode(bytes.NewReader(picture))
	case "image/x-portable-pixmap":
		decoded, err = decodePPM(picture)
	default:
		err = fmt.Errorf("the host sends it as %s, which isn't known here", mimeType)
	}
	if err != nil {
		return nil, err
	}
	var encoded bytes.Buffer
	if err := png.Encode(&encoded, decoded); err != nil {
		return nil, fmt.Errorf("encoding the PNG: %w", err)
	}
	return encoded.Bytes(), nil
}
