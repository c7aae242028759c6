#!/usr/bin/env bash
# Writes an addon's manifest, made from the one in its module.
# Usage: hack/build/manifest.sh NAME OUT.yaml
#   calico              VXLAN without BGP
#   calico-bgp          BGP by BIRD without encapsulation
#   metallb             layer 2 without FRR
#   metallb-controller  the same without the speaker: it only assigns addresses
#
# Calico's pod CIDR is kubeadm's podSubnet, which calico-node reads itself; its MTU is
# detected from the node's interface unless the ConfigMap's veth_mtu says otherwise.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
name=${1:?the addon} out=${2:?the file to write}
export GOWORK=off GOFLAGS=-buildvcs=false

# What an addon is made from: its own patches, on top of those of the addon before the dash.
base=${name%%-*}
case $name in
calico) module=github.com/projectcalico/calico file=manifests/calico-vxlan.yaml ;;
calico-bgp) module=github.com/projectcalico/calico file=manifests/calico.yaml ;;
metallb | metallb-controller) module=go.universe.tf/metallb file=config/manifests/metallb-native.yaml ;;
*)
  echo "manifest.sh: unknown addon $name; the addons are calico, calico-bgp, metallb and metallb-controller" >&2
  exit 1
  ;;
esac

"$here/build.sh" kustomize
kustomize=$("$here/build.sh" --bin-dir)/kustomize
source=$(cd "$here/$base" && go mod download -json "$module" | jq -r .Dir)

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for directory in "$base" "$name"; do cp -rT "$here/manifests/$directory" "$work/$directory"; done
# Among the patches, because kustomize reads nothing outside its directory.
install -m 644 "$source/$file" "$work/$base/$base.yaml"
mkdir -p "$(dirname "$out")"
"$kustomize" build "$work/$name" >"$work/out"
install -m 644 "$work/out" "$out"
