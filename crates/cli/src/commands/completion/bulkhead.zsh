#compdef bulkhead
# Completions of bulkhead for zsh. The program knows what may follow; this asks it.
_bulkhead() {
    local line candidate
    local -a candidates values texts
    line="${(j: :)words[1,CURRENT-1]} $PREFIX"
    candidates=("${(@f)$("$words[1]" __complete "$line" 2>/dev/null)}")
    for candidate in $candidates; do
        values+=("${candidate%%$'\t'*}")
        texts+=("${candidate/$'\t'/  -- }")
    done
    if (( $#values )); then
        compadd -d texts -a values
    else
        _files
    fi
}
if [ "$funcstack[1]" = "_bulkhead" ]; then
    _bulkhead "$@"
else
    compdef _bulkhead bulkhead
fi
