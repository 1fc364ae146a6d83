#!/usr/bin/env bash
# Prints the path of the emulator that the rig uses. QEMU before version 10 gets nested virtualization wrong now and then
# (docs/decisions/0011): where the installed one is older, or none is installed, Debian's backport is unpacked into the
# cache.
# usage: tests/rig/qemu.sh
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/cache.sh"

oldest=10
say() { echo "rig: $*" >&2; }

if [ -n "${BULKHEAD_RIG_QEMU:-}" ]; then
    echo "$BULKHEAD_RIG_QEMU"
    exit 0
fi
installed=$(command -v qemu-system-x86_64 || true)
if [ -n "$installed" ]; then
    version=$("$installed" --version | sed -n 's/^QEMU emulator version \([0-9]*\)\..*/\1/p')
    if [ "${version:-0}" -ge $oldest ]; then
        echo "$installed"
        exit 0
    fi
fi

# Where the backport cannot be had, an old one that is installed is better than none.
otherwise() {
    say "$*"
    [ -n "$installed" ] || { say "qemu-system-x86_64 is needed, version $oldest or newer"; exit 1; }
    say "going on with $installed, which may fail for reasons of its own"
    echo "$installed"
    exit 0
}

codename=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
[ "$codename" = bookworm ] || otherwise "no QEMU of version $oldest or newer is known for '$codename'"
cached qemu "${BASH_SOURCE[0]}" "$here/fetch.sh"
program=$tree/qemu-system-x86_64
if [ ! -x "$program" ]; then
    say "unpacking Debian's backport of QEMU into the cache (once)"
    rm -rf "$tree/root"
    "$here/fetch.sh" qemu-system-x86 "$tree/root" bookworm-backports || otherwise "Debian's backport of QEMU cannot be fetched"
    # Its libraries and its firmware lie beside it.
    cat >"$program.part" <<'WRAPPER'
#!/bin/sh
root=$(dirname "$0")/root/usr
LD_LIBRARY_PATH=$root/lib/x86_64-linux-gnu exec "$root/bin/qemu-system-x86_64" -L "$root/share/qemu" -L "$root/share/seabios" "$@"
WRAPPER
    chmod 755 "$program.part"
    error=$("$program.part" --version 2>&1 >/dev/null) || otherwise "Debian's backport of QEMU does not run: $error"
    mv "$program.part" "$program"
fi
echo "$program"
