#!/usr/bin/env bash
# Prints the path of the rig's root file system, an ext4 image of a minimal Debian with the programs that the
# end-to-end tests call; makes it first where there is none for these inputs.
# usage: tests/rig/root.sh [PACKAGE…]
set -euo pipefail

suite=bookworm
packages=(acpica-tools busybox-static ca-certificates docker-registry e2fsprogs erofs-utils mount openssl procps python3 skopeo umoci "$@")
# Nobody reads manuals in there.
options=(--variant=essential --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*'
    --dpkgopt='path-exclude=/usr/share/locale/*')

key=$(printf '%s\n' "$suite" "${packages[@]}" "${options[@]}" "$(sha256sum <"${BASH_SOURCE[0]}")" | sha256sum | cut -c 1-16)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/bulkhead/rig
image=$cache/$key/root.ext4
if [ -f "$image" ]; then
    echo "$image"
    exit 0
fi
command -v mmdebstrap >/dev/null || { echo "rig: mmdebstrap is not installed (scripts/deps.sh kvm installs it)" >&2; exit 1; }
mkdir -p "$cache/$key"
exec {lock}>"$cache/$key/lock"
flock "$lock"
if [ ! -f "$image" ]; then
    echo "==> making the rig's root file system from Debian's packages (once)" >&2
    log=$cache/$key/log
    part=$cache/$key/root.part
    rm -f "$part"
    # This runs where files have the owners that they will have in the image, whoever runs this script; /proc and
    # the like are mounted then, so it packs a copy without them.
    pack="set -e; copy=\$(mktemp -d); trap 'rm -rf \$copy' EXIT; mkdir -p \$1/payload
        tar -C \$1 --one-file-system --exclude=./var/cache/apt/* --exclude=./var/lib/apt/lists/* -c . | tar -C \$copy -x
        mke2fs -q -F -t ext4 -O ^has_journal -m 0 -E lazy_itable_init=1 -d \$copy '$part' 4G"
    if ! mmdebstrap "${options[@]}" --include="$(IFS=,; echo "${packages[*]}")" --customize-hook="$pack" \
        --skip=output/dev,output/mknod "$suite" /dev/null >"$log" 2>&1; then
        tail -n 30 "$log" >&2
        exit 1
    fi
    mv "$part" "$image"
fi
echo "$image"
