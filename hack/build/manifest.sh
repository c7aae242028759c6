#!/usr/bin/env bash
# Writes an addon's manifest, made from the one in its module.
# Usage: hack/build/manifest.sh NAME OUT.yaml   (calico: VXLAN without BGP; metallb: layer 2 without FRR)
#
# Calico's pod CIDR is kubeadm's podSubnet, which calico-node reads itself; its MTU is
# detected from the node's interface unless the ConfigMap's veth_mtu says otherwise.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
name=${1:?the addon} out=${2:?the file to write}
export GOWORK=off GOFLAGS=-buildvcs=false

case $name in
calico) module=github.com/projectcalico/calico file=manifests/calico-vxlan.yaml ;;
metallb) module=go.universe.tf/metallb file=config/manifests/metallb-native.yaml ;;
*)
  echo "manifest.sh: unknown addon $name; the addons are calico and metallb" >&2
  exit 1
  ;;
esac

"$here/build.sh" kustomize
kustomize=$("$here/build.sh" --bin-dir)/kustomize
directory=$(cd "$here/$name" && go mod download -json "$module" | jq -r .Dir)

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# kustomize reads nothing outside its directory.
cp "$here/manifests/$name/"*.yaml "$work"
install -m 644 "$directory/$file" "$work/$name.yaml"
mkdir -p "$(dirname "$out")"
"$kustomize" build "$work" >"$work/out"
install -m 644 "$work/out" "$out"
