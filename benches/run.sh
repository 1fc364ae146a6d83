#!/usr/bin/env bash
# Side-by-side measurements; prints Markdown tables. Root is needed for the peers, not for Bulkhead.
# usage: benches/run.sh [start] [stream] [memory] [touch] [disk] [pull]      (default: all)
set -euo pipefail
cd "$(dirname "$0")/.."

export BULKHEAD_BIN=${BULKHEAD_BIN:-$(realpath "${CARGO_TARGET_DIR:-target}/release/bulkhead")}
if [ "$(id -u)" != 0 ]; then
    echo "bench: the peers (crun, runsc, podman) want root here; run it as root" >&2
    exit 1
fi
# crun and podman refuse a hybrid cgroup hierarchy. A mount namespace of the benchmark's own shows them
# an empty cgroup2 one; without cgroups at all they do less work than usual, never more.
exec unshare --mount bash -c '
    if ! [ -e /sys/fs/cgroup/cgroup.controllers ]; then
        umount -R /sys/fs/cgroup 2>/dev/null || true
        mount -t cgroup2 none /sys/fs/cgroup
    fi
    exec python3 benches/bench.py "$@"' bench "$@"
