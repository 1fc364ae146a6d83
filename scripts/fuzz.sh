#!/usr/bin/env bash
# Runs every fuzz target for SECONDS_PER_TARGET seconds (default 600), two at a time, and fails on a finding.
# usage: scripts/fuzz.sh [TARGET…]
#
# With SMOKE=1, as in CI, each target begins with an empty corpus and the same seed, so that one run does what the run
# before it did, and nothing is kept. Without it the corpus grows from run to run in fuzz/corpus.
set -euo pipefail
cd "$(dirname "$0")/../fuzz"

smoke=${SMOKE:-}
seconds=${SECONDS_PER_TARGET:-600}
# libFuzzer needs coverage only, which the stable compiler can insert; no sanitizer, hence no nightly.
host=x86_64-unknown-linux-gnu
export RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing -Cdebug-assertions -Coverflow-checks"

targets=("$@")
if [ ${#targets[@]} = 0 ]; then
    mapfile -t targets < <(for file in $(grep -l "^fuzz_target!" fuzz_targets/*.rs); do basename "$file" .rs; done)
fi
if [ -n "$smoke" ]; then
    # Most of the time of a short run is the compiler's. What it makes of the dependencies is kept outside the tree.
    export CARGO_PROFILE_RELEASE_OPT_LEVEL=1
    inputs=$({ cargo --version && cat Cargo.lock && echo "$RUSTFLAGS"; } | sha256sum | cut -c 1-16)
    cache=${XDG_CACHE_HOME:-$HOME/.cache}/bulkhead/fuzz
    export CARGO_TARGET_DIR=$cache/$inputs
    mkdir -p "$CARGO_TARGET_DIR"
    find "$cache" -mindepth 1 -maxdepth 1 ! -name "$inputs" -mtime +14 -exec rm -rf {} +
    corpora=$(mktemp -d)
    trap 'rm -rf "$corpora"' EXIT
    # A unit that takes a minute hangs; one that takes less may have a busy machine to blame.
    options=(-seed=1 -timeout=60)
else
    corpora=corpus
    options=(-timeout=20)
fi
echo "==> building ${#targets[@]} fuzz targets"
cargo build --release --target "$host"
out=${CARGO_TARGET_DIR:-target}/$host/release

run_one() {
    local name=$1
    mkdir -p "$corpora/$name" "artifacts/$name"
    # shellcheck disable=SC2086 # words of their own
    if "$out/$name" -max_total_time="$seconds" -rss_limit_mb=2048 $options_line -print_final_stats=1 \
        -artifact_prefix="artifacts/$name/" "$corpora/$name" >"artifacts/$name/log" 2>&1; then
        printf 'ok      %-16s %s\n' "$name" "$(grep -E 'number_of_executed_units' "artifacts/$name/log" | tr -s ' ')"
    else
        printf 'FINDING %-16s see fuzz/artifacts/%s/log\n' "$name" "$name"
        tail -n 20 "artifacts/$name/log"
        return 1
    fi
}
export -f run_one
export out seconds corpora options_line="${options[*]}"
printf '%s\n' "${targets[@]}" | xargs -P 2 -I{} bash -c 'run_one {}'
