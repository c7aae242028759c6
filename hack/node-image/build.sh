#!/usr/bin/env bash
# Builds a guest image and prints the path of the finished qcow2 in the cache.
# Usage: hack/node-image/build.sh base    a small Debian: cloud-init, guest agent
#        hack/node-image/build.sh node    a Kubernetes node with all images preloaded
#
# An image is keyed by everything that goes in: versions, scripts, package lists, files
# and programs. One that is already there costs nothing.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=hack/versions.env
source "$here/../versions.env"
# shellcheck source=hack/build/cache.sh
source "$here/../build/cache.sh"
export GOWORK=off GOFLAGS=-buildvcs=false CGO_ENABLED=0
images=$CACHE/node-image

# Programs that run in the guest itself.
node_programs=(kubeadm kubelet kubectl containerd containerd-shim-runc-v2 ctr crictl)
node_cni=(bandwidth bridge firewall host-local loopback portmap tuning)
# Programs that run in its containers.
image_programs=(
  etcd kube-apiserver kube-controller-manager kube-scheduler kube-proxy coredns kube-vip
  calico-node calico-cni calico-cni-install calico-kube-controllers calico-check-status
  metallb-controller metallb-speaker
)
programs=("${node_programs[@]}" "${node_cni[@]/#/cni-}" "${image_programs[@]}")

# Prints a hash of files, directories and strings, each given by its path or as =STRING.
digest() {
  local item
  for item in "$@"; do
    case $item in
    =*) echo "$item" ;;
    *) (cd "$(dirname "$item")" && find "$(basename "$item")" -type f -print0 | sort -z | xargs -0 sha256sum) ;;
    esac
  done | sha256sum | cut -c 1-16
}

# Prints the path of the Debian tree NAME, making it first if need be.
debian() {
  local name=$1 out
  out=$(digest "$here/debian.sh" "$here/packages/$name.txt" "$here/rootfs/initramfs" "=$DEBIAN_SUITE")
  out=$images/debian-$name-$out.tar
  (
    flock 8
    if [ ! -e "$out" ]; then
      echo "making the Debian tree $name" >&2
      "$here/debian.sh" "$name" "$out.$$"
      mv "$out.$$" "$out"
    fi
  ) 8>"$CACHE/lock/debian-$name"
  echo "$out"
}

# Prints the names of the images that a node carries.
image_names() {
  "$bin/kubeadm" config images list --kubernetes-version "$KUBERNETES_VERSION"
  echo "ghcr.io/kube-vip/kube-vip:$KUBE_VIP_VERSION"
  echo "docker.io/calico/node:$CALICO_VERSION"
  echo "docker.io/calico/cni:$CALICO_VERSION"
  echo "docker.io/calico/kube-controllers:$CALICO_VERSION"
  echo "quay.io/metallb/controller:$METALLB_VERSION"
  echo "quay.io/metallb/speaker:$METALLB_VERSION"
  echo "registry.local/capl/nginx:v1"
  echo "registry.local/capl/netcheck:v1"
}

# Fills TREE from the Debian tree and the files of rootfs/base.
base_tree() {
  local tree=$1 unit
  tar -C "$tree" --numeric-owner --xattrs -xpf "$(debian machine)"
  mkdir -p "$tree/dev"
  copy_files base "$tree"
  ln -sf ../run/systemd/resolve/stub-resolv.conf "$tree/etc/resolv.conf"
  # What a guest on a virtual disk, with one serial console, has no use for. cloud-config
  # is a stage of cloud-init that only costs a start of Python: cloud.cfg leaves it empty.
  for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer \
    e2scrub_reap.service systemd-pstore.service systemd-binfmt.service systemd-update-utmp.service \
    getty@tty1.service cloud-config.service cloud-init-hotplugd.socket; do
    ln -sf /dev/null "$tree/etc/systemd/system/$unit"
  done
  for unit in systemd-networkd systemd-resolved; do
    chroot "$tree" systemctl -q enable "$unit.service"
  done
}

# Adds Kubernetes to TREE: programs, units, and a containerd that already has its images.
node_tree() {
  local tree=$1 name
  "$here/../build/build.sh" "${programs[@]}"
  bin=$("$here/../build/build.sh" --bin-dir)
  copy_files node "$tree"
  for name in "${node_programs[@]}"; do install -D "$bin/$name" "$tree/usr/local/bin/$name"; done
  for name in "${node_cni[@]}"; do install -D "$bin/cni-$name" "$tree/opt/cni/bin/$name"; done
  sed -i "s|@PAUSE_IMAGE@|$(image_names | grep /pause:)|" "$tree/etc/containerd/config.toml"
  chroot "$tree" systemctl -q enable containerd.service kubelet.service
  preload "$tree"
}

copy_files() {
  cp -a --no-preserve=ownership "$here/rootfs/$1/." "$2"
}

# Writes Calico's templates of BIRD's configuration to DIRECTORY, adapted to Debian's BIRD. Calico has a fork of its own,
# which knows krt_tunnel: the tunnel of IPIP that a route leads into. Without IPIP that is empty, and goes. With IPIP it
# stays, and BIRD refuses the configuration.
# shellcheck disable=SC2016 # The template's own variables.
bird_templates() {
  local module=$1 directory=$2 template=$2/templates/bird_ipam.cfg.template
  mkdir "$directory"
  cp -r --no-preserve=mode "$module"/confd/etc/calico/confd/{conf.d,templates} "$directory"
  sed -i -e 's/krt_tunnel = "{{$data.ipip}}";/{{if $data.ipip}}&{{end}}/' \
    -e '1i # Adapted to a BIRD without krt_tunnel, see bird_templates in hack/node-image/build.sh.' "$template"
  if [ "$(grep -c '{{if $data.ipip}}krt_tunnel' "$template")" -ne 3 ]; then
    echo "build.sh: $CALICO_VERSION sets krt_tunnel otherwise than bird_templates expects it" >&2
    return 1
  fi
}

# Imports the images into a containerd whose root is inside TREE.
preload() {
  local tree=$1 pid name module ctr
  mkdir "$work/bin"
  for name in "${programs[@]}"; do ln -s "$bin/$name" "$work/bin/$name"; done
  for name in pause netcheck; do
    (cd "$here" && go build -trimpath -ldflags '-s -w' -o "$work/bin/$name" "./$name")
  done
  module=$(cd "$here/../build/calico" && go mod download -json github.com/projectcalico/calico | jq -r .Dir)
  bird_templates "$module" "$work/confd"
  image_names | (cd "$here" && xargs go run ./images -bin "$work/bin" -netbase "$(debian container)" \
    -calico-filesystem "$module/node/filesystem" -calico-confd "$work/confd" -out "$work/images.tar")

  "$bin/containerd" --config /dev/null --root "$tree/var/lib/containerd" --state "$work/state" \
    --address "$work/containerd.sock" >"$work/containerd.log" 2>&1 &
  pid=$!
  ctr="$bin/ctr --address $work/containerd.sock --namespace k8s.io"
  if ! timeout 60 bash -c "until $ctr version >/dev/null 2>&1; do sleep 0.2; done" ||
    ! $ctr images import --local --snapshotter overlayfs "$work/images.tar" >&2; then
    cat "$work/containerd.log" >&2
    kill "$pid"
    return 1
  fi
  # Without a registry an image that the kubelet's garbage collection removes is gone for good.
  for name in $(image_names); do
    $ctr images label "$name" io.cri-containerd.pinned=pinned >/dev/null
  done
  kill "$pid"
  wait "$pid" || true
}

main() {
  local flavour=${1:-} key out size
  local -a inputs=("$here/build.sh" "$here/disk.sh" "$here/debian.sh" "$here/packages/machine.txt"
    "$here/rootfs/initramfs" "$here/rootfs/base" "=$DEBIAN_SUITE")
  case $flavour in
  base) size=2G ;;
  node)
    size=6G
    inputs+=("$here/packages" "$here/rootfs/node" "$here/images" "$here/pause" "$here/netcheck"
      "=$("$here/../build/build.sh" --keys "${programs[@]}")" "=$KUBERNETES_VERSION $CALICO_VERSION $KUBE_VIP_VERSION $METALLB_VERSION")
    ;;
  *)
    sed -n '2,4s/^# //p' "${BASH_SOURCE[0]}" >&2
    return 2
    ;;
  esac

  key=$(digest "${inputs[@]}")
  out=$images/$flavour-$key.qcow2
  mkdir -p "$images" "$CACHE/lock"
  exec 9>"$CACHE/lock/node-image-$flavour"
  flock 9
  if [ ! -e "$out" ]; then
    if [ "$(id -u)" -ne 0 ]; then
      echo "build.sh: making an image needs root, for chroot and a loop device" >&2
      return 1
    fi
    work=$(mktemp -d "$images/work.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    mkdir "$work/tree"
    base_tree "$work/tree"
    case $flavour in
    base) ln -sf /dev/null "$work/tree/etc/systemd/system/ssh.service" ;;
    node) node_tree "$work/tree" ;;
    esac
    # Units that run after an update must not take the first boot for one.
    touch "$work/tree/etc/.updated" "$work/tree/var/.updated"
    echo "writing the $flavour disk" >&2
    "$here/disk.sh" "$work/tree" "$size" "$out.$$"
    mv "$out.$$" "$out"
  fi
  echo "$out"
}

main "$@"
