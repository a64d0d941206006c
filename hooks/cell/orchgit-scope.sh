# shellcheck shell=dash disable=SC2154
# Read by the two hooks of a cell: what the scope is, which paths lie outside it, and how to say so.
#
# The compiled scope is `orchgit-scope` in the cell's git directory, one rule per line (orchgit/githooks.py
# writes it). Whoever works in the cell can edit that file and these hooks: they are a quick word to an
# honest agent, never a boundary. So what cannot be checked passes, and is said; the gate decides.

nl='
'

scope_load() { # sets base, branch, allow, deny, protected; false when there is nothing to check by
    # Taken apart by expansion: a `read` loop costs one system call per byte in dash.
    scope=$nl$(cat "$scope_file" 2>/dev/null)$nl
    for word in base branch allow deny protected; do
        value=${scope#*"$nl$word "}
        [ "$value" != "$scope" ] || value=$nl
        eval "$word=\${value%%\"\$nl\"*}"
    done
    [ -n "$base" ] && [ -n "$allow" ]
}

scope_unchecked() {
    echo "orchgit: the scope could not be checked here ($1); the gate will." >&2
}

# scope_check GIT-COMMAND...: false, and the paths on stderr, when the command names a path outside the scope.
scope_check() {
    # Without -z git quotes odd names, so a list without `"` is raw already: no pipe hides the exit code.
    files=$(git "$@" 2>/dev/null) || {
        scope_unchecked "git $1 failed"
        return 0
    }
    case $files in
    '') return 0 ;;
    # A newline inside a name becomes \1, which no scope grants.
    *\"*) files=$(git "$@" -z | tr '\0\n' '\n\1') ;;
    esac
    never='[[:cntrl:]]'
    [ -z "$deny" ] || never="$never|$deny"
    [ -z "$protected" ] || never="$never|$protected"
    suspect=$(
        LC_ALL=C grep -vE -e "$allow" <<EOF || [ $? -eq 1 ] || exit 9
$files
EOF
        LC_ALL=C grep -E -e "$never" <<EOF || [ $? -eq 1 ] || exit 9
$files
EOF
    )
    if [ $? -eq 9 ]; then
        scope_unchecked "$scope_file is not readable as rules"
        return 0
    fi
    [ -n "$suspect" ] || return 0
    told=$(scope_reasons | scope_words)
    [ -n "$told" ] || return 0 # protected paths, each of which the plan names literally
    printf '%s\n' "$told" >&2
    return 1
}

scope_reasons() { # one "REASON path" line per path and reason
    literals=$(LC_ALL=C sed -n 's/^literal //p' "$scope_file")
    printf '%s\n' "$files" | LC_ALL=C grep -E -e '[[:cntrl:]]' | sed 's/^/name /'
    printf '%s\n' "$files" | LC_ALL=C grep -vE -e "$allow" | sed 's/^/allow /'
    [ -z "$deny" ] || printf '%s\n' "$files" | LC_ALL=C grep -E -e "$deny" | sed 's/^/deny /'
    [ -z "$protected" ] || printf '%s\n' "$files" | LC_ALL=C grep -E -e "$protected" |
        LC_ALL=C grep -vxF -e "$literals" | sed 's/^/protected /'
}

# An agent chose the names: only printable ASCII reaches the terminal, the rest as octal, as git prints it.
scope_words() {
    LC_ALL=C awk '
        BEGIN {
            for (i = 1; i < 256; i++) code[sprintf("%c", i)] = i
            why["name"] = "its name has a control character"
            why["allow"] = "no pattern of the scope covers it"
            why["deny"] = "the scope denies it"
            why["protected"] = "protected: only a plan that names this very path grants it"
        }
        {
            path = substr($0, length($1) + 2)
            if (path in seen) next
            seen[path] = 1
            if (++n > 20) next
            shown = ""
            for (i = 1; i <= length(path); i++) {
                c = substr(path, i, 1)
                o = code[c]
                if (o == 1) c = "\\n"
                else if (o == 92) c = "\\\\"
                else if (o < 32 || o > 126) c = sprintf("\\%03o", o)
                shown = shown c
            }
            printf "orchgit: %s is outside your scope (%s)\n", shown, why[$1]
        }
        END {
            if (n > 20) printf "orchgit: and %d more\n", n - 20
            if (n) print "orchgit: undo it (git restore --staged -- PATH)," \
                " or ask for it in the scope_requests of your report."
        }'
}
