#!/usr/bin/env bash
# What `make run` shows: a Debian container in a kernel of its own, and how long it took to start.
# usage: scripts/first-run.sh BULKHEAD
set -euo pipefail

bulkhead=$(realpath "${1:?usage: scripts/first-run.sh BULKHEAD}")
cd "$(dirname "$0")/.."
image=debian:bookworm

# Debian's user-mode kernel cannot run on every processor (`bulkhead doctor` says why); ours can.
if [ "$("$bulkhead" info --format '{{with .Kernel.Path}}found{{end}}')" != found ]; then
    echo "==> no guest kernel here can run: building one (once, some minutes)"
    scripts/deps.sh kernel
    kernel/build.sh uml >/dev/null
fi
if ! "$bulkhead" image inspect "$image" >/dev/null 2>&1; then
    echo "==> making $image from Debian's packages (once)"
    "$bulkhead" bootstrap bookworm
fi
echo "==> $bulkhead run --rm $image …"
"$bulkhead" run --rm --timings "$image" sh -c '
    cat /etc/os-release
    echo
    echo "kernel in the container: $(uname -r)"
    echo "kernel of the host:      $1"
    echo' sh "$(uname -r)"
if ! ls "${XDG_CACHE_HOME:-$HOME/.cache}"/bulkhead/kernels/*/linux >/dev/null 2>&1; then
    echo
    echo "This used Debian's user-mode-linux. \`make kernel\` builds a kernel that starts several times faster."
fi
