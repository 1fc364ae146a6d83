# Sourced by what unpacks something into the cache once.

# Makes the directory for NAME that goes with the contents of FILES, and waits until no one else is at it; sets $tree.
# usage: cached NAME FILE…
cached() {
    local name=$1 lock
    shift
    tree=${XDG_CACHE_HOME:-$HOME/.cache}/bulkhead/rig/$name-$(cat "$@" | sha256sum | cut -c 1-16)
    mkdir -p "$tree"
    # Held until the script ends.
    exec {lock}>"$tree/lock"
    flock "$lock"
}
