# Completions of bulkhead for bash. The program knows what may follow; this asks it.
_bulkhead() {
    local line=${COMP_LINE:0:COMP_POINT} last strip="" mark candidate
    last=${line##*[[:space:]]}
    # bash completes only what follows the last of these characters.
    for mark in : =; do
        if [[ $COMP_WORDBREAKS == *"$mark"* && ${last#"$strip"} == *"$mark"* ]]; then
            strip=${last%"${last##*"$mark"}"}
        fi
    done
    COMPREPLY=()
    while IFS=$'\t' read -r candidate _; do
        COMPREPLY+=("${candidate#"$strip"}")
    done < <("$1" __complete "$line" 2>/dev/null)
    if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *= ]]; then
        compopt -o nospace 2>/dev/null
    fi
}
complete -o default -F _bulkhead bulkhead
