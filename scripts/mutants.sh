#!/usr/bin/env bash
# Takes the walls away, one at a time, and shows that the test of each fails. Prints a table; fails when a test passes
# without its wall. Works in a copy of the committed tree, under ${XDG_CACHE_HOME:-~/.cache}/bulkhead/mutants, which keeps
# what was compiled. Wants root, as the tests of the walls do.
# usage: scripts/mutants.sh [NAME…]   (default: all of tests/mutants)
#
# A mutant is a file:
#
#   wall: what it takes away
#   file: the source file that it changes
#   test: arguments for cargo test
#   fails: FILE::TEST that must fail
#   binary: yes, where the test is of the built programs
#   --- take
#   lines that are in the file exactly once
#   --- give
#   what stands there instead; may be empty
set -euo pipefail
cd "$(dirname "$0")/.."

tree=$(pwd)
copy=${XDG_CACHE_HOME:-$HOME/.cache}/bulkhead/mutants
names=("$@")
if [ ${#names[@]} = 0 ]; then
    for mutant in tests/mutants/*.mutant; do names+=("$(basename "$mutant" .mutant)"); done
fi

mkdir -p "$copy"
exec {lock}>"$copy/lock"
flock "$lock"
export CARGO_TARGET_DIR=$copy/target
[ -d "$copy/tree" ] || git clone --quiet --no-checkout "$tree" "$copy/tree"
cd "$copy/tree"
git fetch --quiet "$tree" HEAD
# Files that did not change keep their times, and are not compiled again.
git checkout --quiet --force --detach FETCH_HEAD

field() { sed -n "s/^$1: //p" "$2" | head -n 1; }

# Puts the text of $2 in the place of what it takes in $1.
apply() {
    python3 - "$1" "$2" <<'PY'
import sys
source, mutant = sys.argv[1:]
text, change = open(source).read(), open(mutant).read()
take, give = change.split("--- take\n", 1)[1].split("--- give\n", 1)
if text.count(take) != 1:
    sys.exit(f"what it takes is {text.count(take)} times in {source}")
open(source, "w").write(text.replace(take, give))
PY
}

# The programs that an end-to-end test runs, unoptimised.
build_programs() {
    cargo build --locked -p bulkhead-cli &&
        RUSTFLAGS="-C target-feature=+crt-static -C relocation-model=static" cargo build --locked -p bulkhead-agent \
            --target x86_64-unknown-linux-gnu --target-dir "$CARGO_TARGET_DIR/agent" &&
        install -D "$CARGO_TARGET_DIR/debug/bulkhead" "$copy/bin/bulkhead" &&
        install -D "$CARGO_TARGET_DIR/agent/x86_64-unknown-linux-gnu/debug/bulkhead-agent" "$copy/bin/bulkhead-agent"
}
export BULKHEAD_BIN=$copy/bin/bulkhead

survived=0
table=
for name in "${names[@]}"; do
    mutant=$tree/tests/mutants/$name.mutant
    file=$(field file "$mutant") fails=$(field fails "$mutant")
    read -ra test <<<"$(field test "$mutant")"
    echo "==> $name: without $(field wall "$mutant")"
    log=$copy/$name.log
    verdict=
    if ! apply "$file" "$mutant" 2>"$log"; then
        verdict="STALE: $(tail -n 1 "$log")"
    elif ! cargo test --locked --no-run "${test[@]}" >"$log" 2>&1 ||
        { [ -n "$(field binary "$mutant")" ] && ! build_programs >>"$log" 2>&1; }; then
        verdict="DOES NOT COMPILE, see $log"
    # The title of a test without a harness has words, the name of another one none.
    elif cargo test --locked "${test[@]}" -- "${fails#*::}" >"$log" 2>&1; then
        verdict="SURVIVED, see $log"
    elif grep -qE "^test .*${fails#*::}.*FAILED" "$log" || grep -qE "^\s+.*${fails#*::}" "$log"; then
        verdict=caught
    else
        verdict="FAILED OTHERWISE, see $log"
    fi
    [ "$verdict" = caught ] || survived=$((survived + 1))
    git checkout --quiet --force -- .
    table+=$(printf '%-28s %-10s %s' "$name" "$verdict" "$fails")$'\n'
done
printf '\n%-28s %-10s %s\n%s' mutant verdict "test that must fail" "$table"
[ "$survived" = 0 ] || { echo "mutants: $survived were not caught as they should be" >&2; exit 1; }
