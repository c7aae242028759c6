#!/usr/bin/env bash
# Writes a tar of a Debian tree with the packages of packages/NAME.txt.
# Usage: hack/node-image/debian.sh machine|container OUT.tar
#
# Packages come from wherever this machine's own apt gets them.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=hack/versions.env
source "$here/../versions.env"
name=$1 out=$2

# Prints sources.list lines for the suite from this machine's configuration; nothing on
# a machine of another suite, where mmdebstrap's own default is used.
# shellcheck disable=SC2016
sources() {
  apt-get indextargets --format 'deb $(REPO_URI) $(RELEASE) $(COMPONENT)' \
    'Created-By: Packages' 'Origin: Debian' 'Component: main' |
    grep -E " $DEBIAN_SUITE(-security|-updates)? " | sort -u
}

# Prints this machine's proxy settings as mmdebstrap options.
proxies() {
  apt-config dump --format='--aptopt=%f "%v"%n' Acquire::http Acquire::https | grep -i proxy
}

options=(
  --format=tar
  --include="$(grep -v '^#' "$here/packages/$name.txt" | paste -sd ,)"
  --aptopt='Apt::Install-Recommends "false"'
  --dpkgopt='path-exclude=/usr/share/man/*'
  --dpkgopt='path-exclude=/usr/share/info/*'
  --dpkgopt='path-exclude=/usr/share/locale/*'
  --dpkgopt='path-exclude=/usr/share/doc/*'
  --dpkgopt='path-include=/usr/share/doc/*/copyright'
)
case $name in
# The settings must be there before the kernel's package makes its initrd.
machine) options+=(--variant=minbase --essential-hook="cp -a '$here'/rootfs/initramfs/. \"\$1\"") ;;
container) options+=(--variant=essential) ;;
*)
  echo "debian.sh: unknown tree $name; the trees are machine and container" >&2
  exit 1
  ;;
esac
# Device nodes and what differs between two runs have no place in the tree.
# shellcheck disable=SC2016
options+=(
  --skip=output/dev
  --customize-hook='rm -rf "$1"/etc/apt/sources.list "$1"/etc/ssh/ssh_host_* "$1"/var/log/*.log "$1"/var/log/apt "$1"/var/cache/ldconfig/*'
  --customize-hook=': >"$1"/etc/machine-id; rm -f "$1"/var/lib/dbus/machine-id "$1"/etc/resolv.conf'
)
mapfile -t -O "${#options[@]}" options < <(proxies || true)

mirrors=$(sources || true)
mmdebstrap "${options[@]}" "$DEBIAN_SUITE" "$out" ${mirrors:+-} <<<"$mirrors" >&2
