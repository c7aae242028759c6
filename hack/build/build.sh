#!/usr/bin/env bash
# Builds third-party programs from Go modules into the cache.
# Usage: hack/build/build.sh NAME…         make $(hack/build/build.sh --bin-dir)/NAME exist and be up to date
#        hack/build/build.sh --bin-dir     print that directory
#        hack/build/build.sh --list        print the names
#        hack/build/build.sh --keys NAME…  print what identifies their content
#
# A program is keyed by its module's go.mod and go.sum, its package, its flags and the
# Go toolchain, so that what is already there costs nothing. The directory of --bin-dir
# is keyed by all modules together: clones at different versions share a cache without
# meeting each other's programs.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=hack/versions.env
source "$here/../versions.env"
# shellcheck source=hack/build/cache.sh
source "$here/cache.sh"
export GOWORK=off GOFLAGS=-buildvcs=false CGO_ENABLED=0

# Prints the linker's -X settings that give a module's programs their version.
version_flags() {
  local path
  case $1 in
  kubernetes)
    for path in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
      stamp "$path" "$KUBERNETES_VERSION"
    done
    ;;
  capi) stamp sigs.k8s.io/cluster-api/version "$CAPI_VERSION" ;;
  kustomize) echo "-X sigs.k8s.io/kustomize/api/provenance.version=$KUSTOMIZE_VERSION" ;;
  containerd) echo "-X github.com/containerd/containerd/v2/version.Version=${CONTAINERD_VERSION#v}" ;;
  cni) echo "-X github.com/containernetworking/plugins/pkg/utils/buildversion.BuildVersion=$CNI_PLUGINS_VERSION" ;;
  critools) echo "-X sigs.k8s.io/cri-tools/pkg/version.Version=$CRI_TOOLS_VERSION" ;;
  kubevip) echo "-X main.Version=$KUBE_VIP_VERSION" ;;
  calico)
    echo "-X github.com/projectcalico/calico/node/pkg/lifecycle/startup.VERSION=$CALICO_VERSION" \
      "-X github.com/projectcalico/calico/node/buildinfo.GitVersion=$CALICO_VERSION" \
      "-X github.com/projectcalico/calico/felix/buildinfo.GitVersion=$CALICO_VERSION" \
      "-X github.com/projectcalico/calico/cni-plugin/internal/pkg/utils.Version=$CALICO_VERSION" \
      "-X main.VERSION=$CALICO_VERSION"
    ;;
  esac
}

# Prints the settings of a version package in the layout that Kubernetes uses.
stamp() {
  local path=$1 version=$2 major minor
  IFS=. read -r major minor _ <<<"${version#v}"
  echo "-X $path.gitVersion=$version -X $path.gitMajor=$major -X $path.gitMinor=$minor -X $path.gitTreeState=clean"
}

# Prints "MODULE PACKAGE" of a program.
target() {
  awk -v name="$1" '$1 == name {print $2, $3; found = 1} END {exit !found}' "$here/targets.txt" || {
    echo "build.sh: no program is called $1; see build.sh --list" >&2
    return 1
  }
}

# Prints the linker flags of a module's programs.
linker_flags() {
  echo "-s -w $(version_flags "$1")"
}

# Prints the key of a program: a hash of everything that decides its content.
key() {
  local module=$1 package=$2
  {
    toolchain
    echo "$package" "$(linker_flags "$module")"
    cat "$here/$module/go.mod" "$here/$module/go.sum"
  } | sha256sum | cut -c 1-16
}

# Prints the directory in which the programs of this clone's versions appear.
bin_dir() {
  local digest
  digest=$({
    toolchain
    cat "$here"/*/go.mod "$here"/*/go.sum "$here/targets.txt"
  } | sha256sum | cut -c 1-16)
  echo "$CACHE/bin/$digest"
}

# Makes one program exist: in the store under its key, and linked into the bin directory.
build() {
  local name=$1 bin=$2 module package stored started
  read -r module package < <(target "$name")
  stored=$(key "$module" "$package")
  stored=$CACHE/store/$name-$stored
  if [ ! -x "$stored" ]; then
    mkdir -p "$CACHE/store" "$CACHE/lock"
    exec 9>"$CACHE/lock/build-$module"
    flock 9
    if [ ! -x "$stored" ]; then
      started=$SECONDS
      echo "building $name ($package)" >&2
      (cd "$here/$module" && go build -trimpath -ldflags "$(linker_flags "$module")" -o "$stored.$$" "$package")
      mv "$stored.$$" "$stored"
      echo "built $name in $((SECONDS - started)) s" >&2
    fi
    exec 9>&-
  fi
  if [ ! "$bin/$name" -ef "$stored" ]; then
    ln -f "$stored" "$bin/$name.$$"
    mv -f "$bin/$name.$$" "$bin/$name"
  fi
}

main() {
  case ${1:-} in
  --bin-dir) bin_dir ;;
  --list) awk '!/^#/ {print $1}' "$here/targets.txt" ;;
  --keys)
    local name module package
    for name in "${@:2}"; do
      read -r module package < <(target "$name")
      echo "$name $(key "$module" "$package")"
    done
    ;;
  '' | -*)
    sed -n '2,6s/^# //p' "${BASH_SOURCE[0]}" >&2
    return 2
    ;;
  *)
    local name bin
    for name in "$@"; do target "$name" >/dev/null; done
    bin=$(bin_dir)
    mkdir -p "$bin"
    for name in "$@"; do build "$name" "$bin"; done
    ;;
  esac
}

main "$@"
