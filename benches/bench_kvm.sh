#!/usr/bin/env bash
# The KVM platform in figures, as Markdown: what a start costs this host in processor time up to the first entry into the
# guest; then, beside QEMU's microvm, start, memory and reads: here where there is hardware KVM, else in the rig.
# usage: benches/bench_kvm.sh [start] [memory] [reads]      (default: all)
set -euo pipefail
cd "$(dirname "$0")/.."

target=${CARGO_TARGET_DIR:-target}
bulkhead=${BULKHEAD_BIN:-$target/release/bulkhead}
kernel=$(find "${XDG_CACHE_HOME:-$HOME/.cache}/bulkhead/kernels" -mindepth 2 -maxdepth 2 -name vmlinux -printf '%T@ %p\n' 2>/dev/null |
    sort -n | tail -n 1 | cut -d ' ' -f 2-)
[ -n "$kernel" ] || { echo "bench: there is no kernel for kvm; 'make kernel' builds it" >&2; exit 1; }

work=$(mktemp -d "${TMPDIR:-/tmp}/bulkhead-bench-kvm-XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir "$work/payload"
cp "$bulkhead" "$(dirname "$bulkhead")/bulkhead-agent" "$kernel" "$work/payload/"
cp "$(command -v busybox)" "$work/payload/busybox"
cp benches/bench_kvm.py benches/tables.py "$work/payload/"
cc -O2 -static -o "$work/payload/read" benches/read.c

# What QEMU's guest runs for the reads.
mkdir -p "$work/root/bin" "$work/root/dev" "$work/root/disk" "$work/root/proc"
cp "$work/payload/busybox" "$work/payload/read" "$work/root/bin/"
cat >"$work/root/init" <<'INIT'
#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t ext4 /dev/vda /disk
exec >/dev/ttyS0 2>&1
/bin/read seq /disk/first
/bin/read random /disk/second 500
/bin/read direct /disk/first
/bin/read randomdirect /disk/second 500
/bin/busybox poweroff -f
INIT
chmod 755 "$work/root/init"
(cd "$work/root" && find . | busybox cpio -o -H newc 2>/dev/null) >"$work/payload/reads.cpio"

echo "Bulkhead $("$bulkhead" --version | grep -o '[0-9][0-9.]*' | head -n 1), $(date +%F), $(nproc) CPUs ($(sed -n 's/^model name\s*: //p' /proc/cpuinfo | head -n 1)), Linux $(uname -r), QEMU $(qemu-system-x86_64 --version | grep -o 'version [0-9.]*' | cut -d ' ' -f 2)"

# The machine that a container has: 512 MiB, one CPU, sockets, randomness, balloon, image, disk.
cargo build -q --release --locked -p bulkhead-platform --example kvm_start
(cd "$work/root" && cp "$work/payload/bulkhead-agent" init && echo init | busybox cpio -o -H newc 2>/dev/null) >"$work/initramfs"
truncate -s 1G "$work/disk"
if [ -r /dev/kvm ] && [ -w /dev/kvm ]; then
    for _ in $(seq 21); do
        "$target/release/examples/kvm_start" "$kernel" "$work/initramfs" --image "$kernel" --disk "$work/disk" --prepare
    done >"$work/starts"
    median() { awk -v key="$1" '$1 == key { print $2 }' "$work/starts" | sort -n | awk '{ all[NR] = $1 } END { print all[int((NR + 1) / 2)], all[NR] }'; }
    read -r cpu most < <(median cpu_us)
    cat <<TABLE

### A start on this host up to the first entry into the guest, 21 runs

| | median | most |
|---|---|---|
| processor time from exec to the first entry, ms | $(awk "BEGIN { printf \"%.1f | %.1f\", $cpu / 1000, $most / 1000 }") |

\`kvm_start --prepare\` (crates/platform/examples): the virtual machine monitor with a container's devices, nothing entered. All threads are counted.
TABLE
else
    echo "bench: /dev/kvm cannot be opened here: processor time up to the first entry is not measured" >&2
fi

if grep -qwE 'vmx|svm' /proc/cpuinfo && [ -w /dev/kvm ]; then
    modprobe vhost_vsock 2>/dev/null || true
    exec python3 "$work/payload/bench_kvm.py" "$work/payload" "$@"
fi
echo
echo "In the rig (an AMD processor with nested virtualization, emulated by QEMU in software): only ratios mean something."
read -r system release < <(tests/rig/kernel.sh)
modules=$work/payload/modules/$release
mkdir -p "$modules/kernel/drivers" "$modules/kernel/net"
cp -a "$system/lib/modules/$release/kernel/drivers/vhost" "$modules/kernel/drivers/"
cp -a "$system/lib/modules/$release/kernel/net/vmw_vsock" "$modules/kernel/net/"
cat >"$work/payload/run.sh" <<'RUN'
#!/bin/sh
cd /payload/modules/*/kernel || exit 1
for module in drivers/vhost/vhost_iotlb drivers/vhost/vhost net/vmw_vsock/vsock net/vmw_vsock/vmw_vsock_virtio_transport_common drivers/vhost/vhost_vsock; do
    busybox insmod $module.ko* || echo "bench: the module $module does not load" >&2
done
cd /
exec python3 /payload/bench_kvm.py /payload "$@"
RUN
chmod 755 "$work/payload/run.sh"
tests/rig/run.sh --with qemu-system-x86 --payload "$work/payload" --memory 4096 -- env BENCH_STARTS="${BENCH_STARTS:-7}" /payload/run.sh "$@"
