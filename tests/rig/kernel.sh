#!/usr/bin/env bash
# Prints the directory below which the rig's own kernel lies, as boot/vmlinuz-RELEASE and lib/modules/RELEASE, and the
# release. That is Debian's cloud kernel: the newest that is installed, if it has what the tests want of a host
# (KVM_PRE_FAULT_MEMORY came with Linux 6.11), else one that is unpacked into the cache.
# usage: tests/rig/kernel.sh
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/cache.sh"

oldest=6.11
package=linux-image-6.12-cloud-amd64

# Prints the newest release of a cloud kernel below a directory.
newest() {
    find "$1/boot" -maxdepth 1 -name 'vmlinuz-*-cloud-amd64' -printf '%f\n' 2>/dev/null | sed 's/^vmlinuz-//' | sort -V | tail -n 1
}
# Whether a release is at least another.
at_least() { [ "$(printf '%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; }

installed=$(newest "")
if [ -n "$installed" ] && at_least "$installed" $oldest; then
    echo "/ $installed"
    exit 0
fi
cached kernel "${BASH_SOURCE[0]}" "$here/fetch.sh"
if [ ! -e "$tree/complete" ]; then
    echo "rig: unpacking Debian's package $package into the cache (once)" >&2
    rm -rf "$tree/root"
    if "$here/fetch.sh" $package "$tree/root"; then
        # Debian 12 has /lib as a link to usr/lib; its packages do not care, and modprobe looks below lib.
        [ -e "$tree/root/lib" ] || ln -s usr/lib "$tree/root/lib"
        PATH=$PATH:/sbin:/usr/sbin depmod -b "$tree/root" "$(newest "$tree/root")"
        touch "$tree/complete"
    elif [ -n "$installed" ]; then
        echo "rig: going on with the installed kernel $installed: tests that need a newer one say so" >&2
        echo "/ $installed"
        exit 0
    else
        echo "rig: linux-image-cloud-amd64 is not installed (scripts/deps.sh kvm installs it)" >&2
        exit 1
    fi
fi
echo "$tree/root $(newest "$tree/root")"
