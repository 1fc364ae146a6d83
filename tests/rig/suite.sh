#!/bin/sh
# Runs in the machine that run.sh starts: each argument is a test binary with its tests, "NAME PATH DIRECTORY TEST…"; each
# result comes out marked with its binary's name.
set -u

payload=/payload
workspace=$(cat $payload/workspace)
# Paths that are compiled into the test binaries.
mkdir -p "$workspace"
mount -o bind $payload/tree "$workspace"
# Where bulkhead looks for kernels that Debian installed.
mkdir -p /boot /lib/modules
mount -o bind $payload/boot /boot
mount -o bind $payload/modules /lib/modules

export BULKHEAD_BIN=$payload/bin/bulkhead BULKHEAD_TRESPASS_BIN=$payload/bin/bulkhead-trespass
export XDG_CACHE_HOME=$payload/cache HOME=/root
export BULKHEAD_E2E_ISOLATION="${BULKHEAD_E2E_ISOLATION:-kvm}"
# Tells a machine that stands still from a test that does.
while sleep 10; do echo '@@ alive'; done &
alive=$!
for line in "$@"; do
    # shellcheck disable=SC2086 # a line is words
    set -- $line
    name=$1 binary=$2 directory=$3
    shift 3
    cd "$directory" || exit 1
    echo "@@ begin $name $#"
    "$binary" --test-threads=1 --exact "$@" </dev/null 2>&1
    echo "@@ end $name $?"
done
kill $alive
