#!/bin/sh
# Runs in the machine that run.sh starts: every test binary of the payload's list, each result marked with its name.
# usage: suite.sh [FILTER…]
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
while read -r name binary directory; do
    cd "$directory" || exit 1
    echo "@@ begin $name"
    "$binary" --test-threads="${BULKHEAD_RIG_THREADS:-2}" "$@" </dev/null 2>&1
    echo "@@ end $name $?"
done <$payload/list
kill $!
