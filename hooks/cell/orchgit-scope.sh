# shellcheck shell=dash disable=SC2034,SC2154
# Read by the hooks of a cell: what the scope is, which paths lie outside it, and how to say so.
#
# The compiled scope is `orchgit-scope` in the cell's git directory, one rule per line, and the same rules as
# a program for sed, `orchgit-scope.sed`, which prints what may lie outside (orchgit/githooks.py writes both).
# Whoever works in the cell can edit them and these hooks: they are a quick word to an honest agent, never a
# boundary. So what cannot be checked passes, and is said; the gate decides.
#
# Each variable outside a subshell begins with orchgit_: a plain name could be an exported one, and the hook
# that is chained would see ours.

scope_load() { # sets orchgit_chain, _base, _branch; false when there is nothing to check by
    orchgit_chain=
    orchgit_base=
    orchgit_branch=
    # The long rules come last and are not read here: each byte costs dash a system call.
    while read -r orchgit_word orchgit_value; do
        case $orchgit_word in
        chain) orchgit_chain=$orchgit_value ;;
        base) orchgit_base=$orchgit_value ;;
        branch) orchgit_branch=$orchgit_value ;;
        *) break ;;
        esac
    done 2>/dev/null <"$orchgit_scope_file"
    [ -n "$orchgit_base" ]
}

scope_rule() { # the value of the only line with this word
    LC_ALL=C sed -n "s/^$1 //p" "$orchgit_scope_file"
}

scope_unchecked() {
    echo "orchgit: the scope could not be checked here ($1); the gate will." >&2
}

# scope_check GIT-COMMAND...: false, and the paths on stderr, when the command names a path outside the scope.
scope_check() {
    # Without -z git quotes odd names, so a list without `"` is raw already: no pipe hides the exit code.
    orchgit_files=$(git "$@" 2>/dev/null) || {
        scope_unchecked "git $1 failed"
        return 0
    }
    case $orchgit_files in
    '') return 0 ;;
    # A newline inside a name becomes \1, which no scope grants.
    *\"*) orchgit_files=$(git "$@" -z | tr '\0\n' '\n\1') ;;
    esac
    orchgit_suspect=$(
        LC_ALL=C sed -nE -f "$orchgit_scope_file.sed" 2>/dev/null <<EOF
$orchgit_files
EOF
    ) || {
        scope_unchecked "$orchgit_scope_file.sed is not readable as rules"
        return 0
    }
    [ -n "$orchgit_suspect" ] || return 0
    orchgit_told=$(scope_reasons | scope_words)
    [ -n "$orchgit_told" ] || return 0 # protected paths, each of which the plan names literally
    printf '%s\n' "$orchgit_told" >&2
    return 1
}

scope_reasons() { # one "REASON path" line per path and reason
    deny=$(scope_rule deny)
    printf '%s\n' "$orchgit_files" | LC_ALL=C grep -E -e '[[:cntrl:]]' | sed 's/^/name /'
    printf '%s\n' "$orchgit_files" | LC_ALL=C grep -vE -e "$(scope_rule allow)" | sed 's/^/allow /'
    [ -z "$deny" ] || printf '%s\n' "$orchgit_files" | LC_ALL=C grep -E -e "$deny" | sed 's/^/deny /'
    printf '%s\n' "$orchgit_files" | LC_ALL=C grep -E -e "$(scope_rule protected)" |
        LC_ALL=C grep -vxF -e "$(scope_rule literal)" | sed 's/^/protected /'
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
            if (n) print "orchgit: undo it (git restore --staged -- PATH), or ask for it with the tool" \
                " `request_scope`, or `orchgit request-scope PATH --why ...`."
        }'
}
