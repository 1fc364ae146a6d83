# Completions of bulkhead for fish. The program knows what may follow; this asks it.
function __bulkhead_find
    set -l line (commandline -cp)
    set -g __bulkhead_found (bulkhead __complete "$line" 2>/dev/null)
    test (count $__bulkhead_found) -gt 0
end
# Names of files where the program has nothing to say.
complete -c bulkhead -n __bulkhead_find -f -a '$__bulkhead_found'
