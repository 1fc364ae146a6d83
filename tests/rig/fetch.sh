#!/usr/bin/env bash
# Unpacks a Debian package into a directory, with those it depends on that this machine lacks; nothing is installed, and
# nobody needs to be root for it. The packages come from where this machine gets Debian, whatever mirror that is.
# usage: tests/rig/fetch.sh PACKAGE DIRECTORY [SUITE]      (SUITE: one more than the machine is set up for)
set -euo pipefail
package=${1:?usage: fetch.sh PACKAGE DIRECTORY [SUITE]}
into=${2:?usage: fetch.sh PACKAGE DIRECTORY [SUITE]}
suite=${3:-}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work"/{lists,archives}/partial "$into"
sources() { # options of apt-get
    # shellcheck disable=SC2016 # apt's own variables
    apt-get "$@" indextargets --format '$(ORIGIN) $(COMPONENT) deb $(REPO_URI) $(RELEASE) $(COMPONENT)' |
        sed -n 's/^Debian main //p' | sort -u >"$work/sources"
}
sources
if [ ! -s "$work/sources" ]; then
    # Whose mirrors have Debian only their lists tell, which this machine has not fetched or not kept.
    lists=(-o Dir::State::Lists="$work/lists" -o Debug::NoLocking=1 -o APT::Sandbox::User=)
    apt-get -q "${lists[@]}" update >"$work/log" 2>&1 || { tail -n 20 "$work/log" >&2; exit 1; }
    sources "${lists[@]}"
fi
[ -s "$work/sources" ] || { echo "rig: none of this machine's package sources is Debian's" >&2; exit 1; }
options=()
if [ -n "$suite" ]; then
    # On the mirror of the release that it belongs to.
    awk -v release="${suite%-backports}" -v suite="$suite" '$3 == release { print $1, $2, suite, $4 }' "$work/sources" >"$work/more"
    cat "$work/more" >>"$work/sources"
    options=(-t "$suite")
fi
apt() {
    apt-get -q -y -o Dir::Etc::SourceList="$work/sources" -o Dir::Etc::SourceParts=/dev/null \
        -o Dir::State::Lists="$work/lists" -o Dir::Cache="$work" -o Debug::NoLocking=1 -o APT::Sandbox::User= "$@"
}
if ! { apt update && apt install --download-only --no-install-recommends "${options[@]}" "$package"; } >"$work/log" 2>&1; then
    tail -n 20 "$work/log" >&2
    exit 1
fi
for archive in "$work"/archives/*.deb; do
    dpkg-deb --extract "$archive" "$into"
done
