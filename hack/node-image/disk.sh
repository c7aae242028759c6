#!/usr/bin/env bash
# Turns a directory tree into a qcow2 disk that boots by itself with a PC BIOS.
# Usage: hack/node-image/disk.sh TREE SIZE OUT.qcow2   (SIZE as truncate takes it)
set -euo pipefail

tree=$1 size=$2 out=$3
work=$(mktemp -d -p "$(dirname "$out")")
trap 'mountpoint -q "$work/mnt" && umount "$work/mnt"; rm -rf "$work"' EXIT
raw=$work/disk.raw
mib=$((1024 * 1024))

kernel=$(find "$tree/boot" -name 'vmlinuz-*' -printf '%f\n' | sort -V | tail -n 1)
mkdir -p "$tree/boot/extlinux"
# tsc=reliable: an emulated AMD processor does not promise a constant TSC, and without it
# every look at the clock leaves the guest for the HPET.
# highres=off nohz=off: a plain 250 Hz tick instead of a timer set anew for every short
# sleep; under emulation each setting is a trip out of the guest.
# no5lvl: five levels of page tables only make emulated memory slower.
# mitigations=off: what they cost is multiplied by emulation, which has nothing to speculate
# about; these guests are throw-away ones.
cat >"$tree/boot/extlinux/extlinux.conf" <<CONFIG
default linux
prompt 0
timeout 0
label linux
  linux /boot/$kernel
  initrd /boot/initrd.img-${kernel#vmlinuz-}
  append root=LABEL=root rw console=tty0 console=ttyS0,115200 net.ifnames=0 tsc=reliable highres=off nohz=off no5lvl mitigations=off quiet
CONFIG

truncate -s "$size" "$raw"
sfdisk -q "$raw" <<<'label: dos
start=2048, type=83, bootable'
# extlinux reads neither 64-bit block numbers nor a metadata checksum seed.
mke2fs -q -t ext4 -L root -O '^64bit,^metadata_csum_seed' -E "offset=$mib,nodiscard" -d "$tree" \
  "$raw" "$((($(stat -c %s "$raw") - mib) / 1024))k"

mkdir "$work/mnt"
mount -o "loop,offset=$mib" "$raw" "$work/mnt"
extlinux --install "$work/mnt/boot/extlinux" >&2
umount "$work/mnt"
dd if=/usr/lib/EXTLINUX/mbr.bin of="$raw" bs=440 count=1 conv=notrunc status=none

qemu-img convert -O qcow2 "$raw" "$out"
