#!/usr/bin/env bash
# Installs what was built: program, agent, man pages, completions, documentation, an AppArmor profile, and the tuned kernels
# of both platforms as far as kernel/build.sh has built them.
# usage: scripts/install.sh PREFIX BULKHEAD
set -euo pipefail

prefix=${1:?usage: scripts/install.sh PREFIX BULKHEAD}
bulkhead=${2:?usage: scripts/install.sh PREFIX BULKHEAD}

install -D -m 755 "$bulkhead" "$prefix/bin/bulkhead"
install -D -m 755 "$(dirname "$bulkhead")/bulkhead-agent" "$prefix/lib/bulkhead/bulkhead-agent"
kernel() { # name in the cache, name under lib: the newest build, as the program itself would choose
    local built
    built=$(ls -t "${XDG_CACHE_HOME:-$HOME/.cache}"/bulkhead/kernels/*/"$1" 2>/dev/null | head -n 1 || true)
    if [ -n "$built" ]; then
        install -D -m 755 "$built" "$prefix/lib/bulkhead/$2"
    fi
}
kernel linux linux-um
kernel vmlinux linux-kvm
pages=$(mktemp -d)
trap 'rm -rf "$pages"' EXIT
final=${prefix#"${DESTDIR:-}"}
"$bulkhead" gen-man --doc "$final/share/doc/bulkhead" "$pages"
for page in "$pages"/*.1; do
    install -D -m 644 "$page" "$prefix/share/man/man1/$(basename "$page")"
done
# What messages and man pages refer to.
source=$(dirname "$0")/..
install -D -m 644 "$source/docs/compatibility.md" "$prefix/share/doc/bulkhead/compatibility.md"
install -D -m 644 "$source/README.md" "$prefix/share/doc/bulkhead/README.md"
complete() { # shell, path
    "$bulkhead" completion "$1" >"$pages/completion"
    install -D -m 644 "$pages/completion" "$prefix/$2"
}
complete bash share/bash-completion/completions/bulkhead
complete zsh share/zsh/site-functions/_bulkhead
complete fish share/fish/vendor_completions.d/bulkhead.fish
# Where AppArmor decides who may make user namespaces (see the profile), it must know the program by its final path.
# A package builds with DESTDIR and loads the profile when it is installed.
sed "s|@PROGRAM@|$final/bin/bulkhead|" "$(dirname "$0")/../packaging/apparmor/bulkhead" >"$pages/profile"
install -D -m 644 "$pages/profile" "$prefix/share/bulkhead/apparmor/bulkhead"
if [ -n "${DESTDIR:-}" ]; then
    install -D -m 644 "$pages/profile" "$DESTDIR/etc/apparmor.d/bulkhead"
elif [ "$(cat /proc/sys/kernel/apparmor_restrict_unprivileged_userns 2>/dev/null || true)" = 1 ]; then
    if [ "$(id -u)" = 0 ]; then
        install -D -m 644 "$pages/profile" /etc/apparmor.d/bulkhead
        apparmor_parser -r /etc/apparmor.d/bulkhead
    else
        echo "AppArmor lets only known programs make user namespaces here; to make bulkhead known:"
        echo "  sudo cp $prefix/share/bulkhead/apparmor/bulkhead /etc/apparmor.d/ && sudo apparmor_parser -r /etc/apparmor.d/bulkhead"
    fi
fi
echo "installed under $prefix"
