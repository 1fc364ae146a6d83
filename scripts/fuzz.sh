#!/usr/bin/env bash
# Runs every fuzz target for SECONDS_PER_TARGET seconds (default 600), two at a time, and fails on a finding.
# usage: scripts/fuzz.sh [TARGET…]
set -euo pipefail
cd "$(dirname "$0")/../fuzz"

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
echo "==> building ${#targets[@]} fuzz targets"
cargo build --release --target "$host"
out=${CARGO_TARGET_DIR:-target}/$host/release

run_one() {
    local name=$1
    mkdir -p "corpus/$name" "artifacts/$name"
    if "$out/$name" -max_total_time="$seconds" -rss_limit_mb=2048 -timeout=20 -print_final_stats=1 \
        -artifact_prefix="artifacts/$name/" "corpus/$name" >"artifacts/$name/log" 2>&1; then
        printf 'ok      %-16s %s\n' "$name" "$(grep -E 'number_of_executed_units' "artifacts/$name/log" | tr -s ' ')"
    else
        printf 'FINDING %-16s see fuzz/artifacts/%s/log\n' "$name" "$name"
        return 1
    fi
}
export -f run_one
export out seconds
printf '%s\n' "${targets[@]}" | xargs -P 2 -I{} bash -c 'run_one {}'
