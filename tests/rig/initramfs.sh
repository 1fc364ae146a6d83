#!/usr/bin/env bash
# Makes the rig's initramfs: busybox, init, and the kernel modules in the order in which they load.
# usage: tests/rig/initramfs.sh DIRECTORY KERNEL-RELEASE OUTPUT      (modules are in DIRECTORY/lib/modules)
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
usage='usage: initramfs.sh DIRECTORY KERNEL-RELEASE OUTPUT'
system=${1:?$usage} release=${2:?$usage} output=${3:?$usage}

tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
chmod 755 "$tree"
mkdir "$tree"/{bin,dev,proc,sys,run,tmp,modules,payload,root}
busybox=$(command -v busybox) || { echo "rig: busybox-static is not installed" >&2; exit 1; }
cp "$busybox" "$tree/bin/busybox"
install -m 755 "$here/init.sh" "$tree/init"

# The machine's own devices, and KVM of either vendor: the one that does not fit refuses to load.
wanted=(virtio_pci virtio_blk virtio_console virtio-rng overlay erofs loop irqbypass kvm kvm-amd)
: >"$tree/modules/order"
for module in "${wanted[@]}"; do
    while read -r word file options; do
        [ "$word" = insmod ] || continue # built in
        name=$(basename "$file")
        grep -q "^$name\b" "$tree/modules/order" && continue
        cp "$file" "$tree/modules/$name"
        echo "$name $options" >>"$tree/modules/order"
    done < <(/sbin/modprobe --dirname "$system" --set-version "$release" --show-depends "$module")
done
(cd "$tree" && find . | busybox cpio -o -H newc 2>/dev/null) >"$output"
