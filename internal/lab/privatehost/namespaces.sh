# shellcheck shell=sh
# Turns the fresh namespaces it was started in into those of a private host,
# says "ready", and then does nothing but keep them (as their process 1).
#
# usage: sh -c "$script" sh DIR NAME HOLD
set -eu
dir=$1 name=$2 hold=$3

mount --make-rprivate /
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount --bind "$dir/hosts" /etc/hosts
if [ -e /etc/resolv.conf ]; then
	mount --bind "$dir/resolv.conf" /etc/resolv.conf
fi
mount --bind "$dir/etc" /etc/libvirt
mount --bind "$dir/log" /var/log/libvirt
mount --bind "$dir/cache" /var/cache/libvirt
mount --bind "$dir/lib" /var/lib/libvirt
# Last: DIR itself may be below /run.
mount --bind "$dir/run" /run

hostname "$name"
ip link set lo up
echo ready
exec >/dev/null 2>&1
# A process 1 that ignores SIGCHLD leaves no zombies: the kernel reaps orphans.
# "parent" reads until its parent has gone, however it went.
case $hold in
parent) exec env --ignore-signal=CHLD cat ;;
*) exec env --ignore-signal=CHLD sleep infinity ;;
esac
