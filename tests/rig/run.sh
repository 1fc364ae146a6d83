#!/usr/bin/env bash
# Runs a command in a machine with a true /dev/kvm, which QEMU emulates in software: tests/rig/README.md.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

usage() {
    cat <<'TEXT'
usage: tests/rig/run.sh [OPTION…] -- COMMAND [ARGUMENT…]

Starts Debian's cloud kernel in QEMU under software emulation with nested virtualization, runs COMMAND as root
in it with the output shown live, powers the machine off and exits with COMMAND's exit code.

  --payload DIR     a copy of DIR is mounted at /payload (writable; changes are lost); DIR may be an image that disk.sh made
  --at PATH         mount the payload at PATH too, for programs with paths compiled in
  --bare            no Debian root file system: busybox from the initramfs alone
  --with PACKAGE    one more Debian package in the root file system; may be given several times
  --memory MIB      memory of the machine (default 4096)
  --cpus N          processors of the machine (default 2); several share one of this host's
  --timeout SECONDS end the machine after so long (default 1800); the exit code is then 124
  --console FILE    keep the machine's kernel log there
  --monitor SOCKET  QEMU's monitor listens there, to look into a machine that hangs

Exit codes of the rig itself: 124 out of time, 125 the machine died or could not be started (the end of its kernel
log is shown).
TEXT
}

payload='' at='' bare=no memory=4096 cpus=2 limit=1800 console='' packages=() monitor=()
while [ $# -gt 0 ]; do
    case $1 in
    --payload) payload=$2; shift ;;
    --at) at=$2; shift ;;
    --bare) bare=yes ;;
    --with) packages+=("$2"); shift ;;
    --memory) memory=$2; shift ;;
    --cpus) cpus=$2; shift ;;
    --timeout) limit=$2; shift ;;
    --console) console=$2; shift ;;
    --monitor) monitor=(-monitor "unix:$2,server,nowait"); shift ;;
    -h | --help) usage; exit 0 ;;
    --) shift; break ;;
    *) usage >&2; exit 125 ;;
    esac
    shift
done
[ $# -gt 0 ] || { usage >&2; exit 125; }

fail() { echo "rig: $*" >&2; exit 125; }

emulator=$("$here/qemu.sh") || fail "there is no emulator"
found=$("$here/kernel.sh") || fail "there is no kernel"
read -r system release <<<"$found"
kernel=$system/boot/vmlinuz-$release

work=$(mktemp -d "${TMPDIR:-/tmp}/bulkhead-rig-XXXXXX")
trap 'rm -rf "$work"' EXIT
[ -n "$console" ] || console=$work/console

root=''
if [ $bare = no ]; then
    root=$("$here/root.sh" "${packages[@]}") || fail "the root file system could not be made"
fi

# The initramfs: busybox, the modules that the machine needs before it has a root, and the command.
"$here/initramfs.sh" "$system" "$release" "$work/initramfs"
mkdir "$work/run"
{
    printf 'exec'
    for word in "$@"; do
        printf " '%s'" "${word//\'/\'\\\'\'}"
    done
    echo
} >"$work/run/rig-command"
printf '%s' "$at" >"$work/run/rig-payload-at"
(cd "$work/run" && printf '%s\n' rig-command rig-payload-at | busybox cpio -o -H newc 2>/dev/null) >>"$work/initramfs"

drives=()
drive() { # serial number, file; what the machine writes goes to a temporary overlay
    drives+=(-drive "file=$2,if=none,id=$1,format=raw,snapshot=on,cache=unsafe,file.locking=off")
    drives+=(-device "virtio-blk-pci,drive=$1,serial=$1")
}
if [ -n "$payload" ]; then
    if [ -d "$payload" ]; then
        "$here/disk.sh" "$payload" "$work/payload" || exit 125
        payload=$work/payload
    fi
    drive payload "$payload"
fi
[ -z "$root" ] || drive root "$root"

# A pipe of our own, because the standard output may be anything: QEMU wants one that is open for writing only.
exec {output}> >(exec cat)
copier=$!
# What the emulator does slowly is left out: string instructions that go byte by byte, a fifth level of page tables.
processor=max,-erms,-fsrm,-la57
# Emulated processors that run at once get nested virtualization wrong (docs/decisions/0011). In turns, which the host's scheduler
# deals out finely enough, they do not.
turns=()
if [ "$cpus" -gt 1 ]; then
    turns=(taskset --cpu-list "$(sed -n 's/^Cpus_allowed_list:[^0-9]*\([0-9]*\).*/\1/p' /proc/self/status)")
fi
# The status port is written last: a machine that dies leaves it empty.
: >"$work/status"
code=0
# no_timer_check: an emulator that a busy host starves fails the test of the timer, and the kernel panics.
timeout --foreground "$limit" "${turns[@]}" "$emulator" \
    -M q35,graphics=off -accel tcg,thread=multi,tb-size=1024 -cpu "$processor" -smp "$cpus" -m "$memory" \
    -nodefaults -no-user-config -display none -no-reboot \
    -kernel "$kernel" -initrd "$work/initramfs" \
    -append "console=ttyS0 loglevel=5 panic=-1 mitigations=off tsc=reliable nokaslr no_timer_check" \
    -chardev "file,id=console,path=$console" -serial chardev:console \
    -device virtio-serial-pci \
    -add-fd fd=3,set=1 -chardev file,id=output,path=/dev/fdset/1,append=on -device virtserialport,chardev=output,nr=1 \
    -chardev "file,id=status,path=$work/status" -device virtserialport,chardev=status,nr=2 \
    -device virtio-rng-pci \
    "${drives[@]}" "${monitor[@]}" </dev/null 3>&"$output" &
machine=$!
trap 'kill "$machine"' INT TERM
wait "$machine" || code=$?
exec {output}>&-
wait "$copier"

tail_of_the_log() {
    echo "--- the end of the machine's kernel log" >&2
    tail -n 40 "$console" | tr -d '\r' >&2
}
if [ "$code" = 124 ]; then
    echo "rig: the command did not end within $limit s" >&2
    tail_of_the_log
    exit 124
fi
if ! grep -qx '[0-9][0-9]*' "$work/status"; then
    echo "rig: the machine died (QEMU's exit code $code)" >&2
    tail_of_the_log
    exit 125
fi
exit "$(head -n 1 "$work/status")"
