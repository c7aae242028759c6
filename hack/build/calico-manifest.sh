#!/usr/bin/env bash
# Writes Calico's manifest for VXLAN without BGP, made from the one in Calico's module.
# Usage: hack/build/calico-manifest.sh OUT.yaml
#
# The pod CIDR is kubeadm's podSubnet, which calico-node reads itself; the MTU is
# detected from the node's interface unless the ConfigMap's veth_mtu says otherwise.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
out=$1
export GOWORK=off GOFLAGS=-buildvcs=false

"$here/build.sh" kustomize
kustomize=$("$here/build.sh" --bin-dir)/kustomize
module=$(cd "$here/calico" && go mod download -json github.com/projectcalico/calico | jq -r .Dir)

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# kustomize reads nothing outside its directory.
cp "$here/calico-manifest/"*.yaml "$work"
install -m 644 "$module/manifests/calico-vxlan.yaml" "$work/calico.yaml"
mkdir -p "$(dirname "$out")"
"$kustomize" build "$work" >"$work/out"
install -m 644 "$work/out" "$out"
