#!/bin/sh
# Builds guest kernels from Debian's kernel source and prints their paths, one a line.
#
#   kernel/build.sh [uml|kvm]...    the platforms' kernels, default both
#
# uml is the user-mode platform's kernel, a program; kvm that of virtual machines, an uncompressed ELF file. Each is
# kept in ${XDG_CACHE_HOME:-~/.cache}/bulkhead/kernels/<key>, as linux and as vmlinux, where bulkhead finds it. The key
# covers everything the result depends on: configuration, source, our patches to it (patches/<platform>/*.patch), compiler,
# this script. Nothing is installed.
#
#   BULKHEAD_LINUX_SOURCE  tarball to build from (default: /usr/src/linux-source-6.12.tar.xz)
#   JOBS                   parallel compilers (default: number of processors)
#
# Progress goes to standard error, the paths alone to standard output.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
script=$here/$(basename "$0")
tarball=${BULKHEAD_LINUX_SOURCE:-/usr/src/linux-source-6.12.tar.xz}
cache=${XDG_CACHE_HOME:-${HOME:?set HOME or XDG_CACHE_HOME}/.cache}/bulkhead/kernels
jobs=${JOBS:-$(nproc)}
# Builds of one source must not differ by when, where and by whom they were made.
export KBUILD_BUILD_TIMESTAMP='Thu Jan  1 00:00:00 UTC 1970' KBUILD_BUILD_USER=bulkhead KBUILD_BUILD_HOST=bulkhead
export LC_ALL=C
# Options of the caller's own builds are not meant for this one.
unset MAKEFLAGS MFLAGS MAKELEVEL CFLAGS LDFLAGS CC ARCH O 2>/dev/null || true

[ $# -gt 0 ] || set -- uml kvm
for platform in "$@"; do
    case $platform in
    uml | kvm) ;;
    *) echo "usage: kernel/build.sh [uml|kvm]..." >&2; exit 2 ;;
    esac
done

say() { printf 'kernel: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

missing=
need() { # need PACKAGE TEST...: notes the Debian package if the test fails
    package=$1
    shift
    "$@" >/dev/null 2>&1 || case " $missing " in *" $package "*) ;; *) missing="$missing $package" ;; esac
}
for pair in gcc:gcc ld:binutils make:make flex:flex bison:bison bc:bc xz:xz-utils tar:tar patch:patch perl:perl flock:util-linux; do
    need "${pair#*:}" command -v "${pair%%:*}"
done
if command -v gcc >/dev/null 2>&1; then
    libc=$(gcc -print-file-name=libc.a)
    need libc6-dev test -f "$libc"
fi
case " $* " in
*' kvm '*)
    # objtool reads and writes object files.
    need libelf-dev sh -c "echo '#include <gelf.h>' | gcc -E -"
    ;;
esac
need linux-source-6.12 test -f "$tarball"
[ -z "$missing" ] || die "missing Debian packages: apt-get install$missing"

# The tarball is named by its package's version where it has one: hashing 150 MB takes a second of every call.
version=$(dpkg-query -W -f '${Version}' linux-source-6.12 2>/dev/null || true)
source_id="$version $(stat -c '%s %Y' "$tarball")"
compilers=$(gcc --version | head -n 1 && ld --version | head -n 1)

# A patch touches what only its platform builds, so that it makes no other platform's kernel anew.
patches() { # patches PLATFORM COMMAND...: runs COMMAND on its patches, in the order of their numbers
    folder=$here/patches/$1
    shift
    [ -d "$folder" ] || return 0
    find "$folder" -name '*.patch' -print0 | sort -z | xargs -0 -r "$@"
}

locate() { # locate PLATFORM: sets arch, target, file, result
    case $1 in
    uml) arch=um target=linux file=linux ;;
    kvm) arch=x86_64 target=vmlinux file=vmlinux ;;
    esac
    key=$({ cat "$here/$1.config" "$script" && patches "$1" cat && echo "$source_id $compilers"; } | sha256sum | cut -c 1-16)
    result=$cache/$key/$file
}

# Whether all are there already. Touched, because the kernel that was asked for last is the one that is used.
finished() {
    for platform in "$@"; do
        locate "$platform"
        [ -e "$result" ] || return 1
    done
    for platform in "$@"; do
        locate "$platform"
        touch "$result" 2>/dev/null || true
        echo "$result"
    done
}

if finished "$@"; then exit 0; fi
mkdir -p "$cache"
exec 9>"$cache/.lock"
if ! flock -n 9; then
    say "another build is running, waiting for it"
    flock 9
    if finished "$@"; then exit 0; fi
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

say "building guest kernels: $* (once; a few minutes)"
# Left out: what only other architectures' drivers and the documentation need. It is half of the tree.
progress "unpacking $(basename "$tarball")" "$work/unpack.log" tar -xf "$tarball" -C "$work" --strip-components=1 \
    --exclude='*/drivers/gpu/drm/amd/include/*' --exclude='*/Documentation/*/*' --exclude='*/tools/testing/*' \
    --exclude='*/tools/perf/*' --exclude='*/arch/*/boot/dts/*'
cd "$work"

# ACPI in this source asks for a handler of PCI's configuration space that is not built without PCI, and then reads no
# table at all. A kernel without PCI must not ask; where the lines are gone, somebody has corrected it already.
if grep -q '^.ACPI_ADR_SPACE_PCI_CONFIG,$' drivers/acpi/acpica/evhandler.c; then
    sed -i '/^.ACPI_ADR_SPACE_PCI_CONFIG,$/d' drivers/acpi/acpica/evhandler.c
    sed -i 's/^\(#define ACPI_NUM_DEFAULT_SPACES  *\)4$/\13/' include/acpi/acconfig.h
    grep -q '^#define ACPI_NUM_DEFAULT_SPACES  *3$' include/acpi/acconfig.h ||
        die "the source's ACPI has changed: look at the handlers of address spaces in drivers/acpi/acpica/evhandler.c"
fi

# A hunk that does not fit says that the source has changed: a kernel without it would break a promise.
for platform in "$@"; do
    patches "$platform" sh -c 'for change; do
        patch -s -p1 -F0 --no-backup-if-mismatch -i "$change" && continue
        echo "$change does not fit this source"
        exit 1
    done' sh >"$work/patch.log" 2>&1 || die "$(cat "$work/patch.log")"
done

# Every line of a fragment must have become true, or be said.
verify() { # verify FRAGMENT RESULT
    lost=
    while IFS= read -r line; do
        case $line in
        CONFIG_*=n)
            name=${line%%=*}
            grep -q "^$name=" "$2" && lost="$lost
  $line"
            ;;
        CONFIG_*)
            grep -qxF "$line" "$2" || lost="$lost
  $line"
            ;;
        '# CONFIG_'*' is not set')
            name=${line#\# }
            name=${name%% *}
            grep -q "^$name=" "$2" && lost="$lost
  $line"
            ;;
        esac
    done <"$1"
    [ -z "$lost" ] || die "options that were asked for did not survive (renamed, or a dependency is missing):$lost"
}

build() { # build PLATFORM
    locate "$1"
    [ ! -e "$result" ] || return 0
    out=$work/out.$1
    mkdir "$out"
    # An absolute path: the build looks for it from another directory.
    make -s ARCH="$arch" O="$out" KCONFIG_ALLCONFIG="$here/$1.config" allnoconfig >"$out.log" 2>&1 || {
        cat "$out.log" >&2
        die "the configuration is not accepted"
    }
    verify "$here/$1.config" "$out/.config"
    progress "compiling for $1" "$out.log" make ARCH="$arch" O="$out" -j"$jobs" "$target"
    [ -f "$out/$target" ] || die "the build left no kernel"
    # Published in one step: whoever looks sees the whole kernel or none.
    publish=$work/publish.$1
    mkdir "$publish"
    case $1 in
    uml)
        strip --strip-debug -o "$publish/$file" "$out/$target"
        release=$("$publish/$file" --version) || die "the new kernel does not start"
        ;;
    kvm)
        strip --strip-all -o "$publish/$file" "$out/$target"
        chmod 644 "$publish/$file"
        release=$(cat "$out/include/config/kernel.release")
        ;;
    esac
    cp "$out/.config" "$publish/config"
    rm -rf "${cache:?}/$key"
    mv -T "$publish" "$cache/$key"
    rm -rf "$out"
    say "built $release for $1"
}

for platform in "$@"; do
    build "$platform"
done
finished "$@"
