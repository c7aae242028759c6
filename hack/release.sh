#!/usr/bin/env bash
# Writes a release into a directory, as clusterctl reads it: components, cluster templates, the ClusterClass,
# metadata.
# Usage: VERSION=v0.1.0 IMAGE=registry/name KUSTOMIZE=path hack/release.sh DIRECTORY
set -euo pipefail

: "${VERSION:?}" "${IMAGE:?}" "${KUSTOMIZE:?}"
out=${1:?the directory to write to}
cd "$(dirname "${BASH_SOURCE[0]}")/.."
mkdir -p "$out"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Prints a ConfigMap whose only entry is the given file. clusterctl replaces variables everywhere in a template, so a
# dollar sign that is meant as one is written twice: with the third argument `variables` those before a brace aren't.
config_map() {
  local name=$1 file=$2 dollars='s/\$/$$/g'
  if [ "${3:-}" = variables ]; then dollars='s/\$\([^{]\)/$$\1/g'; fi
  cat <<END
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: $name
  namespace: \${NAMESPACE}
  labels:
    cluster.x-k8s.io/cluster-name: \${CLUSTER_NAME}
data:
  $(basename "$file"): |
END
  sed -e "$dollars" -e 's/^\(.\)/    \1/' "$file"
}

# Prints what puts an addon that is a Calico on a cluster. The definitions go to a ConfigMap of their own, because
# `kubectl apply` writes each object into an annotation of at most 256 KiB once more.
calico() {
  hack/build/manifest.sh "$1" "$work/all.yaml"
  awk -v RS='(^|\n)---\n' -v crds="$work/crds.yaml" -v rest="$work/calico.yaml" '
    /[^[:space:]]/ {
      file = $0 ~ /(^|\n)kind: CustomResourceDefinition(\n|$)/ ? crds : rest
      print "---\n" $0 > file
    }' "$work/all.yaml"
  cat templates/calico.yaml
  # shellcheck disable=SC2016 # clusterctl replaces the variable.
  config_map '${CLUSTER_NAME}-calico-crds' "$work/crds.yaml"
  # shellcheck disable=SC2016
  config_map '${CLUSTER_NAME}-calico' "$work/calico.yaml"
}

# Prints what puts a site on a cluster: an addon that is a MetalLB with the files that set it up, the two ways to have an
# NGINX ingress, the web workload.
site() {
  local name
  cat templates/ingress.yaml
  hack/build/manifest.sh "$1" "$work/metallb.yaml"
  # shellcheck disable=SC2016 # clusterctl replaces the variable.
  config_map '${CLUSTER_NAME}-metallb' "$work/metallb.yaml"
  for name in "${@:2}"; do
    echo ---
    cat "templates/site/$name.yaml"
  done >"$work/metallb-pools.yaml"
  # shellcheck disable=SC2016
  config_map '${CLUSTER_NAME}-metallb-pools' "$work/metallb-pools.yaml" variables
  for name in ingress-service nginx-ingress plain-nginx web; do
    config_map "\${CLUSTER_NAME}-$name" "templates/site/$name.yaml" variables
  done
}

# Prints the cluster of templates/cluster.yaml with the labels by which its site is chosen, and with a certificate that
# is good for the address by which it is reached from outside.
cluster_with_site() {
  sed -e '/^    cni: /r templates/site/labels.yaml' -e '/^    clusterConfiguration:/r templates/site/cert-sans.yaml' \
    templates/cluster.yaml >"$work/cluster.yaml"
  if [ "$(diff templates/cluster.yaml "$work/cluster.yaml" | grep -c '^>')" -ne 5 ]; then
    echo "release.sh: templates/cluster.yaml doesn't have the lines after which a flavor with a site adds its own" >&2
    exit 1
  fi
  cat "$work/cluster.yaml"
}

# Prints the cluster of templates/cluster.yaml with its workers at the first site, and those of the second.
cluster_on_sites() {
  # shellcheck disable=SC2016 # clusterctl replaces the variable.
  sed -e '/^      version: /a\      failureDomain: ${LIBVIRT_HOST_NAME:=kvm1}' templates/cluster.yaml >"$work/cluster.yaml"
  if [ "$(diff templates/cluster.yaml "$work/cluster.yaml" | grep -c '^>')" -ne 1 ]; then
    echo "release.sh: templates/cluster.yaml doesn't have the line after which the flavor two-sites adds its own" >&2
    exit 1
  fi
  cat "$work/cluster.yaml"
  echo ---
  cat templates/second-site.yaml
}

# Prints Calico with the MTU of pods on two sites instead of the one that it finds by itself.
calico_on_sites() {
  # shellcheck disable=SC2016 # clusterctl replaces the variable.
  sed -e 's/^\( *veth_mtu: \)"0"$/\1"${LIBVIRT_POD_MTU:=1370}"/' "$work/cni.yaml" >"$work/cni-on-sites.yaml"
  if [ "$(diff "$work/cni.yaml" "$work/cni-on-sites.yaml" | grep -c '^>')" -ne 1 ]; then
    echo "release.sh: Calico's manifest doesn't have the line veth_mtu: \"0\", which the flavor two-sites replaces" >&2
    exit 1
  fi
  cat "$work/cni-on-sites.yaml"
}

# Prints the components of an installation with the release's image.
components() {
  "$KUSTOMIZE" build "$1" | sed "s|image: $IMAGE:dev|image: $IMAGE:$VERSION|" >"$work/components.yaml"
  grep -q "image: $IMAGE:$VERSION" "$work/components.yaml" || {
    echo "release.sh: config/manager/manager.yaml doesn't use the image $IMAGE:dev" >&2
    exit 1
  }
  cat "$work/components.yaml"
}

components config/default >"$out/infrastructure-components.yaml"
components config/namespaced >"$out/infrastructure-components-namespaced.yaml"
cp metadata.yaml "$out/metadata.yaml"

calico calico >"$work/cni.yaml"
{
  calico calico-bgp
  echo ---
  cat templates/calico-bgp.yaml
} >"$work/cni-bgp.yaml"

site metallb metallb-pools metallb-l2 >"$work/site.yaml"
site metallb-controller metallb-pools >"$work/site-bgp.yaml"
cluster_with_site >"$work/cluster-with-site.yaml"

# Prints the parts of a cluster template, and Calico after them.
template() {
  for part in "$@"; do
    cat "templates/$part.yaml"
    echo ---
  done
  cat "$work/cni.yaml"
}

# Prints a cluster template with a site, the kind of which is in the names of what was made for it.
template_with_site() {
  cat templates/host.yaml
  echo ---
  cat templates/network-gateway.yaml
  for part in "cni$1" cluster-with-site "site$1"; do
    echo ---
    cat "$work/$part.yaml"
  done
}

template host network-managed cluster >"$out/cluster-template.yaml"
template network-managed cluster >"$out/cluster-template-existing-hosts.yaml"
template network-bridge cluster >"$out/cluster-template-bridge.yaml"
template_with_site "" >"$out/cluster-template-metallb-nginx.yaml"
template_with_site -bgp >"$out/cluster-template-calico-bgp.yaml"
{
  cat templates/network-sites.yaml
  echo ---
  cluster_on_sites
  echo ---
  calico_on_sites
} >"$out/cluster-template-two-sites.yaml"
template host topology >"$out/cluster-template-topology.yaml"
template host network-managed cluster-flatcar >"$out/cluster-template-flatcar.yaml"
cp templates/clusterclass.yaml "$out/clusterclass-libvirt.yaml"
