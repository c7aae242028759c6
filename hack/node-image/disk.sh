#!/usr/bin/env bash
# Turns a directory tree into a qcow2 disk that boots by itself: with a PC BIOS, by UEFI, and with Secure Boot.
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
initrd=initrd.img-${kernel#vmlinuz-}
arguments="root=LABEL=root rw console=tty0 console=ttyS0,115200 net.ifnames=0 tsc=reliable highres=off nohz=off no5lvl mitigations=off quiet"
cat >"$tree/boot/extlinux/extlinux.conf" <<CONFIG
default linux
prompt 0
timeout 0
label linux
  linux /boot/$kernel
  initrd /boot/$initrd
  append $arguments
CONFIG

# UEFI finds its boot loader by name on a FAT partition. Secure Boot trusts shim, which
# Microsoft signed; shim trusts GRUB and the kernel, which Debian signed.
cat >"$work/grub.cfg" <<CONFIG
search --no-floppy --set=root --label root
linux /boot/$kernel $arguments
initrd /boot/$initrd
boot
CONFIG
efi_mib=16
mkfs.vfat -C -F 16 -s 1 -n EFI "$work/efi" "$((efi_mib * 1024))" >/dev/null
mmd -i "$work/efi" ::/EFI ::/EFI/BOOT ::/EFI/debian
mcopy -i "$work/efi" "$tree/usr/lib/shim/shimx64.efi.signed" ::/EFI/BOOT/BOOTX64.EFI
mcopy -i "$work/efi" "$tree/usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed" ::/EFI/BOOT/grubx64.efi
mcopy -i "$work/efi" "$work/grub.cfg" ::/EFI/debian/grub.cfg

# The root partition is the first by number and the last on the disk, so that it can grow.
root=$(((1 + efi_mib) * mib))
truncate -s "$size" "$raw"
sfdisk -q "$raw" <<PARTITIONS
label: dos
2 : start=1MiB, size=${efi_mib}MiB, type=ef
1 : start=$((1 + efi_mib))MiB, type=83, bootable
PARTITIONS
dd if="$work/efi" of="$raw" bs=1M seek=1 conv=notrunc status=none
# extlinux reads neither 64-bit block numbers nor a metadata checksum seed.
mke2fs -q -t ext4 -L root -O '^64bit,^metadata_csum_seed' -E "offset=$root,nodiscard" -d "$tree" \
  "$raw" "$((($(stat -c %s "$raw") - root) / 1024))k"

mkdir "$work/mnt"
mount -o "loop,offset=$root" "$raw" "$work/mnt"
extlinux --install "$work/mnt/boot/extlinux" >&2
umount "$work/mnt"
dd if=/usr/lib/EXTLINUX/mbr.bin of="$raw" bs=440 count=1 conv=notrunc status=none

qemu-img convert -O qcow2 "$raw" "$out"
