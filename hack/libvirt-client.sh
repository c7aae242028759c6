#!/usr/bin/env bash
# Puts a libvirt client library into the cache where that of the system is older than 10.3, which can crash the process
# when a connection breaks under several calls (CVE-2024-4418). On Debian 12 it comes from its backports; the daemon
# stays as it is. The directory that PKG_CONFIG_PATH has to name is CACHE/libvirt-client.
# Usage: hack/libvirt-client.sh
set -euo pipefail

# shellcheck source=hack/build/cache.sh
source "$(dirname "${BASH_SOURCE[0]}")/build/cache.sh"
target=$CACHE/libvirt-client
safe=10.3

PKG_CONFIG_PATH=$target pkg-config --atleast-version="$safe" libvirt && exit 0
# shellcheck source=/dev/null
[ -r /etc/os-release ] && source /etc/os-release
if [ "${VERSION_CODENAME:-}" != bookworm ]; then
  echo "libvirt-client.sh: libvirt's client library is older than $safe, and where a later one comes from on this system isn't known: going on with it" >&2
  exit 0
fi

mkdir -p "$CACHE"
work=$(mktemp -d "$CACHE/libvirt-client.XXXXXX")
trap 'rm -rf "$work"' EXIT

# The archive that this machine uses, and a state of apt's own, so that nothing else is installed from backports.
fetch() {
  local archive
  # shellcheck disable=SC2016 # apt expands it.
  archive=$(apt-get indextargets --format '$(REPO_URI)' 'Codename: bookworm' 'Created-By: Packages' | awk 'NR == 1')
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $archive bookworm-backports main" >"$work/sources.list"
  local options=(-q -o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts=- -o Dir::State::lists="$work/lists"
    -o Dir::Cache="$work/archives" -o APT::Sandbox::User=root)
  mkdir -p "$work/lists/partial" "$work/archives/partial" "$work/packages"
  apt-get "${options[@]}" update && (cd "$work/packages" && apt-get "${options[@]}" download libvirt0 libvirt-dev)
}
if ! fetch; then
  echo "libvirt-client.sh: no libvirt $safe or later from Debian's backports: going on with the system's" >&2
  exit 0
fi
for package in "$work/packages"/*.deb; do
  dpkg-deb -x "$package" "$work/root"
done
libraries=usr/lib/$(gcc -print-multiarch)
if ldd "$work/root/$libraries/libvirt.so.0" | grep -F 'not found' >&2; then
  echo "libvirt-client.sh: the above is missing for libvirt's client library from Debian's backports: going on with the system's" >&2
  exit 0
fi
for file in "$work/root/$libraries/pkgconfig"/*.pc; do
  # Programs find it when they run, too.
  # shellcheck disable=SC2016 # pkg-config expands it.
  sed -e "s|^prefix=.*|prefix=$target/root/usr|; s|^libdir=.*|libdir=$target/root/$libraries|; s|^includedir=.*|includedir=$target/root/usr/include|" \
    -e 's|^Libs: |Libs: -Wl,-rpath,${libdir} |' "$file" >"$work/$(basename "$file")"
done
rm -rf "$work/lists" "$work/archives" "$work/packages" "$work/sources.list" "$target"
chmod 755 "$work"
mv -T "$work" "$target" || true # another clone was faster
PKG_CONFIG_PATH=$target pkg-config --atleast-version="$safe" libvirt
