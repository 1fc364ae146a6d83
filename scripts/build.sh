#!/usr/bin/env bash
# Builds the release binaries: the command line, and the agent as a static program for the guest.
set -euo pipefail
cd "$(dirname "$0")/.."

target=${CARGO_TARGET_DIR:-target}
host=x86_64-unknown-linux-gnu

if ! command -v cargo >/dev/null; then
    echo "build: cargo is not on PATH; install Rust 1.95 or newer" >&2
    exit 1
fi
echo "==> building bulkhead"
cargo build --release --locked -p bulkhead-cli
# A target directory of its own: the agent's flags differ, and sharing would rebuild everything twice.
echo "==> building bulkhead-agent (static)"
RUSTFLAGS="-C target-feature=+crt-static -C relocation-model=static" \
    cargo build --profile agent --locked -p bulkhead-agent --target "$host" --target-dir "$target/agent"
install -m 755 "$target/agent/$host/agent/bulkhead-agent" "$target/release/bulkhead-agent.new"
mv "$target/release/bulkhead-agent.new" "$target/release/bulkhead-agent"
