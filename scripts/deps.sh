#!/usr/bin/env bash
# Installs the Debian packages that one job needs and that are missing; prints nothing when none is.
# usage: scripts/deps.sh run|kernel|test|kvm|bench|bench-kvm|fuzz
set -euo pipefail

job=${1:?usage: scripts/deps.sh run|kernel|test|kvm|bench|bench-kvm|fuzz}
# Building (a C compiler for the compression and cryptography crates), a guest kernel, a Debian image (fakechroot lets an
# ordinary user make one), ext4 disks.
run=(gcc libc6-dev user-mode-linux mmdebstrap fakechroot fakeroot e2fsprogs)
kernel=(linux-source-6.12 gcc libc6-dev libelf-dev make patch flex bison bc xz-utils)
# Shells are for the tests of completions, acpica-tools reads the tables of virtual machines.
clients=(acpica-tools zsh fish busybox-static skopeo umoci docker-registry openssl erofs-utils util-linux python3 xz-utils bzip2 cpio)
# Debian's kernel for virtual machines; where the host has no hardware for them, it and an emulator are the rig.
machines=(linux-image-cloud-amd64 mmdebstrap)
grep -qwE 'svm|vmx' /proc/cpuinfo || machines+=(qemu-system-x86)
peers=(crun runsc podman fio hyperfine)

case $job in
run) packages=("${run[@]}") ;;
kernel) packages=("${kernel[@]}") ;;
test | kvm) packages=("${run[@]}" "${kernel[@]}" "${clients[@]}" "${machines[@]}") ;;
bench-kvm) packages=("${run[@]}" "${kernel[@]}" "${clients[@]}" "${machines[@]}" qemu-system-x86) ;;
bench) packages=("${run[@]}" "${kernel[@]}" "${clients[@]}" "${peers[@]}") ;;
fuzz) packages=("${run[@]}" "${clients[@]}" g++) ;;
*) echo "deps: unknown job '$job'" >&2; exit 2 ;;
esac

missing=()
for package in "${packages[@]}"; do
    [ "$(dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null)" = "ii " ] || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

echo "==> missing Debian packages: ${missing[*]}"
as_root=()
if [ "$(id -u)" != 0 ]; then
    if ! command -v sudo >/dev/null; then
        echo "deps: run this as root, or install them: apt-get install --no-install-recommends ${missing[*]}" >&2
        exit 1
    fi
    as_root=(sudo)
fi
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
trap 'rm -f "$log"' EXIT
quietly() {
    echo "==> $*"
    if ! "${as_root[@]}" "$@" >"$log" 2>&1; then
        cat "$log" >&2
        exit 1
    fi
}
quietly apt-get -q update
quietly apt-get -q install -y --no-install-recommends "${missing[@]}"
