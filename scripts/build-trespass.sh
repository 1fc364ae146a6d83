#!/usr/bin/env bash
# Builds the sandbox that the test of the jail's walls catches breaking its policy (crates/jail/src/trespass.rs). An
# unoptimised build, whose dependencies the other tests have built already.
set -euo pipefail
cd "$(dirname "$0")/.."

target=${CARGO_TARGET_DIR:-target}
echo "==> building bulkhead-trespass (for a test only)"
cargo build --locked -p bulkhead-cli --features trespass
# Its symbols would be most of what the rig has to carry.
strip -o "$target/debug/bulkhead-trespass.new" "$target/debug/bulkhead"
mv "$target/debug/bulkhead-trespass.new" "$target/debug/bulkhead-trespass"
