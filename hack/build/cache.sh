# Sourced by the build scripts: where the cache is, and which toolchain fills it.
# shellcheck shell=bash

# The cache lives outside the clone, so that a fresh clone reuses what is there.
# shellcheck disable=SC2034 # Used by whoever sources this.
CACHE=${CAPL_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/cluster-api-provider-libvirt}

# Prints the Go toolchain and platform, which are part of every key.
toolchain() {
  go env GOVERSION GOOS GOARCH | paste -sd ' '
}
