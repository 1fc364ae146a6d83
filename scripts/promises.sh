#!/usr/bin/env bash
# Checks the table "Each promise and the test that would fail" of docs/threat-model.md: every numbered promise and every
# wall is in it, and every test that it names is there. Checks too that each mutant's test and file are there.
# usage: scripts/promises.sh [DIRECTORY]   (the tree; default: this one)
set -euo pipefail
cd "${1:-$(dirname "$0")/..}"

shopt -s nullglob
document=docs/threat-model.md
faults=0
fault() { echo "promises: $*" >&2; faults=$((faults + 1)); }

# `FILE::TEST`: a function, a promise of each_user!, or the title of a test in a program without a test harness.
has_test() {
    local file=${1%%::*} name=${1#*::}
    [ -f "$file" ] || { fault "$2: there is no $file"; return; }
    grep -qE "^ *(pub )?(async )?fn $name\(|^ *$name\(b\) \{" "$file" || grep -qF "\"$name\"" "$file" ||
        fault "$2: $file has no test '$name'"
}

# Lines of the section under the heading that begins with $1.
section() { awk -v heading="## $1" 'index($0, heading) == 1 { on = 1; next } /^## / { on = 0 } on' "$document"; }

subjects=$'\n'
rows=0
while IFS='|' read -r _ subject promise tests _; do
    subject=$(echo "$subject" | xargs) promise=$(echo "$promise" | xargs -0)
    case $subject in subject | ---* | '') continue ;; esac
    rows=$((rows + 1))
    subjects+=$subject$'\n'
    mapfile -t named < <(grep -oE '`[^`]+`' <<<"$tests" | tr -d '`' || true)
    [ ${#named[@]} -gt 0 ] || fault "no test for: $subject:$promise"
    for test in "${named[@]}"; do has_test "$test" "$subject"; done
done < <(section "Each promise" | grep '^|' || true)
[ "$rows" -gt 0 ] || fault "$document has no table of promises and tests"

while read -r number; do
    [[ $subjects == *$'\n'"promise $number"$'\n'* ]] || fault "promise $number has no test"
done < <(section "What must hold" | grep -oE '^[0-9]+' || true)
while IFS='|' read -r _ wall _; do
    wall=$(echo "$wall" | xargs)
    case $wall in wall | ---* | '') continue ;; esac
    [[ $subjects == *$'\n'"$wall"$'\n'* ]] || fault "the wall '$wall' has no test"
done < <(section "The walls" | grep '^|' || true)

for mutant in tests/mutants/*.mutant; do
    file=$(sed -n 's/^file: //p' "$mutant") test=$(sed -n 's/^fails: //p' "$mutant")
    [ -f "$file" ] || fault "$mutant: there is no $file"
    has_test "$test" "$mutant"
done

[ "$faults" = 0 ] || { echo "promises: $faults faults" >&2; exit 1; }
echo "promises: $rows promises have their tests"
