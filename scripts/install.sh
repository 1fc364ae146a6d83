#!/usr/bin/env bash
# Installs what was built: program, agent, man pages, completions, and the tuned kernels of both platforms as far as
# kernel/build.sh has built them.
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
"$bulkhead" gen-man "$pages"
for page in "$pages"/*.1; do
    install -D -m 644 "$page" "$prefix/share/man/man1/$(basename "$page")"
done
complete() { # shell, path
    "$bulkhead" completion "$1" >"$pages/completion"
    install -D -m 644 "$pages/completion" "$prefix/$2"
}
complete bash share/bash-completion/completions/bulkhead
complete zsh share/zsh/site-functions/_bulkhead
complete fish share/fish/vendor_completions.d/bulkhead.fish
echo "installed under $prefix"
