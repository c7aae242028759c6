#!/usr/bin/env bash
# Writes Calico's own manifest for VXLAN, as the pinned module has it, to a file.
# Usage: hack/build/calico-manifest.sh FILE
set -euo pipefail

file=$(realpath -m "${1:?the file to write}")
cd "$(dirname "${BASH_SOURCE[0]}")/calico"
export GOWORK=off GOFLAGS=-buildvcs=false
module=github.com/projectcalico/calico
go mod download "$module"
install -m 0644 "$(go list -m -f '{{.Dir}}' "$module")/manifests/calico-vxlan.yaml" "$file"
