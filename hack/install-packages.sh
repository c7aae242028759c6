#!/usr/bin/env bash
# Installs the Debian packages that a purpose needs, and does nothing when they are there.
# Usage: hack/install-packages.sh PURPOSE…   (build, libvirt, image, test, bgp, verify)
set -euo pipefail

packages_for() {
  case $1 in
  # cgo against libvirt, and what the build scripts call
  build) echo gcc libc6-dev pkg-config libvirt-dev libjson-c5 jq ;;
  # a private libvirtd with software emulation, a managed network, and a way to what is in it
  libvirt) echo libvirt-daemon libvirt-daemon-system libvirt-clients libvirt-daemon-driver-qemu qemu-system-x86 qemu-utils ovmf swtpm swtpm-tools dnsmasq-base iproute2 iptables nftables socat util-linux ;;
  # node images: the Debian tree, the disk, the boot loader
  image) echo mmdebstrap debian-archive-keyring extlinux syslinux-common dosfstools mtools e2fsprogs fdisk qemu-utils jq ;;
  # what tests call besides libvirt: seeds are read back, nodes are asked over ssh, libvirt is reached through it, images
  # are packed, a server is forwarded to
  test) echo xorriso openssh-client openssh-server iproute2 nftables procps xz-utils python3 ;;
  # the router of a host, for its test
  bgp) echo bird2 ;;
  # what checks the sources
  verify) echo git shellcheck ;;
  *)
    echo "install-packages.sh: unknown purpose $1; the purposes are build, libvirt, image, test, bgp and verify" >&2
    return 1
    ;;
  esac
}

installed() {
  [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

if [ $# -eq 0 ]; then
  echo "usage: hack/install-packages.sh PURPOSE… (build, libvirt, image, test, bgp, verify)" >&2
  exit 2
fi

missing=()
for purpose in "$@"; do
  packages=$(packages_for "$purpose")
  for package in $packages; do
    installed "$package" || missing+=("$package")
  done
done
if [ ${#missing[@]} -eq 0 ]; then
  exit 0
fi
if [ "$(id -u)" -ne 0 ]; then
  echo "install-packages.sh: run as root, or install these first: ${missing[*]}" >&2
  exit 1
fi

export DEBIAN_FRONTEND=noninteractive
# Services must not start by themselves on a machine that only builds and tests.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod +x "$policy"
  trap 'rm -f "$policy"' EXIT
fi
apt-get update -q
apt-get install -q -y --no-install-recommends -o DPkg::Lock::Timeout=300 "${missing[@]}"
