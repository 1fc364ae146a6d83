#!/usr/bin/env bash
# Every test: units and crates first, then the built binaries end to end, on user-mode and on KVM (in an emulated machine
# where this host has no hardware for it).
set -euo pipefail
cd "$(dirname "$0")/.."

# The end-to-end tests start many kernels; more at once than processors only makes deadlines tight.
threads=$(nproc)
status=0
scripts/build-trespass.sh || status=$?
cargo test --locked --workspace --exclude bulkhead-e2e --exclude bulkhead-rig || status=$?
cargo test --locked -p bulkhead-rig --lib || status=$?
cargo test --locked -p bulkhead-e2e --no-fail-fast -- --test-threads="$threads" || status=$?
cargo test --locked -p bulkhead-rig --test kvm || status=$?
exit "$status"
