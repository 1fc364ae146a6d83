#!/usr/bin/env bash
# Makes the rig's payload disk: an ext4 image with a copy of a directory, and room for what tests write.
# usage: tests/rig/disk.sh DIRECTORY IMAGE
set -euo pipefail
directory=${1:?usage: disk.sh DIRECTORY IMAGE}
image=${2:?usage: disk.sh DIRECTORY IMAGE}

# A third more than the files, for inodes and the file system's own blocks.
size=$(du -sm --apparent-size "$directory" | cut -f 1)
mke2fs -q -F -t ext4 -O ^has_journal -m 0 -E lazy_itable_init=1,root_owner=0:0 -d "$directory" "$image" \
    $((size * 4 / 3 + 64))M >/dev/null || { echo "rig: the payload disk could not be made" >&2; exit 1; }
