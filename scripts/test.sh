#!/usr/bin/env bash
# Every test: units and crates first, then the built binaries end to end, on user-mode and on KVM (in an emulated machine
# where this host has no hardware for it). A test that cannot run here fails the run unless tests/expected-skips has it.
set -euo pipefail
cd "$(dirname "$0")/.."

status=0
log=$(mktemp)
# The kernels are compiled beside the programs, whose compilers leave a processor idle now and then. At a lower priority,
# since nothing waits for a kernel before the first test runs.
nice -n 10 kernel/build.sh >/dev/null &
kernels=$!
trap 'rm -f "$log"; kill "$kernels" 2>/dev/null || true' EXIT
# Tools that the tests want newer than this system may have them.
scripts/newer.sh apparmor >/dev/null || status=$?
scripts/build.sh
scripts/build-trespass.sh || status=$?
# All of it always with the whole workspace: a part alone has other features of the dependencies, which are then compiled
# once more.
cargo test --locked --workspace --no-run
wait "$kernels" || status=$?

# What the tests write goes to the screen, and is kept for the comparison of skips.
cargo test --locked --workspace --no-fail-fast 2>&1 | tee "$log" || status=$?
skips=0
cargo test --quiet --locked --workspace --test skips -- "$PWD/tests/expected-skips" "$log" || skips=$?
# Another user than root lacks much that the list does not speak of: those skips are told, and fail nothing.
[ $skips = 0 ] || [ "$(id -u)" != 0 ] || status=$skips
# Compares the skips of its own before its last line, which is the last of the run.
cargo test --locked --workspace --test rig || status=$?
exit "$status"
