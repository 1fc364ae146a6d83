#!/usr/bin/env bash
# Unpacks programs of a Debian release newer than the oldest that this project is tested on, with every library that they
# need, their C library too: beside the system, of which nothing is changed. Prints the directory:
#
#   root/   the packages, unpacked
#   bin/    for each program in root a command of its name, which runs it with the libraries in root
#
# It is kept in ${XDG_CACHE_HOME:-~/.cache}/bulkhead/newer/<key>; remove it there to get later packages. Nobody needs
# to be root. The packages come from where this machine gets Debian, and are verified with the keys of Debian's archive.
# usage: scripts/newer.sh PACKAGE...
set -euo pipefail

# Debian 13. One release for all, so that what a test found does not depend on when and where it ran.
release=trixie
suites=("$release" "$release-security")
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

[ $# -gt 0 ] || { sed -n 's/^# \(usage: .*\)/\1/p' "$0" >&2; exit 2; }
packages=("$@")
say() { echo "newer: $*" >&2; }
for package in "${packages[@]}"; do
    [[ $package =~ ^[a-z0-9][a-z0-9.+-]*$ ]] || { say "'$package' is no name of a package"; exit 2; }
done
for program in apt-get dpkg-deb flock; do
    command -v "$program" >/dev/null || { say "$program is not there: this works on Debian and what derives from it"; exit 1; }
done
[ -r "$keyring" ] || { say "$keyring is missing: apt-get install debian-archive-keyring"; exit 1; }

cache=${XDG_CACHE_HOME:-${HOME:?set HOME or XDG_CACHE_HOME}/.cache}/bulkhead/newer
key=$({ printf '%s\n' "${packages[@]}" "${suites[@]}" "$(dpkg --print-architecture)" && cat "${BASH_SOURCE[0]}"; } | sha256sum | cut -c 1-16)
tree=$cache/$key
finish() { echo "$tree"; exit 0; }
[ ! -d "$tree" ] || finish
mkdir -p "$cache"
# Held until this script ends; not by what it starts. One for all keys, since two at once would not be faster.
exec {lock}>"$cache/.lock"
flock "$lock"
[ ! -d "$tree" ] || finish

say "unpacking ${packages[*]} of Debian's $release (once)"
work=$(mktemp -d "$cache/.work-XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
mkdir -p "$work"/{lists,cache/archives}/partial "$work/done/root" "$work/done/bin"
: >"$work/status"

# Mirrors of this machine's own release and of its security updates; elsewhere than on Debian, the usual ones.
own=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
mirror() { # mirror SUFFIX DEFAULT
    local uri
    # shellcheck disable=SC2016 # apt's own variables
    uri=$(apt-get indextargets --format '$(RELEASE) $(COMPONENT) $(CREATED_BY) $(REPO_URI)' 2>/dev/null |
        awk -v release="$own$1" '$1 == release && $2 == "main" && $3 == "Packages" { print $4; exit }' || true)
    if [ -n "$uri" ] && grep -qxE 'ID="?debian"?' /etc/os-release; then echo "$uri"; else echo "$2"; fi
}
{
    echo "deb [signed-by=$keyring] $(mirror '' http://deb.debian.org/debian) $release main"
    echo "deb [signed-by=$keyring] $(mirror -security http://deb.debian.org/debian-security) $release-security main"
} >"$work/sources"

# Nothing of this machine's state but how it reaches the network: as if nothing were installed, all libraries are fetched.
apt() {
    apt-get -q -y -o Dir::Etc::SourceList="$work/sources" -o Dir::Etc::SourceParts=/dev/null \
        -o Dir::Etc::Preferences=/dev/null -o Dir::Etc::PreferencesParts=/dev/null \
        -o Dir::State="$work" -o Dir::State::Lists="$work/lists" -o Dir::State::status="$work/status" \
        -o Dir::Cache="$work/cache" -o Acquire::Languages=none -o Acquire::Retries=2 \
        -o Acquire::AllowInsecureRepositories=false -o APT::Get::AllowUnauthenticated=false \
        -o APT::Install-Recommends=false -o APT::Sandbox::User= -o Debug::NoLocking=1 "$@" {lock}>&-
}
# An unreachable mirror is only a warning of `update`, unless it is told otherwise.
if ! apt -o APT::Update::Error-Mode=any update >"$work/log" 2>&1; then
    tail -n 5 "$work/log" >&2
    say "Debian's $release cannot be fetched: is this machine connected, and does $(awk 'NR == 1 { print $3 }' "$work/sources") have that release?"
    exit 1
fi
if ! apt install --download-only "${packages[@]}" >"$work/log" 2>&1; then
    tail -n 10 "$work/log" >&2
    say "${packages[*]} of Debian's $release cannot be fetched"
    exit 1
fi
for archive in "$work"/cache/archives/*.deb; do
    dpkg-deb --extract "$archive" "$work/done/root"
done

# The commands look for the tree from where they are: it is moved once it is whole. Paths that are compiled into a program
# (of its configuration, say) are its caller's to replace.
loader=$(cd "$work/done/root" && find . -type f -name 'ld-linux*.so.*' -printf '%P\n' -quit)
[ -n "$loader" ] || { say "${packages[*]} bring no C library"; exit 1; }
libraries=$(dirname "$loader")
while IFS= read -r program; do
    [ "$(head -c 4 "$program" 2>/dev/null | tail -c 3)" = ELF ] || continue
    name=${program##*/}
    cat >"$work/done/bin/$name" <<COMMAND
#!/bin/sh
root=\$(dirname "\$(dirname "\$(readlink -f "\$0")")")/root
exec "\$root/$loader" --library-path "\$root/$libraries" --argv0 "$name" "\$root/${program#"$work/done/root/"}" "\$@"
COMMAND
    chmod 755 "$work/done/bin/$name"
done < <(find "$work"/done/root/{,usr/}{bin,sbin} -maxdepth 1 \( -type f -o -type l \) 2>/dev/null)
mv -T "$work/done" "$tree"
finish
