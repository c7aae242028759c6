#!/usr/bin/env bash
# Rewrites go.mod and go.sum of the modules under hack/build from hack/versions.env.
# Usage: hack/build/update.sh [MODULE…]   (default: all of them)
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=hack/versions.env
source "$here/../versions.env"
export GOWORK=off GOFLAGS=-buildvcs=false

# Prints what `replace` must say besides the requirement, one OLD=NEW[@VERSION] per line.
replacements() {
  case $1 in
  kubernetes)
    # Kubernetes replaces its staging modules by directories, which only works inside its own tree.
    local name
    for name in $(upstream_replacements k8s.io/kubernetes@"$KUBERNETES_VERSION"); do
      echo "$name=$name@$KUBERNETES_STAGING_VERSION"
    done
    ;;
  calico)
    local name version
    for name in $(upstream_replacements github.com/projectcalico/calico@"$CALICO_MODULE"); do
      case $name in
      github.com/projectcalico/api) version=$CALICO_API_MODULE ;;
      k8s.io/kubernetes) version=$CALICO_KUBERNETES_VERSION ;;
      k8s.io/*) version=$CALICO_KUBERNETES_STAGING_VERSION ;;
      *) version=$(upstream_version github.com/projectcalico/calico@"$CALICO_MODULE" "$name") ;;
      esac
      echo "$name=$name@$version"
    done
    echo "github.com/Microsoft/hcsshim=github.com/Microsoft/hcsshim@$CALICO_HCSSHIM_MODULE"
    ;;
  esac
}

# Prints the paths that module PATH@VERSION replaces in its own go.mod.
upstream_replacements() {
  go mod edit -json "$(go mod download -json "$1" | jq -r .GoMod)" | jq -r '.Replace[].Old.Path'
}

# Prints the version by which module $1 replaces $2.
upstream_version() {
  go mod edit -json "$(go mod download -json "$1" | jq -r .GoMod)" |
    jq -r --arg path "$2" '.Replace[] | select(.Old.Path == $path) | .New.Version'
}

# Prints the modules that hack/build/MODULE requires directly, one PATH@VERSION per line,
# first the one that holds the packages.
requirements() {
  case $1 in
  kubernetes) echo "k8s.io/kubernetes@$KUBERNETES_VERSION" ;;
  etcd) echo "go.etcd.io/etcd/server/v3@$ETCD_VERSION" ;;
  capi)
    echo "sigs.k8s.io/cluster-api@$CAPI_VERSION"
    echo "sigs.k8s.io/cluster-api/api@$CAPI_VERSION"
    ;;
  kustomize) echo "sigs.k8s.io/kustomize/kustomize/v5@$KUSTOMIZE_VERSION" ;;
  containerd) echo "github.com/containerd/containerd/v2@$CONTAINERD_VERSION" ;;
  coredns) echo "github.com/coredns/coredns@$COREDNS_VERSION" ;;
  cni) echo "github.com/containernetworking/plugins@$CNI_PLUGINS_VERSION" ;;
  critools) echo "sigs.k8s.io/cri-tools@$CRI_TOOLS_VERSION" ;;
  kubevip) echo "github.com/kube-vip/kube-vip@$KUBE_VIP_VERSION" ;;
  calico) echo "github.com/projectcalico/calico@$CALICO_MODULE" ;;
  metallb) echo "go.universe.tf/metallb@$METALLB_VERSION" ;;
  *)
    echo "update.sh: unknown module $1; the modules are those in targets.txt" >&2
    return 1
    ;;
  esac
}

update() {
  local module=$1 line version
  local -a edits=() packages=()
  while read -r line; do edits+=("-require=$line"); done < <(requirements "$module")
  while read -r line; do edits+=("-replace=$line"); done < <(replacements "$module")
  # Without a version `go get` would take the newest one.
  version=$(requirements "$module" | head -n 1 | cut -d @ -f 2)
  mapfile -t packages < <(awk -v m="$module" -v v="$version" '$2 == m {print $3 "@" v}' "$here/targets.txt")

  echo "updating hack/build/$module" >&2
  mkdir -p "$here/$module"
  cd "$here/$module"
  rm -f go.mod go.sum
  go mod init "github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/hack/build/$module"
  go mod edit "${edits[@]}"
  go get -tool "${packages[@]}"
}

modules=("$@")
if [ ${#modules[@]} -eq 0 ]; then
  mapfile -t modules < <(awk '!/^#/ {print $2}' "$here/targets.txt" | sort -u)
fi
for module in "${modules[@]}"; do
  requirements "$module" >/dev/null
  (update "$module")
done
