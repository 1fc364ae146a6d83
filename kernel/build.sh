#!/bin/sh
# Builds the guest kernel of the user-mode platform from Debian's kernel source and prints its path.
#
# The result is kept in ${XDG_CACHE_HOME:-~/.cache}/bulkhead/kernels/<key>/linux, where bulkhead finds it. The key
# covers everything the result depends on: configuration, source, compiler, this script. Nothing is installed.
#
#   BULKHEAD_LINUX_SOURCE  tarball to build from (default: /usr/src/linux-source-6.12.tar.xz)
#   JOBS                   parallel compilers (default: number of processors)
#
# Progress goes to standard error, the path alone to standard output.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
config=$here/uml.config
tarball=${BULKHEAD_LINUX_SOURCE:-/usr/src/linux-source-6.12.tar.xz}
cache=${XDG_CACHE_HOME:-${HOME:?set HOME or XDG_CACHE_HOME}/.cache}/bulkhead/kernels
jobs=${JOBS:-$(nproc)}
# Builds of one source must not differ by when, where and by whom they were made.
export KBUILD_BUILD_TIMESTAMP='Thu Jan  1 00:00:00 UTC 1970' KBUILD_BUILD_USER=bulkhead KBUILD_BUILD_HOST=bulkhead
export LC_ALL=C
# Options of the caller's own builds are not meant for this one.
unset MAKEFLAGS MFLAGS MAKELEVEL CFLAGS LDFLAGS CC ARCH O 2>/dev/null || true

say() { printf 'kernel: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

missing=
need() { # need PACKAGE TEST...: notes the Debian package if the test fails
    package=$1
    shift
    "$@" >/dev/null 2>&1 || case " $missing " in *" $package "*) ;; *) missing="$missing $package" ;; esac
}
for pair in gcc:gcc ld:binutils make:make flex:flex bison:bison bc:bc xz:xz-utils tar:tar perl:perl flock:util-linux; do
    need "${pair#*:}" command -v "${pair%%:*}"
done
if command -v gcc >/dev/null 2>&1; then
    libc=$(gcc -print-file-name=libc.a)
    need libc6-dev test -f "$libc"
fi
need linux-source-6.12 test -f "$tarball"
[ -z "$missing" ] || die "missing Debian packages: apt-get install$missing"

# The tarball is named by its package's version where it has one: hashing 150 MB takes a second of every call.
version=$(dpkg-query -W -f '${Version}' linux-source-6.12 2>/dev/null || true)
source_id="$version $(stat -c '%s %Y' "$tarball")"
key=$({
    cat "$config" "$0"
    echo "$source_id"
    gcc --version | head -n 1
    ld --version | head -n 1
} | sha256sum | cut -c 1-16)
result=$cache/$key/linux
if [ -x "$result" ]; then
    # Touched, because the kernel that was asked for last is the one that is used.
    touch "$result" 2>/dev/null || true
    echo "$result"
    exit 0
fi

mkdir -p "$cache"
exec 9>"$cache/.lock"
if ! flock -n 9; then
    say "another build is running, waiting for it"
    flock 9
fi
if [ -x "$result" ]; then
    echo "$result"
    exit 0
fi

work=$cache/.build
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
rm -rf "$work"
mkdir "$work"

# A line every few seconds, so that nobody wonders.
progress() { # progress WHAT LOG COMMAND...
    what=$1
    log=$2
    shift 2
    started=$(date +%s)
    "$@" >"$log" 2>&1 9>&- &
    pid=$!
    while kill -0 "$pid" 2>/dev/null; do
        sleep 1
        seconds=$(($(date +%s) - started))
        [ $((seconds % 10)) -ne 1 ] || say "$what, ${seconds} s, $(wc -l <"$log") lines of output"
    done
    if ! wait "$pid"; then
        tail -n 40 "$log" >&2
        die "$what failed"
    fi
}

say "building the guest kernel (once; a few minutes)"
# Left out: what only other architectures' drivers and the documentation need. It is half of the tree.
progress "unpacking $(basename "$tarball")" "$work/unpack.log" tar -xf "$tarball" -C "$work" --strip-components=1 \
    --exclude='*/drivers/gpu/drm/amd/include/*' --exclude='*/Documentation/*/*' --exclude='*/tools/testing/*' \
    --exclude='*/tools/perf/*' --exclude='*/arch/*/boot/dts/*'
cd "$work"

cp "$config" asked.config
make -s ARCH=um KCONFIG_ALLCONFIG=asked.config allnoconfig >config.log 2>&1 || {
    cat config.log >&2
    die "the configuration is not accepted"
}
lost=
while IFS= read -r line; do
    case $line in
    CONFIG_*=n)
        name=${line%%=*}
        grep -q "^$name=" .config && lost="$lost
  $line"
        ;;
    CONFIG_*)
        grep -qxF "$line" .config || lost="$lost
  $line"
        ;;
    '# CONFIG_'*' is not set')
        name=${line#\# }
        name=${name%% *}
        grep -q "^$name=" .config && lost="$lost
  $line"
        ;;
    esac
done <asked.config
[ -z "$lost" ] || die "options that were asked for did not survive (renamed, or a dependency is missing):$lost"

progress "compiling" "$work/make.log" make ARCH=um -j"$jobs" linux
[ -x linux ] || die "the build left no kernel"
strip --strip-debug linux
release=$(./linux --version) || die "the new kernel does not start"

# Published in one step: whoever looks sees the whole kernel or none.
mkdir publish
cp linux publish/linux
cp .config publish/config
rm -rf "${cache:?}/$key"
mv -T publish "$cache/$key"
say "built $release"
echo "$result"
